"""Rows of files of pairs: JSON lines, or Parquet with image files, with images in it, or in Pick-a-Pic's schema.

Images that lie in Parquet as bytes are written out once, each under the hash of its content, so that the same picture
is the same file wherever it comes up, and everything else reads files.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NAMES = {
    "prompt": ("prompt", "caption"),
    "image": ("image",),
    "image_0": ("image_0", "jpg_0"),
    "image_1": ("image_1", "jpg_1"),
    "label": ("label", "label_0"),
}
"""What a column can be called; the second name is Pick-a-Pic's."""
FURTHER = ("label_1", "has_label")
ENDINGS = (".jsonl", ".parquet")
SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


class Row(NamedTuple):
    """A row as it was read.

    Attributes:
        where: its file and number.
        content: a line of text that should be a JSON object, or the values of a Parquet row by column.
        folder: what image paths are relative to.
        images: where images that came as bytes are written.
    """

    where: str
    content: str | dict[str, Any]
    folder: Path
    images: Path

    def values(self) -> dict[str, Any]:
        """The values by column.

        Raises:
            ValueError: the line is no JSON object.
        """
        values = json.loads(self.content) if isinstance(self.content, str) else self.content
        if not isinstance(values, dict):
            raise ValueError(f"{values!r} is no JSON object")
        return values

    def image_path(self, value: Any) -> str:
        """The path of an image that is given as a path, as bytes, or as both in a mapping (Hugging Face datasets)."""
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if value and isinstance(value, bytes):
            return _written(value, self.images)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{value!r} is no image: give the path of a file, or its bytes")
        return os.path.normpath(self.folder / value)


def read_rows(path: str | Path, images: str | Path | None = None) -> Iterator[Row]:
    """All rows of a .jsonl or .parquet file, or of all such files of a folder, in the order of their names.

    Args:
        path: the file or folder.
        images: folder for images that lie in Parquet as bytes; NAME.images beside NAME.parquet unless given.

    Raises:
        FileNotFoundError: there is no such file, or no such file in the folder.
        ValueError: a file is neither text in UTF-8 nor Parquet.
        ImportError: Parquet needs an extra.
    """
    path = Path(path)
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path} has no file that ends in {' or '.join(ENDINGS)}")
    for file in files:
        own = Path(images) if images else file.with_suffix(".images")
        contents, unit = (_parquet(file), "row") if file.suffix == ".parquet" else (_lines(file), "line")
        for number, content in contents:
            yield Row(f"{file}, {unit} {number}", content, file.parent, own)


def value_of(values: dict[str, Any], name: str) -> Any:
    """What a row says under any of the names of a column.

    Raises:
        ValueError: it has no such column.
    """
    for key in NAMES[name]:
        if key in values:
            return values[key]
    raise ValueError(f"there is no {' or '.join(NAMES[name])}, only {', '.join(values) or 'nothing'}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason}): pairs are JSON lines or Parquet") from None


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError(f"{path} is a Parquet file, which needs pyarrow: pip install 'sfumato[data]'") from None
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from None
    with file:
        wanted = {*FURTHER, *(key for keys in NAMES.values() for key in keys)}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        number = 0
        for batch in file.iter_batches(batch_size=64, columns=columns):
            for values in batch.to_pylist():
                number += 1
                yield number, values


def _written(data: bytes, folder: Path) -> str:
    """The path of a file with this content, which is made unless it is there."""
    name = hashlib.sha256(data).hexdigest()
    path = folder / name[:2] / f"{name}{SUFFIXES.get(data[:2], '')}"
    if not path.exists() or path.stat().st_size != len(data):
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            raise ValueError(
                f"cannot write the images out to {folder} ({error.strerror}): name another folder"
            ) from error
    return os.path.normpath(path)
