"""Where labels go in a figure: beside their marks, inside the frame, over nothing that must be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
Segment = tuple[Point, Point]

RADII = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0)
"""Distances between a mark and its label that are tried, in points."""
ANGLES = 16
SAMPLES = 24
LEADER = 4
"""What it costs if the way from a mark to its label crosses another label."""


def place_labels(
    marks: Sequence[Point], sizes: Sequence[Point], frame: Box, segments: Sequence[Segment], reach: float = 4.0
) -> list[Box | None]:
    """A box for each label, or None where there is no room.

    Labels come in the order of their importance, each to the nearest place that crosses the fewest segments and from
    which the way to its mark crosses no other label.

    Args:
        marks: centres of the marks.
        sizes: width and height of the labels.
        frame: what labels must stay in.
        segments: lines that labels should not cross.
        reach: half the size of a mark; labels never cover one.
    """
    covered: list[Box] = [(x - reach, y - reach, x + reach, y + reach) for x, y in marks]
    labels: list[Box] = []
    dots = np.concatenate([np.empty((0, 2)), *map(_along, segments)])
    found: list[Box | None] = []
    for mark, size in zip(marks, sizes, strict=True):
        free = [
            b for b in _around(mark, size) if _inside(b, frame) and not any(overlap(b, c) for c in covered + labels)
        ]
        costs = [
            _inside_of(box, dots)
            + LEADER * sum(_inside_of(label, _along((mark, nearest(box, mark)))) for label in labels)
            + place / (2 * ANGLES)
            for place, box in enumerate(free)
        ]
        best = free[costs.index(min(costs))] if free else None
        found.append(best)
        if best is not None:
            labels.append(best)
            dots = np.concatenate([dots, _along((mark, nearest(best, mark)))])
    return found


def nearest(box: Box, point: Point) -> Point:
    """The point of a box that is nearest to a point."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _around(mark: Point, size: Point) -> Iterator[Box]:
    """Places for a label, near ones first, and of equally near ones those on the right."""
    (x, y), (width, height) = mark, size
    turns = sorted(range(ANGLES), key=lambda i: (min(i, ANGLES - i), i))
    for radius in RADII:
        for turn in turns:
            right, up = cos(2 * pi * turn / ANGLES), sin(2 * pi * turn / ANGLES)
            left = x + radius * right + width * (right - 1) / 2
            bottom = y + radius * up + height * (up - 1) / 2
            yield left, bottom, left + width, bottom + height


def _along(segment: Segment) -> NDArray[np.float64]:
    """Dots (SAMPLES, 2) on a segment."""
    return np.linspace(*segment, SAMPLES)


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _inside_of(box: Box, dots: NDArray[np.float64]) -> int:
    """How many dots lie in a box."""
    return int(((dots >= box[:2]) & (dots <= box[2:])).all(axis=1).sum())
