"""What a sweep has to do: every point's micro-batches, and which of them are still to be sampled or scored.

Micro-batches are formed from the recipe alone, before they are shared out among processes, and an image is always
sampled with all of its micro-batch. So neither the number of processes nor an interruption changes a pixel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sfumato.config import BasePoint, EvaluationConfig
from sfumato.frontier.points import OperatingPoint

REFERENCE = OperatingPoint("reference", "base, other seeds", "base", BasePoint())
"""Base samples from seeds that no other point uses; precision and recall are measured against them."""

Image = tuple[str, str, int]
"""An image by point, prompt and seed."""
Rows = dict[Image, dict[str, Any]]


@dataclass(frozen=True)
class MicroBatch:
    """Images of one point and prompt that are sampled together."""

    point: str
    prompt: str
    prompt_index: int
    seeds: tuple[int, ...]
    group: Literal["main", "unrelated"] = "main"

    @property
    def images(self) -> list[Image]:
        return [(self.point, self.prompt, seed) for seed in self.seeds]

    @property
    def files(self) -> list[str]:
        """Where the images go, relative to the evaluation's folder."""
        return [f"images/{self.point}/{self.prompt_index:03d}-{seed}.png" for seed in self.seeds]


def plan(config: EvaluationConfig, points: Sequence[OperatingPoint]) -> list[MicroBatch]:
    """All micro-batches of the reference and the points, in the order of the table.

    Every point has the same prompts and seeds; the reference has no unrelated prompts, and its seeds follow the others.
    """
    return [batch for point in [REFERENCE, *points] for batch in _of_point(config, point)]


def _of_point(config: EvaluationConfig, point: OperatingPoint) -> Iterator[MicroBatch]:
    is_reference = point is REFERENCE
    first = config.seed + (config.images_per_prompt if is_reference else 0)
    for index, prompt in enumerate(config.prompts):
        for seeds in _parts(first, config.images_per_prompt, config.batch_size):
            yield MicroBatch(point.name, prompt, index, seeds)
    for index, prompt in enumerate([] if is_reference else config.unrelated or [], start=len(config.prompts)):
        for seeds in _parts(config.seed, config.unrelated_images, config.batch_size):
            yield MicroBatch(point.name, prompt, index, seeds, "unrelated")


def _parts(first: int, count: int, size: int) -> Iterator[tuple[int, ...]]:
    for start in range(first, first + count, size):
        yield tuple(range(start, min(start + size, first + count)))


def to_sample(batches: Sequence[MicroBatch], rows: Rows) -> list[MicroBatch]:
    """The micro-batches of which an image is not in the table."""
    return [batch for batch in batches if any(image not in rows for image in batch.images)]


def to_score(batches: Sequence[MicroBatch], rows: Rows, rewards: Collection[str]) -> list[MicroBatch]:
    """The micro-batches whose images are all there, but not all with a score of each reward."""
    return [
        batch
        for batch in batches
        if all(image in rows for image in batch.images)
        and any(name not in rows[image]["scores"] for image in batch.images for name in rewards)
    ]
