"""Krippendorff's alpha: how far raters agree beyond chance, whoever answered what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sfumato.frontier.statistics import resampling_weights
from sfumato.study.analysis.votes import Floats, Ints, Row, codes

Scale = Literal["nominal", "ordinal"]
REPETITIONS = 2000


@dataclass(frozen=True)
class Alpha:
    """1 if all raters agree, 0 if they agree as by chance; `units` is how many have two answers or more.

    `low` and `high` are the 95 % percentile interval of the bootstrap over units (Zapf et al. 2016); all are None where
    no unit has two answers or all answers are the same.
    """

    alpha: float | None
    low: float | None
    high: float | None
    units: int


def krippendorff(
    unit: Ints, value: Ints, scale: Scale = "nominal", repetitions: int = REPETITIONS, seed: int = 0
) -> Alpha:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability".

    Args:
        unit: (N,) what was judged, from 0; any number of answers each, missing ones left out.
        value: (N,) the answers, from 0; for the ordinal scale in their order.
        scale: whether two answers that differ differ alike, or by the answers between them.
        repetitions: number of resamples.
        seed: of the resampling.
    """
    table = np.zeros((int(unit.max(initial=-1)) + 1, int(value.max(initial=-1)) + 1))
    np.add.at(table, (unit, value), 1.0)
    table = table[table.sum(axis=1) >= 2]
    if not len(table):
        return Alpha(None, None, None, 0)
    pairs = table[:, :, None] * table[:, None, :] - table[:, :, None] * np.eye(table.shape[1])
    coincidences = (pairs / (table.sum(axis=1) - 1)[:, None, None]).reshape(len(table), -1)
    whole = _alpha(coincidences.sum(axis=0)[None], scale)[0]
    drawn = _alpha(resampling_weights(len(table), repetitions, seed) @ coincidences * len(table), scale)
    if np.isnan(whole):
        return Alpha(None, None, None, len(table))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Alpha(float(whole), float(low), float(high), len(table))


def agreement(rows: Sequence[Row], scale: Scale) -> Alpha:
    """Alpha of the votes of a question.

    The answers are options, in an order that was random when the study was made: with two of them a tie lies between.
    Ratings and ranks are answers as they are, of rankings on the ordinal scale each option's rank.
    """
    kind = rows[0]["kind"]
    if kind == "rank" and scale == "ordinal":
        ranks = [((row["item"], option), place) for row in rows for place, option in enumerate(row["answer"])]
        return krippendorff(codes(key for key, _ in ranks), np.array([place for _, place in ranks]), scale)
    if kind == "rank":
        answers = [row["answer"][0] for row in rows]
    elif kind in ("pair", "variety"):
        answers = [1 if row["answer"] is None else 2 * row["answer"] for row in rows]
    else:
        answers = [row["answer"] for row in rows]
    return krippendorff(codes(row["item"] for row in rows), np.array(answers, dtype=np.int64), scale)


def _alpha(coincidences: Floats, scale: Scale) -> Floats:
    """(R,) of coincidence matrices (R, C · C); NaN where all values are the same."""
    size = round(coincidences.shape[1] ** 0.5)
    matrices = coincidences.reshape(-1, size, size)
    totals = matrices.sum(axis=2)
    if scale == "nominal":
        apart = np.broadcast_to(1 - np.eye(size), matrices.shape)
    else:
        below = np.cumsum(totals, axis=1) - totals / 2  # how many lie below the middle of a value
        apart = (below[:, :, None] - below[:, None, :]) ** 2
    count = totals.sum(axis=1)
    observed = (matrices * apart).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * apart).sum(axis=(1, 2)) / (count - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)
