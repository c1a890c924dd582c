"""The images of a run as arrays: scores, labels, features and pixel statistics by point, prompt and seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.diagnosis.measures import nearest
from sfumato.diagnosis.pixels import STATISTICS, read_statistics
from sfumato.runs import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Images of one point: the same number n, in the order of their seeds, of each of m prompts.

    Attributes:
        prompts: the m prompts.
        rows: m lists of n records of images.jsonl.
        scores: score -> (m, n).
        labels: label -> (m, n) texts.
        pixels: pixel statistic -> (m, n).
        digests: (m, n) hashes of the pixels.
        raw: features (m, n, D), or None.
    """

    prompts: list[str]
    rows: list[list[dict[str, Any]]]
    scores: dict[str, Array]
    labels: dict[str, NDArray[np.str_]]
    pixels: dict[str, Array]
    digests: NDArray[np.str_]
    raw: Array | None

    @property
    def images(self) -> int:
        """Images per prompt."""
        return len(self.rows[0])

    @cached_property
    def features(self) -> Array | None:
        """The features scaled to length 1."""
        if self.raw is None:
            return None
        return self.raw / np.linalg.norm(self.raw, axis=2, keepdims=True).clip(1e-12)

    @cached_property
    def nearest(self) -> tuple[Array, NDArray[np.intp]] | None:
        """See `measures.nearest`; None without features."""
        return None if self.features is None else nearest(self.features)


class Table:
    """All evaluated images of a run.

    Raises:
        ValueError: there are none, or none of the base model, or a feature is NaN or infinite.
    """

    def __init__(self, run: Run):
        records = run.images()
        kept = [i for i, row in enumerate(records) if row.get("group", "main") == "main"]
        if not kept:
            raise ValueError(f"{run.path} has no evaluated images: run `sfumato evaluate {run.path}` first")
        self.rows = [records[i] for i in kept]
        self.features = _features(run, kept)
        self.pixels = read_statistics(run.evaluation, self.rows)
        self._cells: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, row in enumerate(self.rows):
            self._cells[row["point"]][row["prompt"]].append(place)
        if "base" not in self._cells:
            raise ValueError(
                f"{run.path} has no images of the base model to compare with: add {{kind: base}} to its points"
            )

    @property
    def points(self) -> list[str]:
        """Every point but the base and the reference."""
        return [name for name in self._cells if name not in ("base", "reference")]

    def compared(self, point: str) -> tuple[Samples, Samples, Samples]:
        """The base, the point, and the base with other seeds: as many images each, of the prompts that all have.

        Without reference samples the base's seeds are split into halves, and the point's images are cut to the first.
        """
        if point not in self.points:
            raise ValueError(f"there is no point {point!r}: choose one of {', '.join(self.points) or '(none)'}")
        cells = [self._sorted("base"), self._sorted(point), self._sorted("reference")]
        if not cells[2]:
            cells[2] = {prompt: places[1::2] for prompt, places in cells[0].items()}
            cells[:2] = [{prompt: places[::2] for prompt, places in cell.items()} for cell in cells[:2]]
        prompts = [prompt for prompt in cells[0] if all(cell.get(prompt) for cell in cells)]
        if not prompts:
            raise ValueError(f"point {point!r} and the base have no prompt in common")
        images = min(len(cell[prompt]) for cell in cells for prompt in prompts)
        base, tuned, again = (self._samples(prompts, [cell[p][:images] for p in prompts]) for cell in cells)
        return base, tuned, again

    def _sorted(self, point: str) -> dict[str, list[int]]:
        cell = self._cells.get(point, {})
        return {prompt: sorted(places, key=lambda i: self.rows[i]["seed"]) for prompt, places in cell.items()}

    def _samples(self, prompts: list[str], places: list[list[int]]) -> Samples:
        rows = [[self.rows[i] for i in line] for line in places]

        def column(kind: str, name: str) -> NDArray[Any]:
            return np.array([[row[kind][name] for row in line] for line in rows])

        def names(kind: str) -> list[str]:
            first = rows[0][0].get(kind) or {}
            return [name for name in first if all(name in (row.get(kind) or {}) for line in rows for row in line)]

        pixels = [[self.pixels[i] for i in line] for line in places]
        return Samples(
            prompts,
            rows,
            {name: column("scores", name).astype(np.float64) for name in names("scores")},
            {name: column("labels", name).astype(np.str_) for name in names("labels")},
            {name: np.array([[entry[name] for entry in line] for line in pixels]) for name in STATISTICS},
            np.array([[entry["pixels"] for entry in line] for line in pixels]),
            None if self.features is None else self.features[np.array(places)],
        )


def _features(run: Run, kept: list[int]) -> Array | None:
    """The features of the kept rows; None if there are none of these pictures."""
    try:
        features = run.features()
    except (FileNotFoundError, KeyError):
        return None
    if not np.isfinite(features).all():
        raise ValueError(f"the features of {run.path} hold NaN or infinity: run `sfumato evaluate {run.path}` again")
    return features[kept].astype(np.float64)
