"""Images between tensors and files: (3, H, W) in [0, 1] and 8-bit PNG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def to_pil(image: torch.Tensor) -> Image.Image:
    """An image (3, H, W) in [0, 1] as 8-bit RGB."""
    return Image.fromarray((image.detach().float() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def save_png(image: torch.Tensor, path: str | Path) -> None:
    """Write an image (3, H, W) in [0, 1]."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(image).save(path)


def load_image(path: str | Path) -> torch.Tensor:
    """Read an image file as (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no image.
    """
    with _opened(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file, of which only the head is read; raises as `load_image`."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"cannot read the image {path} ({error}): replace it, or delete it if an evaluation made it, which then "
            "makes it again"
        ) from error


def grid(rows: list[torch.Tensor]) -> torch.Tensor:
    """One picture (3, H, W) of all images, a row for each tensor (B, 3, h, w)."""
    return torch.cat([torch.cat(list(images.detach().float().cpu()), dim=-1) for images in rows], dim=-2)
