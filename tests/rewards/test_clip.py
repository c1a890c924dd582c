import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from sfumato.preprocess import Preprocess
from sfumato.rewards import CLIPBackbone, CLIPScore, score
from tests.rewards.tiny_clip import CONTEXT, save_tiny_clip

PROMPTS = ["cat", "red dog", "sun"]


def cosines(folder, images, prompts):
    """By hand, one image and one unpadded prompt at a time."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        output = model(
            input_ids=tokenizer([prompt], return_tensors="pt").input_ids,
            pixel_values=Preprocess.from_pretrained(folder)(image[None]),
        )
        found.append(output.logits_per_image[0, 0] / model.logit_scale.exp())
    return torch.stack(found).detach()


def test_clip_score_is_a_hundred_times_the_positive_part_of_the_cosine(tiny_clip, images):
    expected = cosines(tiny_clip, images, PROMPTS)
    assert expected.min() < 0 < expected.max()
    torch.testing.assert_close(CLIPScore(tiny_clip)(images, PROMPTS), 100 * expected.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_image_gradient_equals_finite_differences(tiny_clip):
    backbone = CLIPBackbone(tiny_clip, dtype=torch.float64)
    text = backbone.cached_text_embeds(["cat"])
    images = torch.rand(1, 3, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    assert torch.autograd.gradcheck(lambda x: (backbone.image_embeds(x) * text).sum(-1), images.requires_grad_())


def test_the_model_is_frozen_and_gradient_reaches_the_images(tiny_clip, images):
    reward = CLIPScore(tiny_clip)
    images.requires_grad_()
    score(reward, images, PROMPTS).sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in reward.backbone.model.parameters())


def test_each_prompt_is_encoded_once(tiny_clip, images, monkeypatch):
    reward = CLIPScore(tiny_clip)
    encoded: list[str] = []
    encode = reward.backbone.text_embeds
    monkeypatch.setattr(reward.backbone, "text_embeds", lambda prompts: encoded.extend(prompts) or encode(prompts))
    first = reward(images, ["cat", "dog", "cat"])
    assert torch.equal(reward(images, ["cat", "dog", "cat"]), first)
    reward(images, ["cat", "sun", "cat"])
    assert encoded == ["cat", "dog", "sun"]


def test_a_long_prompt_is_cut_at_the_context_and_keeps_its_end_token(tiny_clip):
    backbone = CLIPBackbone(tiny_clip)
    fits = " ".join("abcdefghij")
    assert len(fits.split()) == CONTEXT - 2
    torch.testing.assert_close(backbone.text_embeds([fits + " k l m"]), backbone.text_embeds([fits]))


def test_half_precision_scores_are_close_and_full_precision(tiny_clip, images):
    full, half = CLIPBackbone(tiny_clip), CLIPBackbone(tiny_clip, dtype=torch.bfloat16)
    embeds = half.image_embeds(images)
    assert embeds.dtype == torch.float32 and half.logit_scale.dtype == torch.float32
    torch.testing.assert_close(embeds, full.image_embeds(images), atol=0.03, rtol=0)


def test_pickled_or_damaged_weights_are_refused(tmp_path):
    folder = save_tiny_clip(tmp_path / "clip")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        CLIPBackbone(folder)
    torch.save(CLIPModel.from_pretrained(save_tiny_clip(tmp_path / "other")).state_dict(), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        CLIPBackbone(folder)


def test_a_clip_that_would_be_partly_random_is_refused(tmp_path):
    folder = save_tiny_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks text_projection\.weight and would be partly random"):
        CLIPBackbone(folder)
