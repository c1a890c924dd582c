"""Votes as arrays: who preferred what to what, and which votes share a rater or a prompt."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.study.answers import comparisons

Row = dict[str, Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SIMULATED = "simulated-"
"""What the labels of simulated raters begin with."""


def is_simulated(rater: str) -> bool:
    """Whether a label is that of a simulated rater."""
    return rater.startswith(SIMULATED)


def codes(values: Iterable[Hashable]) -> Ints:
    """Numbers (N,) from 0 that are equal where values are equal."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


@dataclass(frozen=True)
class Clusters:
    """Which of N observations share a rater, and which a prompt.

    Attributes:
        rater: (N,) number of the rater, from 0.
        prompt: (N,) number of the prompt, from 0.
    """

    rater: Ints
    prompt: Ints

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Clusters:
        return cls(codes(row["rater"] for row in rows), codes(row["prompt"] for row in rows))

    def __getitem__(self, chosen: NDArray[Any]) -> Clusters:
        """Those of some observations, numbered anew."""
        return Clusters(codes(self.rater[chosen].tolist()), codes(self.prompt[chosen].tolist()))

    @property
    def cell(self) -> Ints:
        """(N,) number of the rater and the prompt together."""
        return codes(zip(self.rater.tolist(), self.prompt.tolist(), strict=True))


@dataclass(frozen=True)
class Duels:
    """Comparisons of two operating points.

    Attributes:
        points: names of the points, which `first` and `second` count.
        first: (N,) the point that comes first in `points`.
        second: (N,) the other.
        share: (N,) 1 if the first was preferred, 0 if the second was, 0.5 for a tie.
        clusters: of the N comparisons.
    """

    points: tuple[str, ...]
    first: Ints
    second: Ints
    share: Floats
    clusters: Clusters

    @classmethod
    def of(cls, rows: Sequence[Row], points: Sequence[str]) -> Duels:
        """All comparisons in the votes of a question."""
        number = {name: place for place, name in enumerate(points)}
        found, origin = [], []
        for place, row in enumerate(rows):
            own = [number[name] for name in row["points"]]
            for i, j, share in comparisons(row):
                a, b = own[i], own[j]
                found.append((a, b, share) if a < b else (b, a, 1 - share))
                origin.append(place)
        table = np.array(found, dtype=np.float64).reshape(-1, 3)
        first, second = table[:, :2].astype(np.int64).T
        return cls(tuple(points), first, second, table[:, 2], Clusters.of(rows)[np.array(origin, dtype=np.int64)])

    def between(self, first: int, second: int) -> tuple[Floats, Clusters]:
        """The shares of the first of two points in their comparisons, and their clusters."""
        chosen = np.flatnonzero((self.first == first) & (self.second == second))
        return self.share[chosen], self.clusters[chosen]
