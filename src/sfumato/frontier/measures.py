"""Which figures an operating point gets: prompt by prompt, and all prompts together. Explained in docs/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from sfumato.config.evaluation import MOST_CORRECTED
from sfumato.frontier.small_n import vendi_corrected
from sfumato.metrics import (
    cmmd,
    entropy,
    fid,
    kid,
    mean_pairwise_distance,
    mode_coverage,
    prdc,
    spectral_distance,
    truncated_entropy,
    vendi_score,
)
from sfumato.metrics.features import Distance

TCE_COMPONENTS = 20
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """The n images of one point and prompt.

    Attributes:
        rows: of the table.
        scores: names of those that all rows of the table have.
        features: (n, D) by the extractor's name; "features" is the one that all measures use.
        distances: by the same names, what tells two images apart in them.
    """

    rows: Rows
    scores: Sequence[str]
    features: Mapping[str, torch.Tensor]
    distances: Mapping[str, Distance]


def per_prompt(cell: Cell, reference_rows: Rows, reference: torch.Tensor, neighbours: int) -> dict[str, float]:
    """Every figure of one point and prompt.

    Args:
        cell: the point's images.
        reference_rows: of the reference's images for the same prompt.
        reference: their features (n, D).
        neighbours: k of precision, recall, density and coverage.
    """
    rows, own = cell.rows, cell.features["features"]
    values = {name: fmean(row["scores"][name] for row in rows) for name in cell.scores}
    for name, found in cell.features.items():
        suffix = "" if name == "features" else f"_{name}"
        if cell.distances[name] == "cosine":
            values[f"vendi{suffix}"] = vendi_score(found)
        values[f"distance{suffix}"] = mean_pairwise_distance(found, cell.distances[name])
    if len(own) <= MOST_CORRECTED:
        values["vendi_corrected"] = vendi_corrected(own)
    values |= prdc(reference, own, k=neighbours)._asdict()
    values["spectral"] = spectral_distance(reference, own)
    for name in rows[0]["labels"]:
        labels = [row["labels"][name] for row in rows]
        values[f"{name}_entropy"] = entropy(labels)
        values[f"{name}_coverage"] = mode_coverage([row["labels"][name] for row in reference_rows], labels).share
    return values


def pooled(found: torch.Tensor, reference: torch.Tensor, neighbours: int) -> dict[str, float]:
    """The figures of one point over all prompts together, from features (N, D) and the reference's."""
    values = {"vendi": vendi_score(found), "distance": mean_pairwise_distance(found)}
    values |= prdc(reference, found, k=neighbours)._asdict()
    values |= {"fid": fid(reference, found), "kid": kid(reference, found), "cmmd": cmmd(reference, found)}
    values["spectral"] = spectral_distance(reference, found)
    tce = truncated_entropy(found, components=min(TCE_COMPONENTS, len(found) - 1, found.shape[1]))
    return values | ({"tce": tce} if tce > -math.inf else {})
