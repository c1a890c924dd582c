"""Preference pairs, and images with prompts, and their file format: one JSON object a line, images as paths."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from sfumato.runs import write_text

T = TypeVar("T")
LABELS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Pair:
    """Two images for one prompt, and which was preferred.

    Attributes:
        prompt: what both images were asked to show.
        image_0: path of the first image (any key, where the reader of images knows it).
        image_1: path of the second image.
        label: 1 if `image_0` was preferred, 0 if `image_1` was, 0.5 for a tie: Pick-a-Pic's `label_0`.

    Raises:
        ValueError: another label.
    """

    prompt: str
    image_0: str
    image_1: str
    label: float

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(
                f"label must be 1 (image_0 preferred), 0 (image_1 preferred) or 0.5 (tie), not {self.label!r}"
            )


@dataclass(frozen=True)
class Captioned:
    """An image and what it shows.

    Attributes:
        prompt: what it shows.
        image: its path.
    """

    prompt: str
    image: str


def save_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL; image paths become relative to the file's folder, so that the folder can be moved."""
    path = Path(path)
    rows = []
    for pair in pairs:
        row = asdict(pair)
        row["image_0"], row["image_1"] = (os.path.relpath(row[key], path.parent) for key in ("image_0", "image_1"))
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(rows))


def load_pairs(path: str | Path) -> list[Pair]:
    """Read pairs from JSONL; image paths are taken relative to the file's folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is no pair; the message has its number and what is wrong with it.
    """

    def pair(row: dict[str, Any], image: Callable[[str], str]) -> Pair:
        return Pair(row["prompt"], image("image_0"), image("image_1"), row["label"])

    return list(_read(Path(path), pair, "a pair is one JSON object with prompt, image_0, image_1 and label"))


def load_captioned(path: str | Path) -> list[Captioned]:
    """Read images with their prompts from JSONL; raises as `load_pairs`."""

    def captioned(row: dict[str, Any], image: Callable[[str], str]) -> Captioned:
        return Captioned(row["prompt"], image("image"))

    return list(_read(Path(path), captioned, "an image is one JSON object with prompt and image"))


def _read(path: Path, make: Callable[[dict[str, Any], Callable[[str], str]], T], needed: str) -> Iterator[T]:
    """What `make` makes of each line, from the object in it and the path of the image under one of its keys."""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row["prompt"], str):
                raise TypeError("prompt is no text")
            yield make(row, functools.partial(_image_path, path.parent, row))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: {type(error).__name__} {error}; {needed}") from error


def _image_path(folder: Path, row: dict[str, Any], key: str) -> str:
    return os.path.normpath(folder / row[key])
