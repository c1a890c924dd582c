"""ImageReward against the package that defines it (golden/make_rewards_imagereward.py), and conversion."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sfumato.convert import convert_weights
from sfumato.images import to_pil
from sfumato.rewards import ImageReward, build_reward, score
from sfumato.rewards.image_reward import EDGE, Square
from tests.golden import seeded
from tests.golden.seeded_imagereward import PICTURES, PROMPTS, PUBLISHED, save_tokenizer, weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rewards_imagereward.json").read_text())
EQUAL = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' pickle, what it is converted to, and a tokenizer."""
    folder = save_tokenizer(tmp_path_factory.mktemp("imagereward"))
    torch.save(weights(), folder / "ImageReward.pt")
    convert_weights("imagereward", [folder / "ImageReward.pt"], folder / "imagereward.safetensors")
    return folder


def load(folder: Path, file: str = "imagereward.safetensors", dtype: torch.dtype | None = None) -> ImageReward:
    return ImageReward(folder / file, folder, dtype=dtype)


def pictures(size: tuple[int, int]) -> torch.Tensor:
    return seeded.pictures(len(PROMPTS), *size).float() / 255


def golden(key: str = "224x224") -> torch.Tensor:
    return torch.tensor(GOLDEN["scores"][key])


def strayed(reward: ImageReward, size: tuple[int, int] = PICTURES[0], key: str = "") -> float:
    """Largest relative difference from the package over all pairs of a picture and a prompt."""
    images, expected = pictures(size), golden(key or f"{size[0]}x{size[1]}")
    ours = torch.stack([reward(images, [prompt] * len(images)) for prompt in PROMPTS])
    return float(((ours - expected) / expected).abs().max())


def by_pil(images: torch.Tensor) -> torch.Tensor:
    """Pixel values of 8-bit images, resized as the package does it."""
    height, width = (int(EDGE * edge / min(images.shape[-2:])) for edge in images.shape[-2:])
    resized = [np.array(to_pil(image).resize((width, height), Image.Resampling.BICUBIC)) for image in images]
    return Square(None)(torch.tensor(np.stack(resized)).permute(0, 3, 1, 2) / 255)


def test_it_is_the_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = load(folder)
    assert strayed(reward) < EQUAL
    for size in PICTURES[1:]:
        with monkeypatch.context() as equal:
            equal.setattr(reward, "preprocess", by_pil)
            assert strayed(reward, size) < EQUAL
        reward.preprocess = replace(Square(EDGE), rounds=True)  # PIL's result but for ties
        assert strayed(reward, size) < 1e-3


@pytest.mark.torture
def test_it_is_the_packages_at_the_sizes_of_the_published_weights(folder: Path, tmp_path: Path) -> None:
    save_file(weights(PUBLISHED), tmp_path / "published.safetensors")
    assert strayed(ImageReward(tmp_path / "published.safetensors", folder), key="published sizes") < EQUAL


def test_pictures_and_prompts_matter_far_more_than_the_difference_from_the_package() -> None:
    scores = golden()
    for part in (*scores, *scores.T):
        assert part.std() > 100 * EQUAL * part.abs().max()


@pytest.mark.parametrize(
    "name",
    [
        "blip.visual_encoder.patch_embed.proj.weight",
        "blip.visual_encoder.pos_embed",
        "blip.visual_encoder.blocks.2.attn.qkv.weight",
        "blip.visual_encoder.norm.weight",
        "blip.text_encoder.embeddings.word_embeddings.weight",
        "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight",
        "blip.text_encoder.encoder.layer.1.crossattention.self.value.weight",
        "blip.text_encoder.encoder.layer.1.output.dense.weight",
        "mlp.layers.0.weight",
        "mlp.layers.7.weight",
    ],
)
def test_a_weight_that_is_one_per_cent_larger_is_noticed(folder: Path, tmp_path: Path, name: str) -> None:
    state = load_file(folder / "imagereward.safetensors")
    state[name] *= 1.01
    save_file(state, tmp_path / "perturbed.safetensors")
    assert strayed(ImageReward(tmp_path / "perturbed.safetensors", folder)) > EQUAL


