"""Features of any timm model."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sfumato.metrics.features import Distance, fingerprint
from sfumato.preprocess import Preprocess


class TimmFeatures:
    """Pooled features, before the classifier, of any timm model, preprocessed by the model's own data configuration.

    Args:
        model: a name that timm knows (`vit_small_patch14_dinov2.lvd142m`), a hub id (`timm/resnet50.a1_in1k`), or a
            folder with timm's `config.json` and `model.safetensors`.
        device: where to run.

    Raises:
        ImportError: timm is not installed.
        OSError: there are no safetensors weights.
        ValueError: timm knows no such model, or no pretrained weights of it; or its preprocessing is more than a
            resize by a bilinear or bicubic filter and a centre crop.
    """

    distance: Distance = "cosine"

    def __init__(self, model: str | Path, device: torch.device | str = "cpu") -> None:
        try:
            import timm
        except ImportError as error:
            raise ImportError("timm models need timm: pip install 'sfumato[features]'") from error
        name, weights = _locate(str(model))
        overlay = {"file": str(weights), "source": ""}
        try:
            loaded = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        except RuntimeError as error:
            raise ValueError(f"timm cannot make {model}: {error}") from error
        self.name, self.model = str(model), loaded.eval().requires_grad_(False).to(device)
        data = timm.data.resolve_model_data_config(self.model)
        self.preprocess, self.crop = _preprocess(data), tuple(data["input_size"][1:])

    @cached_property
    def fingerprint(self) -> str:
        how = f"timm {type(self.model).__name__} {self.preprocess!r} {self.crop}"
        return fingerprint(how, self.model.state_dict())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of images (B,3,H,W) in [0, 1].

        Raises:
            ValueError: the model gives a map or a sequence, not one vector an image.
        """
        pixels = self.preprocess(images.to(next(self.model.parameters()).device, torch.float32))
        features = self.model(_cropped(pixels, self.crop))
        if features.ndim != 2:
            raise ValueError(f"{self.name} gives {tuple(features.shape)} features: take a model that pools them")
        return features


def _locate(model: str) -> tuple[str, Path]:
    """The name to make it by, and the file of its weights."""
    import timm
    from huggingface_hub import hf_hub_download

    if (folder := Path(model)).is_dir():
        if not (weights := folder / "model.safetensors").exists():
            raise FileNotFoundError(f"{folder} has no model.safetensors: save the model with safe_serialization=True")
        return f"local-dir:{folder}", weights
    if "/" in model:
        return f"hf-hub:{model}", Path(hf_hub_download(model, "model.safetensors"))
    config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm has no pretrained {model!r}: see timm.list_pretrained(), or give a folder")
    return model, Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))


def _preprocess(data: dict[str, Any]) -> Preprocess:
    """timm's evaluation transform without its crop: resize to 1 / crop_pct of the input size, normalise."""
    if data["interpolation"] not in ("bilinear", "bicubic") or data["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"timm's interpolation={data['interpolation']}, crop_mode={data['crop_mode']} is not supported: "
            "take a model with bilinear or bicubic, and center or squash"
        )
    height, width = (math.floor(edge / data["crop_pct"]) for edge in data["input_size"][1:])
    if data["crop_mode"] == "center" and height != width:
        raise ValueError(f"timm's center crop to {height}x{width} is not supported: take a model with square input")
    size = height if data["crop_mode"] == "center" else (height, width)
    return Preprocess(size, None, tuple(data["mean"]), tuple(data["std"]), data["interpolation"], rounds=True)


def _cropped(pixels: torch.Tensor, crop: tuple[int, ...]) -> torch.Tensor:
    """The centre, rounded as torchvision rounds it."""
    top, left = (round((length - edge) / 2) for length, edge in zip(pixels.shape[-2:], crop, strict=True))
    return pixels[..., top : top + crop[0], left : left + crop[1]]
