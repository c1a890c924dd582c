"""Images as raters get them: written anew, without metadata, under names and dates that tell nothing."""

from __future__ import annotations

import os
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

TILES = 8
"""Along each side of a picture that is scrambled."""


class Album:
    """The images of a study folder while it is made.

    Images that are asked for get their names at once and are written by `write`.

    Args:
        folder: where the images go, inside the study folder.
        quality: of the WebP, 1 to 100; None for lossless.
    """

    def __init__(self, folder: Path, quality: int | None) -> None:
        self._folder, self._quality = folder, quality
        self._names: dict[tuple[Path, bool], str] = {}

    def name(self, source: Path, scrambled: bool = False) -> str:
        """The file's name for an image, or for the same image with its tiles in disorder."""
        return self._names.setdefault((source, scrambled), f"{secrets.token_hex(16)}.webp")

    def sources(self) -> list[dict[str, str]]:
        """Where every image that is not scrambled came from: `image`, and `file` relative to the study folder."""
        folder = self._folder.parent
        return [
            {"image": name, "file": os.path.relpath(source, folder)}
            for (source, scrambled), name in self._names.items()
            if not scrambled
        ]

    def write(self) -> None:
        """Write all images; raises ValueError if one cannot be read."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._write, self._names, self._names.values()))

    def _write(self, wanted: tuple[Path, bool], name: str) -> None:
        source, scrambled = wanted
        try:
            with Image.open(source) as file:
                image = ImageOps.exif_transpose(file).convert("RGBA")
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot read the image {source} ({error}): draw it again, or leave it out") from error
        plain = Image.new("RGB", image.size, "white")
        plain.paste(image, mask=image)
        target = self._folder / name
        picture = scramble(plain, random.Random(name)) if scrambled else plain
        picture.save(target, "WEBP", lossless=self._quality is None, quality=self._quality or 80)
        os.utime(target, (0, 0))


def scramble(image: Image.Image, dice: random.Random) -> Image.Image:
    """The picture cut into tiles that are put together in disorder."""
    width, height = (max(1, side // TILES) for side in image.size)
    places = [(x * width, y * height) for x in range(TILES) for y in range(TILES)]
    result = image.copy()
    for (x, y), place in zip(places, dice.sample(places, len(places)), strict=True):
        result.paste(image.crop((x, y, x + width, y + height)), place)
    return result
