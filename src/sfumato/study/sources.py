"""Where the images of operating points are: rows of an evaluated run, or a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.runs import Run, read_jsonl
from sfumato.study.config import PointSource

SUFFIXES = {".png", ".webp", ".jpg", ".jpeg"}
Pictures = dict[str, dict[str, Path]]
"""prompt -> seed, or the name of the file without its ending -> path."""


def pictures_of(name: str, source: PointSource) -> Pictures:
    """The images of an operating point by prompt and seed.

    Args:
        name: of the operating point.
        source: a run with that point, or a folder: either one folder for each prompt, named like it, or an
            `images.jsonl` with `prompt`, `file` relative to the folder, and `seed` if there is one.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
        ValueError: the run has no such point, or the folder no images.
    """
    if source.run:
        run, point = Run.load(source.run), source.point or name
        rows = run.images()
        if not any(row["point"] == point for row in rows):
            there = sorted({row["point"] for row in rows})
            raise ValueError(f"{run.path} has no point {point!r}, only {', '.join(there) or 'no images at all'}")
        main = [row for row in rows if row["point"] == point and row.get("group") != "unrelated"]
        return _from_rows(main, run.evaluation)
    folder = Path(str(source.folder))
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}, where the images of {name!r} should be")
    table = folder / "images.jsonl"
    found = _from_rows(read_jsonl(table), folder) if table.exists() else _from_folders(folder)
    if not found:
        raise ValueError(f"{folder} has neither images.jsonl nor folders with images, each named like its prompt")
    return found


def _from_rows(rows: list[dict[str, Any]], folder: Path) -> Pictures:
    found: Pictures = {}
    for row in rows:
        try:
            file = row["file"]
            found.setdefault(row["prompt"], {})[str(row.get("seed", Path(file).stem))] = folder / file
        except KeyError as error:
            raise ValueError(f"a row of {folder / 'images.jsonl'} has no {error}: it needs prompt and file") from None
    return found


def _from_folders(folder: Path) -> Pictures:
    return {
        prompt.name: {path.stem: path for path in sorted(prompt.iterdir()) if path.suffix.lower() in SUFFIXES}
        for prompt in sorted(folder.iterdir())
        if prompt.is_dir() and not prompt.name.startswith(".")
    }
