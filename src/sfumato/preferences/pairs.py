"""Preference pairs, and images with prompts, and their files: see `rows` for the formats."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from sfumato.preferences.rows import Row, read_rows, value_of
from sfumato.runs import write_text

T = TypeVar("T")
LABELS = (0.0, 0.5, 1.0)
PAIR = "a pair has prompt, image_0, image_1 and label, or caption, jpg_0, jpg_1, label_0 and label_1"


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


def load_pairs(path: str | Path, images: str | Path | None = None) -> list[Pair]:
    """Read pairs from JSONL or Parquet; image paths are taken relative to the file's folder.

    Rows that say of themselves that they have no label (Pick-a-Pic's `has_label`) are left out.

    Args:
        path: a file, or a folder of them.
        images: where images that lie in Parquet as bytes are written, beside the file unless given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row is no pair; the message has its number and what is wrong with it.
        ImportError: Parquet needs an extra.
    """
    return [pair for pair in _read(read_rows(path, images), pair_of, PAIR) if pair]


def load_captioned(path: str | Path) -> list[Captioned]:
    """Read images with their prompts from JSONL or Parquet; raises as `load_pairs`."""
    return list(_read(read_rows(path), _captioned_of, "an image has prompt and image"))


def pair_of(row: Row) -> Pair | None:
    """The pair in a row; None if the row says that it has no label.

    Raises:
        ValueError: it is no pair.
    """
    values = row.values()
    if values.get("has_label") in (False, 0):
        return None
    prompt, label = _prompt(values), value_of(values, "label")
    other = values.get("label_1")
    if other is not None and label in LABELS and other != 1 - label:
        raise ValueError(f"label_0 is {label!r} and label_1 is {other!r}: they must add up to 1")
    image_0, image_1 = (row.image_path(value_of(values, key)) for key in ("image_0", "image_1"))
    return Pair(prompt, image_0, image_1, label)


def _captioned_of(row: Row) -> Captioned:
    values = row.values()
    return Captioned(_prompt(values), row.image_path(value_of(values, "image")))


def _prompt(values: dict[str, Any]) -> str:
    prompt = value_of(values, "prompt")
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt {prompt!r} is no text")
    return prompt


def _read(rows: Iterable[Row], make: Callable[[Row], T], needed: str) -> Iterator[T]:
    for row in rows:
        try:
            yield make(row)
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}; {needed}") from error
