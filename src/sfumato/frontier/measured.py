"""What a run has measured of a point, image by image, in the form in which a metric takes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from sfumato.frontier.small_n import Measure, Samples
from sfumato.runs import Run

REFERENCE = "reference"
OF_A_SET = ("vendi", "distance")
AGAINST_REFERENCE = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Measured:
    """One metric of some points of a run.

    Attributes:
        measure: from the arrays of one prompt to the metric.
        samples: point -> for each prompt the arrays, their rows in the order of the seeds.
        least: the fewest images for which the metric is defined.
        forwards: denoiser forwards for one image of every point, and of the reference where it is needed, together.
    """

    measure: Measure
    samples: dict[str, Samples]
    least: int
    forwards: float


def read_measured(run: Run, metric: str, points: Sequence[str]) -> Measured:
    """Read a metric's images from a run.

    Args:
        run: evaluated.
        metric: a score by name; "vendi", also "vendi_NAME" in further features; "distance" (cosine); "precision",
            "recall", "density" or "coverage"; or "LABEL_entropy".
        points: names of points, which were measured on the same prompts and seeds.

    Raises:
        ValueError: a metric or point that the run does not have, or points that differ in prompts or seeds.
        FileNotFoundError: the run was not evaluated yet.
    """
    rows = run.images()
    if not rows:
        raise FileNotFoundError(f"{run.path} has no evaluation yet: run `sfumato evaluate {run.path}` first")
    places: dict[str, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for place, row in enumerate(rows):
        if row.get("group", "main") == "main":
            places[row["point"]][row["prompt"]][row["seed"]] = place
    compared = metric in AGAINST_REFERENCE
    needed = [*points, REFERENCE] if compared else list(points)
    _check_points(places, points, needed)
    values, measure, least = _values(run, rows, metric)
    samples: dict[str, Samples] = {
        point: [
            tuple(
                values[[own[seed] for seed in sorted(own)]]
                for own in ([seeds, places[REFERENCE][prompt]] if compared else [seeds])
            )
            for prompt, seeds in places[point].items()
        ]
        for point in points
    }
    costs = [fmean(rows[i]["forwards"] for seeds in places[point].values() for i in seeds.values()) for point in needed]
    return Measured(measure, samples, least, sum(costs))


def _check_points(places: dict[str, dict[str, dict[int, int]]], points: Sequence[str], needed: Sequence[str]) -> None:
    for point in needed:
        if point not in places:
            raise ValueError(f'the run has no point "{point}", only {", ".join(places)}')
    for point in points:
        for prompt, seeds in places[points[0]].items():
            if places[point].get(prompt, {}).keys() != seeds.keys():
                raise ValueError(
                    f'"{points[0]}" and "{point}" have different seeds for the prompt "{prompt}": '
                    "finish the evaluation first"
                )


def _values(run: Run, rows: list[dict[str, Any]], metric: str) -> tuple[np.ndarray, Measure, int]:
    """A value or feature vector for each row, the measure that takes them, and how many it needs."""
    scores = rows[0]["scores"]
    labels = {f"{name}_entropy": name for name in rows[0]["labels"]}
    if metric in scores:
        return np.array([row["scores"].get(metric, np.nan) for row in rows]), lambda x: float(np.mean(x)), 1
    if metric in labels:
        from sfumato.metrics import entropy

        own = np.array([row["labels"][labels[metric]] for row in rows])
        return own, lambda x: entropy(x.tolist()), 1
    kind, _, extractor = metric.partition("_")
    if metric in (*OF_A_SET, *AGAINST_REFERENCE) or kind == "vendi":
        features = run.features(extractor or "features")
        return features, *_of_features(kind, run.recipe.get("evaluation", {}).get("neighbours", 3))
    known = ", ".join([*scores, *OF_A_SET, *AGAINST_REFERENCE, *labels])
    raise ValueError(f'there is no metric "{metric}" to plan for, only {known}')


def _of_features(metric: str, k: int) -> tuple[Measure, int]:
    import torch

    from sfumato import metrics

    one_set: dict[str, Measure] = {"vendi": metrics.vendi_score, "distance": metrics.mean_pairwise_distance}
    if metric in one_set:
        return lambda x: one_set[metric](torch.from_numpy(x)), 2
    against: Measure = getattr(metrics, metric)
    return lambda x, reference: against(torch.from_numpy(reference), torch.from_numpy(x), k=k), k + 1
