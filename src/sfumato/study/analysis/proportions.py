"""Win rates: Wilson's interval, the votes that shared raters and prompts are worth, tests and what they can detect.

A tie counts half a win for either side. That makes Wilson's own interval a little too wide, for ties vary less than
wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from sfumato.frontier import student
from sfumato.study.analysis.clusters import two_way
from sfumato.study.analysis.votes import Clusters, Floats

NORMAL = NormalDist()
LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Proportion:
    """A share of votes.

    Attributes:
        share: ties as half.
        votes: how many there are.
        worth: how many independent votes without ties would be as sure (Korn and Graubard 1998): fewer than `votes`
            where they share raters and prompts, more where there are ties.
        freedom: degrees of freedom of the clustered interval; 0 if there is none.
        low, high: Wilson's 95 % interval, as if votes were independent.
        clustered: the same with `worth` votes and Student's quantile; None without a degree of freedom.
        p: two-sided, of a share of one half, by the score test that belongs to the clustered interval; else None.
    """

    share: float
    votes: int
    worth: float
    freedom: int
    low: float
    high: float
    clustered: tuple[float, float] | None
    p: float | None

    @classmethod
    def of(cls, shares: Floats, clusters: Clusters, half: float = 0.5) -> Proportion:
        """From the votes' shares (N,), N at least 1.

        Args:
            shares: 1 for a win, 0.5 for a tie, 0 for a loss.
            clusters: of the votes.
            half: the share that `p` tests.
        """
        count, share = len(shares), float(shares.mean())
        spread = two_way(((shares - share) / count)[:, None], clusters)
        variance, freedom = float(spread.variance[0]), spread.freedom
        worth = share * (1 - share) / variance if variance > 0 else float(count)
        low, high = wilson(share, count, NORMAL.inv_cdf((1 + LEVEL) / 2))
        if not freedom:
            return cls(share, count, worth, 0, low, high, None, None)
        clustered = wilson(share, worth, student.quantile((1 + LEVEL) / 2, freedom))
        score = abs(share - half) / math.sqrt(half * (1 - half) / worth)
        return cls(share, count, worth, freedom, low, high, clustered, 2 * student.upper_tail(score, freedom))

    def row(self) -> dict[str, Any]:
        """Plain values; `clustered_low` and `clustered_high` are None where there is no such interval."""
        low, high = self.clustered or (None, None)
        return {
            "share": self.share,
            "votes": self.votes,
            "worth": self.worth,
            "low": self.low,
            "high": self.high,
            "clustered_low": low,
            "clustered_high": high,
            "p": self.p,
        }


def wilson(share: float, count: float, z: float) -> tuple[float, float]:
    """Wilson's (1927) score interval of a proportion of `count` trials, at a quantile z."""
    weight = z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values that hold together (Holm 1979); None stays, and is no member of the family."""
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = largest
    return adjusted


def detectable(worth: float, freedom: int, tests: int = 1, power: float = POWER) -> float | None:
    """The smallest share above one half that so many votes find, with probability `power`; None if there is none.

    Args:
        worth: number of independent votes, or what votes are worth.
        freedom: degrees of freedom of the test.
        tests: how many there are: the level of the first of Holm's, 5 % over that number, is to be reached.
    """
    if not freedom:
        return None
    needed = student.quantile(1 - (1 - LEVEL) / (2 * tests), freedom) / 2
    beyond = NORMAL.inv_cdf(power)
    low, high = 0.5, 1.0
    for _ in range(60):
        share = (low + high) / 2
        reached = (share - 0.5) * math.sqrt(worth) >= needed + beyond * math.sqrt(share * (1 - share))
        low, high = (low, share) if reached else (share, high)
    return high if high < 1 - 1e-9 else None


def binomial(successes: int, count: int) -> float:
    """Two-sided exact p-value of a share of one half."""
    tail = min(successes, count - successes)
    below = sum(math.comb(count, k) for k in range(tail + 1))
    return min(1.0, 2 * below / 2**count)
