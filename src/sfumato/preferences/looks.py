"""What a picture looks like, in a few bytes: to find the same one again, resized, recompressed or renamed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

BITS = 4
COLOUR = 6.0
"""Near-duplicates differ by at most so many of the 64 bits, and in mean by at most so many of 255 levels."""
BLOCK = 256


@dataclass(frozen=True)
class Look:
    """A picture in short.

    Attributes:
        content: SHA-256 of the file.
        bits: 64 bits, whether each of 8 x 8 cells is darker than the one to its right (dHash).
        cells: the mean colours (192,) of 8 x 8 cells, 8-bit; they tell flat pictures apart, whose bits are all 0.
    """

    content: str
    bits: int
    cells: np.ndarray


def look_at(path: str | Path) -> Look:
    """Read a whole image file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no image.
    """
    data = Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes())
    cells = np.asarray(picture.resize((8, 8), Image.Resampling.BOX)).reshape(-1)
    return Look(hashlib.sha256(data).hexdigest(), bits, cells)


def near_duplicates(ones: Sequence[Look], others: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Places (i, j) of pictures that look alike and are not the same file."""
    if not ones or not others:
        return
    bits, other_bits = (np.array([look.bits for look in looks], dtype=np.uint64) for looks in (ones, others))
    cells, other_cells = (np.stack([look.cells for look in looks]).astype(np.int16) for looks in (ones, others))
    for start in range(0, len(ones), BLOCK):
        distance = np.bitwise_count(bits[start : start + BLOCK, None] ^ other_bits)
        for i, j in zip(*np.nonzero(distance <= BITS), strict=True):
            one, other = start + int(i), int(j)
            alike = np.abs(cells[one] - other_cells[other]).mean() <= COLOUR
            if alike and ones[one].content != others[other].content:
                yield one, other