def test_the_gradient_equals_finite_differences_through_the_preprocessing(folder: Path) -> None:
    reward = load(folder, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 30, dtype=torch.float64, generator=random) * 0.4 + 0.3
    direction = torch.randn(images.shape, dtype=torch.float64, generator=random)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(score(reward, images, PROMPTS[:2]).sum(), images)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (reward(images + sign * step * direction, PROMPTS[:2]).sum() for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-6, atol=0)


def test_a_batch_is_scored_as_its_images_alone_and_the_weights_are_frozen(folder: Path) -> None:
    reward, images = load(folder), pictures((64, 80))
    together = score(reward, images.requires_grad_(), PROMPTS)
    alone = torch.cat([reward(image[None], [prompt]) for image, prompt in zip(images, PROMPTS, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    parameters = [*reward.blip.image.parameters(), *reward.blip.text.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)


def test_each_prompt_is_tokenised_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward, images = load(folder), pictures((32, 32))
    seen: list[str] = []
    tokenizer = reward.tokenizer

    def counting(prompts: list[str], **options: Any) -> Any:
        seen.extend(prompts)
        return tokenizer(prompts, **options)

    monkeypatch.setattr(reward, "tokenizer", counting)
    first = reward(images, ["cat", "dog", "cat"])
    assert torch.equal(reward(images, ["cat", "dog", "cat"]), first)
    reward(images, ["moon", "cat", "dog"])
    assert seen == ["cat", "dog", "moon"]


def test_a_long_prompt_is_cut_at_35_tokens_and_keeps_its_end(folder: Path) -> None:
    reward = load(folder)
    tokens, mask = reward.tokens(["cat " * 33, "cat " * 40, "cat"])
    assert torch.equal(tokens[0], tokens[1]) and tokens.shape == (3, 35)
    assert reward.tokenizer.decode(tokens[1, -1]) == "[SEP]"
    assert mask.sum(1).tolist() == [35, 35, 3]


def test_half_precision_scores_are_close_and_full_precision(folder: Path) -> None:
    images = pictures((64, 64))
    full, half = load(folder)(images, PROMPTS), load(folder, dtype=torch.bfloat16)(images, PROMPTS)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


def test_a_recipe_builds_it(folder: Path) -> None:
    config = {"name": "imagereward", "model": str(folder / "imagereward.safetensors"), "tokenizer": str(folder)}
    reward = build_reward(config, dtype=torch.bfloat16)
    assert isinstance(reward, ImageReward) and reward.blip.image.dtype == torch.bfloat16


def test_the_file_of_the_hub_needs_no_conversion_if_it_is_safetensors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *args: asked.append(args) or str(tmp_path / "model.safetensors")
    )
    images = pictures((48, 48))
    assert torch.equal(ImageReward("me/imagereward", folder)(images, PROMPTS), load(folder)(images, PROMPTS))
    assert asked == [("me/imagereward", "model.safetensors")]


def test_what_is_not_imagereward_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not safetensors: run `sfumato convert-weights imagereward"):
        load(folder, "ImageReward.pt")
    with pytest.raises(OSError, match="there is no file"):
        load(folder, "absent.safetensors")
    state = weights()
    torch.save({name: tensor for name, tensor in state.items() if "mlp" not in name}, tmp_path / "blip.pth")
    with pytest.raises(ValueError, match=r"lacks mlp\.layers\.0\.weight: give the authors' ImageReward\.pt"):
        convert_weights("imagereward", [tmp_path / "blip.pth"], tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "blip.visual_encoder.blocks.1.norm1.bias",
        "blip.visual_encoder.pos_embed",
        "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight",
        "blip.text_encoder.encoder.layer.0.intermediate.dense.bias",
        "mlp.layers.4.bias",
    ],
)
def test_weights_that_would_be_partly_random_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    state = weights()
    shape = state.pop(name).shape
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        ImageReward(tmp_path / "part.safetensors", folder)
    if name.endswith(("norm1.bias", "key.weight")):
        save_file(state | {name: torch.zeros(shape[0] + 1, *shape[1:])}, tmp_path / "unfit.safetensors")
        with pytest.raises(ValueError, match="lacks a fitting"):
            ImageReward(tmp_path / "unfit.safetensors", folder)
