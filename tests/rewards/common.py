"""Pictures for tests of rewards that look at pixels."""

import numpy as np
import torch


def eight_bit(count: int, side: int = 32, smooth: int = 1) -> torch.Tensor:
    """Seeded 8-bit images as floats (B,3,side,side); `smooth` is the size of their blocks in pixels."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3, side // smooth, side // smooth), dtype=np.uint8)
    return torch.from_numpy(pixels.repeat(smooth, 2).repeat(smooth, 3)).float() / 255
