"""Backbones are loaded once, and look at the images once."""

import gc
import weakref

import pytest
import torch
from safetensors.torch import save_file

from sfumato.rewards import CLIPScore, LAIONAesthetic, WeightedSum, build_reward, load_backbone, score
from sfumato.rewards.backbone import CLIPBackbone
from tests.golden import seeded_clip
from tests.rewards.test_clip import PROMPTS


@pytest.fixture
def predictor(tmp_path):
    """An aesthetic predictor for the tiny CLIP."""
    weight = torch.randn(16, generator=torch.Generator().manual_seed(0))
    save_file({"weight": weight, "bias": torch.tensor(5.0)}, tmp_path / "aesthetic.safetensors")
    return tmp_path / "aesthetic.safetensors"


def count_passes(backbone, monkeypatch):
    """A list that grows with every pass of the image tower."""
    passes: list[int] = []
    embed = backbone.pixel_embeds
    monkeypatch.setattr(backbone, "pixel_embeds", lambda pixels: passes.append(len(pixels)) or embed(pixels))
    return passes


def test_a_sum_of_rewards_on_one_clip_runs_it_once_with_the_whole_gradient(tiny_clip, predictor, images, monkeypatch):
    clip = {"name": "clip_score", "model": str(tiny_clip)}
    rating = {"name": "aesthetic", "weights": str(predictor), "model": str(tiny_clip), "weight": 3}
    both = build_reward([clip, rating])
    apart = [build_reward(clip), build_reward(rating)]
    grads = []
    for reward in apart:
        inputs = images.clone().requires_grad_()
        score(reward, inputs, PROMPTS).sum().backward()
        grads.append(inputs.grad)
    passes = count_passes(both.rewards[0].backbone, monkeypatch)
    inputs = images.clone().requires_grad_()
    total = score(both, inputs, PROMPTS)
    total.sum().backward()
    assert passes == [3]
    torch.testing.assert_close(total, sum(score(reward, images, PROMPTS) for reward in apart))
    assert min(grad.abs().max() for grad in grads) > 0
    torch.testing.assert_close(inputs.grad, sum(grads))


def test_rewards_of_other_images_or_later_ones_get_a_pass_of_their_own(tiny_clip, images, monkeypatch):
    clip = CLIPScore(tiny_clip)
    passes = count_passes(clip.backbone, monkeypatch)

    class Mirrored:
        name, range, differentiable = "mirrored", (0.0, 100.0), True

        def __call__(self, images, prompts):
            return score(clip, images.flip(-1), prompts)

    reward = WeightedSum([clip, Mirrored(), clip], [1, 1, 1])
    expected = 2 * clip(images, PROMPTS) + clip(images.flip(-1), PROMPTS)
    passes.clear()
    torch.testing.assert_close(score(reward, images, PROMPTS), expected)
    assert passes == [3, 3]
    images.copy_(images.flip(-1))  # the same tensor with other content, as a training loop may reuse it
    mirrored = score(clip, images, PROMPTS)
    assert len(passes) == 3
    torch.testing.assert_close(mirrored, clip(images, PROMPTS))


def test_a_part_without_gradient_does_not_take_it_from_another(tiny_clip, images):
    clip = CLIPScore(tiny_clip)

    class Frozen:
        name, range, differentiable = "frozen", (0.0, 100.0), False

        @torch.no_grad()
        def __call__(self, images, prompts):
            return clip(images, prompts)

    images.requires_grad_()
    score(WeightedSum([Frozen(), clip], [1, 1]), images, PROMPTS).sum().backward()
    assert images.grad.abs().max() > 0


def test_a_backbone_is_loaded_once_and_let_go(tiny_clip, predictor):
    first, second = CLIPScore(tiny_clip), LAIONAesthetic(predictor, str(tiny_clip))
    assert first.backbone is second.backbone
    assert load_backbone(tiny_clip.parent / tiny_clip.name, dtype=torch.float32) is first.backbone
    assert load_backbone(tiny_clip, dtype=torch.bfloat16) is not first.backbone
    assert load_backbone(tiny_clip, processor=tiny_clip) is not first.backbone
    alive = weakref.ref(first.backbone)
    del first, second
    gc.collect()
    assert alive() is None


def test_a_siglip_is_a_backbone_too(tmp_path):
    seeded_clip.siglip(tmp_path)
    backbone = CLIPBackbone(tmp_path)
    embeds = backbone.image_embeds(torch.rand(2, 3, 40, 50))
    assert embeds.shape == (2, backbone.width)
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(2))
    assert backbone.logit_scale.shape == backbone.logit_bias.shape == ()
    assert backbone.logit_bias == -10
    backbone.save(tmp_path / "copy")
    torch.testing.assert_close(CLIPBackbone(tmp_path / "copy").text_embeds(["cat"]), backbone.text_embeds(["cat"]))


def test_what_is_no_clip_is_refused(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    seeded_clip.clip(tmp_path)
    CLIPTextModel(CLIPTextConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a CLIPTextModel: give a CLIPModel or a SiglipModel"):
        CLIPBackbone(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [seeded_clip.clip, seeded_clip.siglip])
def test_the_temperature_and_the_bias_are_not_rounded_to_half_precision(tmp_path, kind, dtype):
    """ln 100 is 4.594 in bfloat16, which would make PickScore's 21 a 20.76."""
    kind(tmp_path)
    half, full = CLIPBackbone(tmp_path, dtype=dtype), CLIPBackbone(tmp_path)
    assert half.logit_scale == full.logit_scale and half.logit_bias == full.logit_bias
    assert {weight.dtype for part in half.model.children() for weight in part.parameters()} == {dtype}


def test_what_cannot_be_loaded_is_named(tiny_clip):
    with pytest.raises(OSError, match="cannot load someone/clip: give a folder, or a hub id that can be reached"):
        CLIPBackbone("someone/clip")
    with pytest.raises(OSError, match="cannot load someone/tokenizer: give a folder"):
        CLIPBackbone(tiny_clip, "someone/tokenizer")


def test_a_file_is_no_folder(tiny_clip):
    with pytest.raises(ValueError, match=r"model\.safetensors is a file: give the folder of a CLIP or SigLIP"):
        CLIPBackbone(tiny_clip / "model.safetensors")


@pytest.mark.parametrize("absent", ["no/such/folder", "nowhere"])
def test_a_folder_that_is_not_there_is_named(tiny_clip, absent):
    for arguments in ((absent,), (tiny_clip, absent)):
        with pytest.raises(FileNotFoundError, match=f"there is no folder {absent}: give that of a CLIP or SigLIP"):
            CLIPBackbone(*arguments)
