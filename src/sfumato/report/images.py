"""Pictures made small enough to travel inside the page.

The images of one operating point for one prompt become one WebP strip, a tile per seed, so that a cell of the page is
one picture and the same tile shows the same seed at every operating point.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

LARGEST_TILE = 128  # px on the longer side
PIXEL_BUDGET = 32_000_000  # of all tiles together: 5 to 10 MB of WebP
FEWEST, MOST = 4, 32  # tiles in a strip
LARGEST_SHEET = 768  # px, a training's contact sheet
SHEETS = 12  # contact sheets of one training


@dataclass
class Strips:
    """The images of an evaluation as strips.

    Attributes:
        prompts: the prompts that are shown.
        seeds: for every prompt, the seed of each tile.
        tile: width and height of a tile in px.
        strips: (point, prompt) -> WebP strip in base64.
        records: (point, prompt) -> for every tile its record in images.jsonl, or None.
        total: number of prompts and of images per prompt in the evaluation.
        pictures, missing: how many pictures the table names, and how many of them are not there.
    """

    prompts: list[str] = field(default_factory=list)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    tile: tuple[int, int] = (64, 64)
    strips: dict[tuple[str, str], str] = field(default_factory=dict)
    records: dict[tuple[str, str], list[dict[str, Any] | None]] = field(default_factory=dict)
    total: tuple[int, int] = (0, 0)
    pictures: int = 0
    missing: int = 0

    @property
    def shown(self) -> int:
        """Images per prompt that are shown."""
        return max(map(len, self.seeds.values()), default=0)


def fit(points: int, prompts: int, images: int, tile: tuple[int, int]) -> tuple[int, int]:
    """How many prompts, and images of each, every point can show within the budget of pixels.

    Images go first, down to `FEWEST` of each prompt, then prompts.
    """
    tiles = PIXEL_BUDGET // (max(points, 1) * tile[0] * tile[1])
    shown = min(images, MOST, max(FEWEST, tiles // max(prompts, 1)))
    return min(prompts, max(1, tiles // max(shown, 1))), shown


def strips(records: list[dict[str, Any]], folder: Path, prompts: list[str], points: list[str]) -> Strips:
    """The strips of an evaluation; without prompts if no picture is there.

    Args:
        records: of images.jsonl.
        folder: what the records' files are relative to.
        prompts: in the order in which they are shown; those that only the records have come after them.
        points: whose images are wanted; all if empty.

    Raises:
        ValueError: a picture is damaged.
    """
    records = [record for record in records if not points or record["point"] in points]
    there = [path for record in records if (path := folder / record["file"]).exists()]
    missing = len(records) - len(there)
    if not there:
        return Strips(pictures=len(records), missing=missing)
    cells: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        cells[record["point"], record["prompt"]][record["seed"]] = record
    found_seeds: dict[str, set[int]] = defaultdict(set)
    for (_, prompt), cell in cells.items():
        found_seeds[prompt] |= cell.keys()
    prompts = [*(p for p in prompts if p in found_seeds), *(p for p in found_seeds if p not in prompts)]
    seeds = {prompt: sorted(found_seeds[prompt]) for prompt in prompts}
    most = max(map(len, seeds.values()))
    tile = _tile(there[0])
    shown, images = fit(len({point for point, _ in cells}), len(prompts), most, tile)
    found = Strips(
        prompts[:shown],
        {prompt: seeds[prompt][:images] for prompt in prompts[:shown]},
        tile,
        total=(len(prompts), most),
        pictures=len(records),
        missing=missing,
    )
    for (point, prompt), cell in cells.items():
        if prompt in found.seeds:
            found.records[point, prompt] = [cell.get(seed) for seed in found.seeds[prompt]]
    files = [[folder / record["file"] if record else None for record in row] for row in found.records.values()]
    with ThreadPoolExecutor() as pool:
        found.strips = dict(zip(found.records, pool.map(lambda row: _strip(row, tile), files), strict=True))
    return found


def contact_sheets(records: list[dict[str, Any]], folder: Path) -> list[tuple[int, str]]:
    """The contact sheets of a training as (update, WebP in base64), at most `SHEETS` of them, evenly spread."""
    found = [(r["update"], folder / r["eval/image"]) for r in records if r.get("eval/image")]
    found = [(update, path) for update, path in found if path.exists()]
    if len(found) > SHEETS:
        found = [found[round(i * (len(found) - 1) / (SHEETS - 1))] for i in range(SHEETS)]
    return [(update, sheet(path)) for update, path in found]


def _tile(path: Path) -> tuple[int, int]:
    """Size of a tile that shows the image at `path`."""
    width, height = _opened(path, "RGB").size
    scale = min(1.0, LARGEST_TILE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _opened(path: Path, mode: str) -> Image.Image:
    """A picture in the colours of a mode."""
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"cannot read the image {path} ({error}): delete it; `sfumato evaluate` makes the pictures of an "
            "evaluation again, and the report does without others"
        ) from error


def _strip(files: list[Path | None], tile: tuple[int, int]) -> str:
    """Images side by side; a missing one leaves its place empty."""
    width, height = tile
    strip = Image.new("RGBA", (width * len(files), height))
    for number, file in enumerate(files):
        if file and file.exists():
            picture = ImageOps.pad(_opened(file, "RGBA"), tile, Image.Resampling.LANCZOS)
            strip.paste(picture, (width * number, 0))
    return _webp(strip)


def sheet(path: Path) -> str:
    """A picture of several, at most `LARGEST_SHEET` px wide or high, as WebP in base64."""
    sheet = _opened(path, "RGB")
    sheet.thumbnail((LARGEST_SHEET, LARGEST_SHEET), Image.Resampling.LANCZOS)
    return _webp(sheet)


def _webp(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=4)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
