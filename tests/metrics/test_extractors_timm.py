"""timm models; most of it needs timm, which needs torchvision: `pip install 'sfumato[features]'`."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sfumato.metrics import build_extractor
from tests.golden import seeded


def timm_folder(folder: Path, name: str = "resnet10t", **data: object) -> Path:
    """A folder as timm saves it, with random weights and a data configuration."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    model.pretrained_cfg.update(data)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def test_without_timm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[features\]'"):
        build_extractor("timm:resnet18")


@pytest.mark.parametrize(
    "data",
    [
        {"input_size": (3, 64, 64), "crop_pct": 0.95, "interpolation": "bicubic"},
        {"input_size": (3, 64, 64), "crop_pct": 0.875, "interpolation": "bilinear", "mean": (0.5, 0.4, 0.3)},
        {"input_size": (3, 48, 64), "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
    ],
)
def test_it_is_timms_own_transform_and_pooled_features(tmp_path: Path, data: dict) -> None:
    timm = pytest.importorskip("timm")
    from PIL import Image

    folder = timm_folder(tmp_path, **data)
    extractor = build_extractor(f"timm:{folder}")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    for size in [(64, 64), (90, 131), (200, 100)]:
        pictures = seeded.pictures(2, *size)
        pixels = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pictures])
        with torch.no_grad():
            expected = model(pixels)
        ours = extractor(pictures.float() / 255)
        assert ours.shape == expected.shape == (2, 512)
        assert (ours - expected).norm() < 0.03 * (expected[0] - expected[1]).norm()


def test_a_name_that_timm_knows_brings_its_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    model, asked = timm.create_model("resnet10t").eval(), []
    save_file(model.state_dict(), tmp_path / "model.safetensors")

    def download(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    extractor = build_extractor("timm:resnet10t.c3_in1k")
    assert asked == [("timm/resnet10t.c3_in1k", "model.safetensors")]
    images = seeded.pictures(1, 201, 201).float() / 255  # 176 / 0.875, so that nothing is resized
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(extractor.preprocess(images)[..., 12:188, 12:188]), True)
    assert torch.allclose(extractor(images), expected, rtol=1e-4, atol=1e-5)


def test_the_fingerprint_is_of_the_weights_and_the_data_configuration(tmp_path: Path) -> None:
    data = {"input_size": (3, 64, 64), "crop_pct": 0.875}
    first = build_extractor(f"timm:{timm_folder(tmp_path / 'a', **data)}").fingerprint
    assert build_extractor(f"timm:{timm_folder(tmp_path / 'b', **data)}").fingerprint == first
    assert build_extractor(f"timm:{timm_folder(tmp_path / 'c', **{**data, 'crop_pct': 1.0})}").fingerprint != first


def test_pickles_and_what_cannot_be_done_are_refused(tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "lanczos", interpolation="lanczos")
    with pytest.raises(ValueError, match="interpolation=lanczos, crop_mode=center is not supported"):
        build_extractor(f"timm:{folder}")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        build_extractor(f"timm:{folder}")
    with pytest.raises(ValueError, match="timm has no pretrained 'resnet19'"):
        build_extractor("timm:resnet19")
    unknown = timm_folder(tmp_path / "unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"architecture": "resnet19"}))
    with pytest.raises(ValueError, match="timm cannot make"):
        build_extractor(f"timm:{unknown}")
