"""From images in [0, 1] to a vision model's pixel values: PIL's arithmetic, with a gradient.

Rewards and metrics both read images through CLIP-like models, each with its own size, mean and deviation.
`Preprocess` does what the model's own processor does, on tensors, on any device, within 2/255 of PIL (white noise
included; where a resize changes the aspect ratio, Pillow >= 13 may swap its two passes, which moves sharp edges more).
With `rounds` it is PIL's result but where a value lies halfway between two levels; the gradient is that without.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sfumato.runs import write_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
WRITTEN: tuple[str, ...] = (
    "do_resize",
    "size",
    "resample",
    "crop_pct",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
)
WRITTEN += ("do_normalize", "image_mean", "image_std", "do_pad", "do_flip_channel_order")
OTHER_ARITHMETIC = ("do_pad", "do_flip_channel_order", "rescale_offset", "include_top")
OTHER_PROCESSORS = ("Levit", "Siglip2")  # a resize of its own; patches of no fixed number


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop, normalise.

    Attributes:
        size: length of the shorter edge after resizing, or (height, width), or None for no resizing.
        crop: (height, width) of the centre crop, or None.
        mean: subtracted from each channel of an image in [0, 1].
        std: divides each channel thereafter.
        resample: "bicubic" or "bilinear", both antialiased as in PIL.
        rounds: whether to round to 8 bits after every pass, as PIL does; the gradient passes straight through.
    """

    size: int | tuple[int, int] | None = 224
    crop: tuple[int, int] | None = (224, 224)
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    resample: str = "bicubic"
    rounds: bool = False

    @classmethod
    def from_pretrained(cls, model: str | Path) -> Preprocess:
        """Read `preprocessor_config.json` (or `processor_config.json`) of a local folder or a hub id.

        What the file leaves out, such as the filter in old files, is as in the processor that it names; as in CLIP
        where it names none.

        Raises:
            OSError: there is no such file.
            ValueError: it asks for more than resizing by a bilinear or bicubic filter, a centre crop and normalising.
        """
        from transformers import AutoImageProcessor
        from transformers.image_processing_base import ImageProcessingMixin

        config, _ = ImageProcessingMixin.get_image_processor_dict(str(model))
        try:
            processor = AutoImageProcessor.from_pretrained(str(model), backend="pil")
        except (ValueError, ImportError):  # no processor is named, or one that needs torchvision, such as DINOv3's
            return cls.from_config(config)
        return cls.from_config(config | {key: _plain(getattr(processor, key, None)) for key in WRITTEN})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """The same from the file's content; what it leaves out is as in CLIP."""
        _check(config)
        crops = config.get("do_center_crop", config.get("crop_size") is not None)
        size = _size(config.get("size") or 224, crops) if config.get("do_resize", True) else None
        crop = _pair(config.get("crop_size") or 224) if crops else None
        if size is not None and config.get("crop_pct"):
            size, crop = _enlarged(size, crop, config["crop_pct"])
        normalises = config.get("do_normalize", True)
        return cls(
            size=size,
            crop=crop,
            mean=tuple(config.get("image_mean") or CLIP_MEAN) if normalises else (0.0, 0.0, 0.0),
            std=tuple(config.get("image_std") or CLIP_STD) if normalises else (1.0, 1.0, 1.0),
            resample=RESAMPLE[config.get("resample", 3)],
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `preprocessor_config.json` so that transformers and `from_pretrained` read it back."""
        config: dict[str, Any] = {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_rescale": True,
            "do_resize": self.size is not None,
            "do_center_crop": self.crop is not None,
            "do_normalize": True,
            "image_mean": self.mean,
            "image_std": self.std,
            "resample": next(number for number, name in RESAMPLE.items() if name == self.resample),
        }
        if self.size is not None:
            config["size"] = {"shortest_edge": self.size} if isinstance(self.size, int) else _named(self.size)
        if self.crop is not None:
            config["crop_size"] = _named(self.crop)
        write_json(Path(folder) / "preprocessor_config.json", config)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Pixel values (B,3,h,w) of images (B,3,H,W) in [0, 1]; half precision is computed in float32."""
        if images.dtype not in (torch.float32, torch.float64):
            images = images.float()
        pixels = self._crop(self._resize(images))
        mean = pixels.new_tensor(self.mean).view(-1, 1, 1)
        std = pixels.new_tensor(self.std).view(-1, 1, 1)
        return (pixels - mean) / std

    def _resize(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        if self.size is None:
            return images
        if isinstance(self.size, int):
            short = min(height, width)
            target = (int(self.size * height / short), int(self.size * width / short))
        else:
            target = self.size
        # PIL goes along rows, then columns, and clips each pass; one joint pass strays by up to 45/255.
        if target[1] != width:
            images = self._interpolate(images, (height, target[1]))
        if target[0] != height:
            images = self._interpolate(images, target)
        return images

    def _interpolate(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        images = F.interpolate(images, size=size, mode=self.resample, antialias=True).clamp(0, 1)
        return (images * 255 + 0.5).floor() / 255 + (images - images.detach()) if self.rounds else images

    def _crop(self, images: torch.Tensor) -> torch.Tensor:
        if self.crop is None:
            return images
        height, width = self.crop
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        if top < 0 or left < 0:
            raise ValueError(
                f"cannot crop {height}x{width} from {images.shape[-2]}x{images.shape[-1]}: "
                "give larger images, or a Preprocess whose size is at least its crop"
            )
        return images[..., top : top + height, left : left + width]


def _check(config: dict[str, Any]) -> None:
    """Refuse what `Preprocess` does not do."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or "this preprocessor"
    if config.get("resample", 3) not in RESAMPLE:
        raise ValueError(f"resample={config['resample']} is not supported: use 2 (bilinear) or 3 (bicubic)")
    if name.startswith(OTHER_PROCESSORS):
        raise ValueError(f"{name} is not supported: use a model whose processor resizes to one size, crops, normalises")
    for key in OTHER_ARITHMETIC:
        if config.get(key):
            raise ValueError(f"{key} of {name} is not supported: use a model whose processor has it false")
    if not config.get("do_rescale", True) or abs((config.get("rescale_factor") or 1 / 255) * 255 - 1) > 1e-6:
        raise ValueError(f"{name} does not bring pixels to [0, 1] (do_rescale, rescale_factor): this is not supported")


def _enlarged(
    size: int | tuple[int, int], crop: tuple[int, int] | None, share: float
) -> tuple[int | tuple[int, int], tuple[int, int]]:
    """ConvNeXT's and PoolFormer's `crop_pct`: the crop is this share of the resized image."""
    edge = size if isinstance(size, int) else min(size)
    if crop is None and edge >= 384:
        return (edge, edge), (edge, edge)
    return int(edge / share), crop or (edge, edge)


def _plain(value: Any) -> Any:
    """A size as a plain dictionary of what it holds."""
    return {key: value for key, value in dict(value).items() if value} if hasattr(value, "shortest_edge") else value


def _pair(size: int | list[int] | dict[str, int]) -> tuple[int, int]:
    """A (height, width) from any spelling of a fixed size."""
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict):
        height, width = size
        return height, width
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    if not size.keys() >= {"height", "width"}:
        raise ValueError(f"size {size} is not supported: give shortest_edge, or height and width")
    return size["height"], size["width"]


def _named(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _size(size: int | list[int] | dict[str, int], crops: bool) -> int | tuple[int, int]:
    """A resize target; old configs write a bare number, which means the shorter edge where a crop follows."""
    if isinstance(size, int):
        return size if crops else (size, size)
    return size["shortest_edge"] if isinstance(size, dict) and "shortest_edge" in size else _pair(size)
