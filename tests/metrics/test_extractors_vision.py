"""transformers vision models of every kind."""

from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from sfumato.metrics import VisionFeatures, build_extractor, extract
from sfumato.preprocess import Preprocess
from tests.golden import seeded

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VIT = {**TINY, "image_size": 32, "patch_size": 8}
SIGLIP_TEXT = {**TINY, "vocab_size": 9, "max_position_embeddings": 4, "projection_size": 16}


def images(n: int, size: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def siglip() -> SiglipModel:
    return SiglipModel(SiglipConfig(text_config=SIGLIP_TEXT, vision_config=VIT))


KINDS = {
    "vit": lambda: ViTModel(ViTConfig(**VIT)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**VIT)),
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**VIT, num_register_tokens=2)),
    "siglip": siglip,
    "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])),
}


def pooled(model: PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    """The features that docs/features.md promises, from the model's last hidden state or its own method."""
    if isinstance(model, SiglipModel):
        return model.vision_model(pixel_values=pixels).pooler_output
    hidden = model(pixel_values=pixels).last_hidden_state
    if isinstance(model, ViTModel):
        return torch.tanh(model.pooler.dense(hidden[:, 0]))
    if isinstance(model, ConvNextModel):
        return model.layernorm(hidden.mean((2, 3)))
    return hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))


def saved(kind: str, folder: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    Preprocess(size=36, crop=(32, 32), mean=(0.4, 0.5, 0.6)).save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_its_pooled_features(tmp_path: Path, kind: str) -> None:
    model = saved(kind, tmp_path)
    extractor = build_extractor(str(tmp_path))
    assert isinstance(extractor, VisionFeatures)
    assert extractor.distance == "cosine"
    for size in [(20, 20), (64, 64), (50, 90)]:
        images = seeded.pictures(3, *size).float() / 255
        with torch.no_grad():
            expected = pooled(model, extractor.preprocess(images))
        ours = extract(extractor, images, batch_size=2)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(extract(extractor, images, batch_size=1), ours, rtol=1e-4, atol=1e-5)
        assert (ours[0] - ours[1]).abs().max() > 1e-3


def test_pixels_are_those_of_the_models_processor(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    model = saved("dinov2", tmp_path)
    extractor, processor = build_extractor(str(tmp_path)), AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for size in [(20, 20), (64, 64), (50, 90)]:
        pictures = seeded.pictures(2, *size)
        files = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        with torch.no_grad():
            expected = pooled(model, processor(files, return_tensors="pt")["pixel_values"])
        ours = extractor(pictures.float() / 255)
        assert (ours - expected).norm() < 0.05 * (expected[0] - expected[1]).norm()


def test_a_model_without_pooled_features_is_refused(tmp_path: Path) -> None:
    ViTMAEModel(ViTMAEConfig(**VIT)).save_pretrained(tmp_path)
    Preprocess(size=32, crop=(32, 32)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="ViTMAEModel has no pooled output"):
        build_extractor(str(tmp_path))(torch.rand(1, 3, 32, 32))


def clip() -> CLIPModel:
    torch.manual_seed(0)
    text = {**TINY, "vocab_size": 9, "max_position_embeddings": 4}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VIT, projection_dim=6))


def save(model: torch.nn.Module, folder: Path) -> Path:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_sees_what_its_own_processor_shows_it(tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = clip().eval()
    extractor = VisionFeatures(save(model, tmp_path))
    picture = (images(1)[0] * 255).round().to(torch.uint8)
    pixels = CLIPImageProcessorPil.from_pretrained(tmp_path)(picture.permute(1, 2, 0).numpy(), return_tensors="pt")
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixels["pixel_values"]).pooler_output)
    torch.testing.assert_close(extractor(picture[None] / 255), expected, rtol=0.02, atol=0.02)
    assert extractor(images(3)).shape == (3, 6)


def test_a_missing_pooler_is_not_made_up(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**VIT), add_pooling_layer=False).eval()
    folder = save(model, tmp_path)
    first, second = VisionFeatures(folder), VisionFeatures(folder)
    assert torch.equal(first(images(2)), second(images(2)))
    expected = model(first.preprocess(images(2))).last_hidden_state[:, 0]
    torch.testing.assert_close(first(images(2)), expected)


def test_other_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(ViTModel(ViTConfig(**VIT)), tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights for layernorm.weight"):
        VisionFeatures(folder)


def test_pickled_or_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = ViTModel(ViTConfig(**VIT))
    weights = save(model, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"the weights of .* are damaged"):
        VisionFeatures(tmp_path)
    weights.unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        VisionFeatures(tmp_path)


def test_the_fingerprint_is_of_weights_and_preprocessing(tmp_path: Path) -> None:
    model = clip()
    here, there = (VisionFeatures(save(model, tmp_path / name)).fingerprint for name in ("here", "there"))
    assert here == there
    with torch.no_grad():
        model.visual_projection.weight[0, 0] += 1e-3
    assert VisionFeatures(save(model, tmp_path / "other")).fingerprint != here
    config = tmp_path / "there" / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.48145466", "0.5"))
    assert VisionFeatures(tmp_path / "there").fingerprint != here
