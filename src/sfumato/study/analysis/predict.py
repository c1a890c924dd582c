"""How well an automatic measure foresees people: of two pictures the preferred one, and the order of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sfumato.frontier.statistics import interval, jackknife_weights, resampling_weights
from sfumato.study.analysis.automatic import Automatic, Measures
from sfumato.study.analysis.proportions import Proportion
from sfumato.study.analysis.votes import Clusters, Floats, Ints, Row, codes
from sfumato.study.answers import comparisons

REPETITIONS = 2000
PEOPLE = "another rater"


@dataclass(frozen=True)
class Verdict:
    """What a vote, or the mean of an item's votes, says about two things that were shown for a prompt.

    Attributes:
        unit: names the two things.
        rater: who said it.
        prompt: what both should show.
        share: 1 if the first is better, 0 if the second is, 0.5 for a tie.
        first, second: their automatic measures.
    """

    unit: tuple[Any, ...]
    rater: Any
    prompt: str
    share: float
    first: Measures
    second: Measures


def predictions(rows: Sequence[Row], automatic: Automatic) -> list[dict[str, Any]]:
    """For every measure its accuracy and rank correlation, the most accurate first, and what another rater achieves.

    Accuracy is the share of decided verdicts in which the better one has the higher value, equal values as half. The
    correlation is Spearman's between differences of values and mean verdicts of each two things that were compared,
    both ways round so that their order does not matter; its interval is the expanded BCa bootstrap over prompts, with
    the ranks of the whole.
    """
    verdicts = _ratings(rows, automatic) if rows[0]["kind"] == "rating" else _verdicts(rows, automatic)
    keys = dict.fromkeys(key for verdict in verdicts for key in (*verdict.first, *verdict.second))
    found = [row for key in keys if (row := _prediction(key, verdicts))]
    found.sort(key=lambda row: -row["share"])
    return found + _people(verdicts)


def _verdicts(rows: Sequence[Row], automatic: Automatic) -> list[Verdict]:
    found = []
    for row in rows:
        measures = [_measures(row, option, automatic) for option in range(len(row["points"]))]
        for i, j, share in comparisons(row):
            unit = (row["item"], i, j)
            found.append(Verdict(unit, row["rater"], row["prompt"], share, measures[i], measures[j]))
    return found


def _ratings(rows: Sequence[Row], automatic: Automatic) -> list[Verdict]:
    """Mean ratings of every two pictures of a prompt as verdicts; each is a rater of its own, for none gave it."""
    own = defaultdict(list)
    for row in rows:
        own[row["prompt"], row["images"][0][0]].append(row["answer"])
    by_prompt = defaultdict(list)
    for (prompt, image), answers in own.items():
        by_prompt[prompt].append((image, float(np.mean(answers))))
    found = []
    for prompt, pictures in by_prompt.items():
        for (a, high), (b, low) in combinations(pictures, 2):
            share = 0.5 if high == low else float(high > low)
            both = (automatic.pictures.get(image, {}) for image in (a, b))
            found.append(Verdict((a, b), (a, b), prompt, share, *both))
    return found


def _measures(row: Row, option: int, automatic: Automatic) -> Measures:
    if row["kind"] == "variety":
        return automatic.sets.get((row["points"][option], row["prompt"]), {})
    return automatic.pictures.get(row["images"][option][0], {})


def _prediction(key: str, verdicts: Iterable[Verdict]) -> dict[str, Any] | None:
    known = [verdict for verdict in verdicts if key in verdict.first and key in verdict.second]
    gaps = np.array([verdict.first[key] - verdict.second[key] for verdict in known])
    shares = np.array([verdict.share for verdict in known])
    decided = shares != 0.5
    if not decided.any():
        return None
    right = np.where(gaps == 0, 0.5, (gaps > 0) == (shares > 0.5))[decided]
    clusters = _clusters([verdict for verdict, counts in zip(known, decided, strict=True) if counts])
    units = codes(verdict.unit for verdict in known)
    counts = np.bincount(units)
    gap, share = (np.bincount(units, values) / counts for values in (gaps, shares - 0.5))
    prompts = codes(verdict.prompt for verdict in known)[np.unique(units, return_index=True)[1]]
    return {"measure": key, **Proportion.of(right, clusters).row(), **_correlation(gap, share, prompts)}


def _people(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """How often a vote is that of another rater on the same two things: more cannot be asked of a measure."""
    units = defaultdict(list)
    for verdict in verdicts:
        if verdict.share != 0.5:
            units[verdict.unit].append(verdict)
    several = [own for own in units.values() if len(own) > 1]
    if not several:
        return []
    same = [
        (sum(verdict.share == other.share for other in own) - 1) / (len(own) - 1) for own in several for verdict in own
    ]
    clusters = _clusters([verdict for own in several for verdict in own])
    nothing = {"correlation": None, "correlation_low": None, "correlation_high": None, "items": len(several)}
    return [{"measure": PEOPLE, **Proportion.of(np.array(same), clusters).row(), **nothing}]


def _clusters(verdicts: Sequence[Verdict]) -> Clusters:
    return Clusters(codes(verdict.rater for verdict in verdicts), codes(verdict.prompt for verdict in verdicts))


def _correlation(gaps: Floats, shares: Floats, prompt: Ints) -> dict[str, Any]:
    x, y = signed_ranks(gaps), signed_ranks(shares)
    sums = np.array([np.bincount(prompt, values) for values in (x * y, x * x, y * y)]).T

    def correlation(weights: Floats) -> Floats:
        products, own, other = (weights @ sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where((own > 0) & (other > 0), products / np.sqrt(own * other), 0.0)

    count = len(sums)
    whole = float(correlation(np.ones((1, count)))[0])
    limits: tuple[float | None, float | None] = (None, None)
    if count > 1:
        drawn = correlation(resampling_weights(count, REPETITIONS, 0))
        found = interval(whole, drawn, correlation(jackknife_weights(count)), expand=True)
        limits = found.low, found.high
    return {"correlation": whole, "correlation_low": limits[0], "correlation_high": limits[1], "items": len(gaps)}


def signed_ranks(values: Floats) -> Floats:
    """(N,) the centred ranks of the values among all values and their negatives, ties in the middle."""
    sizes = np.abs(values)
    _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return np.sign(values) * (middle[place] - 0.5)
