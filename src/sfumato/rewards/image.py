"""Rewards that look at the pixels alone: JPEG size, JPEG distance, colourfulness. They need no weights."""

from __future__ import annotations

import io
import math

import torch

from sfumato.images import to_pil
from sfumato.rewards.info import RewardInfo


def jpeg_kilobytes(image: torch.Tensor, quality: int = 95) -> float:
    """Size in kilobytes (1000 bytes) of one image (3,H,W) in [0, 1] as PIL's JPEG."""
    file = io.BytesIO()
    to_pil(image.clamp(0, 1)).save(file, format="JPEG", quality=quality)
    return file.tell() / 1000


class JPEGCompressibility:
    """Minus the kilobytes of the image as a JPEG of quality 95 (Black et al. 2023, arXiv 2305.13301, section 5.1).

    Exact, by PIL, so it has no gradient: for policy-gradient training and for measurement. Always negative; larger
    images score lower, so compare at one size. Photographs of 512x512 lie around -100.
    """

    name = "jpeg_compressibility"
    range = (-math.inf, 0.0)
    differentiable = False

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return -images.new_tensor([jpeg_kilobytes(image) for image in images], dtype=torch.float32)


class JPEGIncompressibility:
    """The kilobytes of the image as a JPEG of quality 95: `JPEGCompressibility` with the sign turned."""

    name = "jpeg_incompressibility"
    range = (0.0, math.inf)
    differentiable = False

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return -JPEGCompressibility()(images, prompts)


class JPEGDistance:
    """Minus the Euclidean distance to the image's own JPEG of quality 80 (Clark et al. 2023, arXiv 2309.17400).

    r = -||x - decode(encode(x))||_2 over the 3HW values in [0, 1]: how much detail the codec throws away, not a size
    in bytes. Differentiable through kornia's codec, whose rounding is smoothed: on white noise and on coloured blocks
    the distance is within 12 % of that to PIL's file. Never positive; 0 is an image that JPEG does not change. Height
    and width must be multiples of 16.
    """

    name = "jpeg_distance"
    range = (-math.inf, 0.0)
    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        from kornia.enhance import jpeg_codec_differentiable

        if images.shape[-2] % 16 or images.shape[-1] % 16:
            raise ValueError(f"jpeg_distance needs sides that are multiples of 16, not {tuple(images.shape[-2:])}")
        quality = torch.full((len(images),), 80.0, device=images.device, dtype=images.dtype)
        error = (images - jpeg_codec_differentiable(images, quality)).flatten(1)
        return -(error.square().sum(1) + 1e-12).sqrt()


class Colourfulness:
    """Colourfulness M of Hasler & Süsstrunk (2003), equation 19, on the usual scale of 8-bit values.

    With rg = R - G and yb = (R + G) / 2 - B: M = sqrt(σ_rg² + σ_yb²) + 0.3 sqrt(μ_rg² + μ_yb²). Differentiable. 0 is
    grey, 15 slightly colourful, 33 moderately, 59 quite, 82 highly, 109 and more extremely colourful.
    """

    name = "colourfulness"
    range = (0.0, 255 * math.sqrt(2 * (1 + 0.3**2)))
    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        red, green, blue = (255 * images).flatten(2).unbind(1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue])
        spread = opponents.var(-1, correction=0).sum(0)
        mean = opponents.mean(-1).square().sum(0)
        # a grey image has no direction towards colour: the tiny constant makes its gradient 0 instead of NaN
        return (spread + 1e-10).sqrt() + 0.3 * (mean + 1e-10).sqrt()


INFO = (
    RewardInfo(
        "jpeg_compressibility", "minus the kilobytes of a JPEG of quality 95", "(-inf, 0]", False, JPEGCompressibility
    ),
    RewardInfo("jpeg_incompressibility", "kilobytes of a JPEG of quality 95", "[0, inf)", False, JPEGIncompressibility),
    RewardInfo(
        "jpeg_distance", "minus the distance to the image's own JPEG of quality 80", "(-inf, 0]", True, JPEGDistance
    ),
    RewardInfo("colourfulness", "Hasler & Süsstrunk's M", "[0, 377], observed 0 to 150", True, Colourfulness),
)
