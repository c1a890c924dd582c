"""What a picture's pixels alone say: the statistics in which shortcuts of a reward show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.runs import read_jsonl, write_jsonl

Array = NDArray[np.floating]

STATISTICS = {
    "saturation": "colour saturation",
    "tint": "magenta against green",
    "warmth": "red against blue",
    "brightness": "brightness",
    "contrast": "contrast",
    "high_frequency": "high-frequency energy",
    "flat": "flat areas",
    "border": "edges at the border",
    "grid": "repeated texture",
}
"""Name -> what a sentence calls it."""

VERSION = 1  # of the definitions: raise it when one changes, so that no old value is used
LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # ITU-R BT.709
CENTRE = 256  # px: textures and frequencies are those of the middle, which is enough and quick
FLAT = 2 / 255  # less than this from pixel to pixel is flat
HIGH = 0.125  # cycles per pixel, a quarter of the Nyquist frequency
FINE = 3  # pixels: a texture's period is larger than an edge is wide


def pixel_statistics(pixels: NDArray[Any]) -> dict[str, float]:
    """The `STATISTICS` of one picture; those of colour's direction in [-1, 1], the others in [0, 1].

    * saturation: mean of the largest minus the smallest of R, G, B;
    * tint, warmth: mean of (R + B) / 2 - G, and of R - B;
    * brightness, contrast: mean and standard deviation of the luma (BT.709);
    * high_frequency: share of the luma's power, without its mean and under a Hann window, above a quarter of the
      Nyquist frequency, in the middle 256 x 256 pixels;
    * flat: share of pixels that differ from their right and lower neighbours by less than 2/255;
    * border: mean step of the luma across the outer sixteenth of the picture, towards the border;
    * grid: the highest autocorrelation of the luma's Laplacian at a lag of more than 3 pixels and at most half of the
      middle 256 x 256 pixels; near 1 for a texture that repeats itself.

    Args:
        pixels: (H, W, 3), 8-bit, at least 8 pixels high and wide.

    Raises:
        ValueError: it is smaller.
    """
    if min(pixels.shape[:2]) < 8:
        raise ValueError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels is too small: it needs 8 x 8")
    colours = pixels.astype(np.float32) / 255
    luma = colours @ LUMA
    middle = _middle(luma)
    red, green, blue = pixels.mean((0, 1)) / 255
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    return {
        "saturation": float((pixels.max(2) - pixels.min(2)).mean() / 255),
        "tint": float((red + blue) / 2 - green),
        "warmth": float(red - blue),
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "high_frequency": _high_frequency(middle),
        "flat": float(((across[:-1] < FLAT) & (down[:, :-1] < FLAT)).mean()),
        "border": _border(across, down),
        "grid": _grid(middle),
    }


def _middle(luma: Array) -> Array:
    top, left = (max(0, (size - CENTRE) // 2) for size in luma.shape)
    return luma[top : top + CENTRE, left : left + CENTRE].astype(np.float64)


def _high_frequency(luma: Array) -> float:
    height, width = luma.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    spectrum = np.fft.rfft2((luma - luma.mean()) * window)
    power = spectrum.real**2 + spectrum.imag**2
    power[:, 1 : (width + 1) // 2] *= 2  # the half that a real transform leaves out
    power[0, 0] = 0
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    total = power.sum()
    return float(power[frequency > HIGH].sum() / total) if total > 1e-12 else 0.0


def _border(across: Array, down: Array) -> float:
    wide, high = max(1, across.shape[1] // 16), max(1, down.shape[0] // 16)
    bands = (across[:, :wide], across[:, -wide:], down[:high], down[-high:])
    return float(np.mean([band.mean() for band in bands]))


def _grid(luma: Array) -> float:
    rough = 4 * luma - sum(np.roll(luma, shift, axis) for axis in (0, 1) for shift in (-1, 1))
    rough = rough[1:-1, 1:-1] - rough[1:-1, 1:-1].mean()
    spectrum = np.fft.rfft2(rough)
    found = np.fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=rough.shape)
    if found[0, 0] <= 1e-12:
        return 0.0
    lag = np.hypot(*np.meshgrid(*(np.minimum(np.arange(n), n - np.arange(n)) for n in rough.shape), indexing="ij"))
    return float(np.clip(found[lag > FINE].max() / found[0, 0], 0, 1))


def read_statistics(folder: Path, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The statistics and the hash of the pixels of every row's picture, in the order of the rows.

    What was computed before is read from `folder/diagnosis/statistics.jsonl`, by file, size and time of change.

    Args:
        folder: what the rows' files are relative to.

    Raises:
        ValueError: a picture is gone, damaged, or too small.
    """
    path = folder / "diagnosis" / "statistics.jsonl"
    known = {record["key"]: record for record in read_jsonl(path)}
    found = []
    for row in rows:
        key = _key(folder, row["file"])
        if key not in known:
            pixels = _read(folder / row["file"])
            digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
            known[key] = {"key": key, "pixels": digest, **pixel_statistics(pixels)}
        found.append(known[key])
    write_jsonl(path, {record["key"]: record for record in found}.values())
    return found


def _key(folder: Path, file: str) -> str:
    try:
        status = (folder / file).stat()
    except FileNotFoundError:
        raise ValueError(
            f"the image {folder / file} is gone: run `sfumato evaluate {folder.parent}` to make it again"
        ) from None
    return f"{VERSION} {file} {status.st_size} {status.st_mtime_ns}"


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"cannot read the image {path} ({error}): delete it and run `sfumato evaluate {path.parents[3]}`, "
            "which makes it again"
        ) from error
