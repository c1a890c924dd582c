"""Rewards that look at the pixels alone: brightness, sharpness, colourfulness. They need no weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sfumato.rewards.info import RewardInfo


def luma(images: torch.Tensor) -> torch.Tensor:
    """Y' = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601): (B,H,W) in [0, 1] of images (B,3,H,W)."""
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


class Brightness:
    """The mean luma Y' over all pixels (ITU-R BT.601), as of PIL's mode "L"; in [0, 1].

    0 is black, 1 white. Images (B,3,H,W) in [0, 1]. Differentiable. No weights, and no licence but sfumato's.
    """

    name = "brightness"
    range = (0.0, 1.0)
    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return luma(images).mean((1, 2))


class Sharpness:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy").

    r = Var(L * 255 Y') over the pixels, with L = [[0, 1, 0], [1, -4, 1], [0, 1, 0]] and mirrored borders: the number
    that `cv2.Laplacian(grey, cv2.CV_64F).var()` gives, without rounding grey to 8 bits. In [0, 1020²]; 0 is a constant
    image, 1020² a chessboard of single pixels, and a photograph under 100 is usually called blurred. Noise is sharp
    too, and a larger copy of an image is less sharp, so compare at one size. Images (B,3,H,W) in [0, 1], at least 2x2.
    Differentiable. No weights, and no licence but sfumato's.
    """

    name = "sharpness"
    range = (0.0, (4 * 255.0) ** 2)
    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        grey = F.pad(255 * luma(images)[:, None], (1, 1, 1, 1), mode="reflect")
        around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
        return (around - 4 * grey[..., 1:-1, 1:-1]).flatten(1).var(1, correction=0)


class Colourfulness:
    """Colourfulness M of Hasler & Süsstrunk (2003), equation 19, on the usual scale of 8-bit values.

    With rg = R - G and yb = (R + G) / 2 - B: M = sqrt(σ_rg² + σ_yb²) + 0.3 sqrt(μ_rg² + μ_yb²), in [0, 377]. 0 is grey,
    15 slightly colourful, 33 moderately, 59 quite, 82 highly, 109 and more extremely colourful. Images (B,3,H,W) in
    [0, 1]. Differentiable. No weights, and no licence but sfumato's.
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
    RewardInfo("brightness", "mean luma", "[0, 1]", True, Brightness),
    RewardInfo("sharpness", "variance of the Laplacian", "[0, 1040400]", True, Sharpness),
    RewardInfo(
        "colourfulness", "Hasler & Süsstrunk's M", "[0, 377]", True, Colourfulness, observed="0 to 110 on photographs"
    ),
)
