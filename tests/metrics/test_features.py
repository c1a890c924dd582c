from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from sfumato.judge import Judge
from sfumato.metrics import FeatureCache, JudgeFeatures, VisionFeatures, extract

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VIT = {**TINY, "image_size": 32, "patch_size": 8}


def images(n: int, size: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def clip() -> CLIPModel:
    torch.manual_seed(0)
    text = {**TINY, "vocab_size": 9, "max_position_embeddings": 4}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VIT, projection_dim=6))


def save(model: torch.nn.Module, folder: Path) -> Path:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


class Counting:
    """Mean colours, and how many images were asked for."""

    def __init__(self, fingerprint: str = "mean-colour") -> None:
        self.fingerprint = fingerprint
        self.seen = 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        return batch.mean(dim=(2, 3))


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


def test_vision_models_give_one_row_per_image(tmp_path: Path) -> None:
    dino = Dinov2Model(Dinov2Config(**{**VIT, "num_attention_heads": 2}))
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]))
    assert VisionFeatures(save(dino, tmp_path / "dino"))(images(2)).shape == (2, 16)
    assert VisionFeatures(save(resnet, tmp_path / "resnet"))(images(2)).shape == (2, 12)


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


def test_judge_features_feed_its_heads() -> None:
    torch.manual_seed(0)
    judge = Judge(["fruit", "face"], ["noto", "fluent"], width=8).eval()
    features = extract(JudgeFeatures(judge), images(5, 64), batch_size=2)
    assert features.shape == (5, 64)
    with torch.no_grad():
        torch.testing.assert_close(judge.style_head(features), judge(images(5, 64)).style)


def test_extract_keeps_the_order_whatever_the_batches() -> None:
    expected = images(7).mean(dim=(2, 3))
    for batch_size in (1, 3, 7, 100):
        assert torch.equal(extract(Counting(), iter(images(7)), batch_size), expected)
    assert extract(Counting(), images(2).half()).dtype == torch.float32


def test_the_cache_spares_known_images(tmp_path: Path) -> None:
    cache, batch = FeatureCache(tmp_path), images(6)
    first, second, other = Counting(), Counting(), Counting("another")
    expected = extract(first, batch[[0, 1, 1, 0, 2]], batch_size=2, cache=cache)
    assert first.seen == 3
    found = extract(second, batch[[5, 2, 1, 0]], batch_size=3, cache=cache)
    assert second.seen == 1
    assert torch.equal(found[1:], expected[[4, 1, 0]])
    extract(other, batch[:3], cache=cache)
    assert other.seen == 3
    again = Counting()
    assert torch.equal(extract(again, batch[[5, 2, 1, 0]], cache=FeatureCache(tmp_path)), found)  # from the disk
    assert again.seen == 0


def test_a_cache_sees_what_another_process_adds(tmp_path: Path) -> None:
    ours, theirs, extractor = FeatureCache(tmp_path), FeatureCache(tmp_path), Counting()
    extract(extractor, images(2), cache=ours)
    extract(extractor, images(4), cache=theirs)
    extract(extractor, images(4), cache=ours)
    assert extractor.seen == 4


def test_a_damaged_shard_is_measured_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    expected = extract(Counting(), images(4), batch_size=2, cache=cache)
    shard = next(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    extractor = Counting()
    assert torch.equal(extract(extractor, images(4), batch_size=2, cache=FeatureCache(tmp_path)), expected)
    assert extractor.seen == 2
    extract(extractor, images(4), cache=FeatureCache(tmp_path))
    assert extractor.seen == 2


def test_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match="no images"):
        extract(Counting(), [])
    with pytest.raises(ValueError, match=r"shape \(3, H, W\), not \(1, 3, 8, 8\)"):
        extract(Counting(), [torch.rand(1, 3, 8, 8)])
