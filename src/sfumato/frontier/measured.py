"""What a run has measured of a point, image by image, in the form in which a metric takes it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from sfumato.frontier.small_n import Measure, Samples, vendi_corrected
from sfumato.runs import Run

REFERENCE = "reference"
AGAINST_REFERENCE = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Measured:
    """One metric of some points of a run.

    Attributes:
        measure: from the arrays of one prompt to the metric.
        samples: point -> for each prompt the arrays, their rows in the order of the seeds; the prompts in one order for
            all points.
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
        metric: a score by name; "vendi" or "distance", also "vendi_NAME" and "distance_NAME" in the recipe's further
            features; "vendi_corrected"; "precision", "recall", "density" or "coverage"; "LABEL_entropy" or
            "LABEL_coverage".
        points: names of points, which were measured on the same prompts and seeds.

    Raises:
        ValueError: a metric or point that the run does not have, or points that differ in prompts or seeds.
        FileNotFoundError: the run was not evaluated yet.
    """
    rows = run.images()
    if not rows:
        raise FileNotFoundError(f"{run.path} has no evaluation yet: run `sfumato evaluate {run.path}` first")
    places: _Places = defaultdict(lambda: defaultdict(dict))
    for place, row in enumerate(rows):
        if row.get("group", "main") == "main":
            places[row["point"]][row["prompt"]][row["seed"]] = place
    _check_points(places, points)
    concerned = [i for point in (*points, REFERENCE) for seeds in places[point].values() for i in seeds.values()]
    known = _instruments(run, rows, concerned)
    if metric not in known:
        near = difflib.get_close_matches(metric, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'there is no metric "{metric}" to plan for, only {", ".join(known)}{hint}')
    read, measure, least, compared = known[metric]
    if compared:
        _check_reference(places, points[0])
    values = read()
    samples: dict[str, Samples] = {
        point: [
            tuple(
                values[[own[seed] for seed in sorted(own)]]
                for own in (places[name][prompt] for name in ([point, REFERENCE] if compared else [point]))
            )
            for prompt in places[points[0]]
        ]
        for point in points
    }
    paid = [*points, REFERENCE] if compared else points
    costs = [fmean(rows[i]["forwards"] for seeds in places[point].values() for i in seeds.values()) for point in paid]
    return Measured(measure, samples, least, sum(costs))


_Places = dict[str, dict[str, dict[int, int]]]
"""Point -> prompt -> seed -> row of the table."""


def _check_points(places: _Places, points: Sequence[str]) -> None:
    """Refuse points that are not there, or whose prompts or seeds are not those of the first."""
    for point in points:
        if point not in places:
            raise ValueError(f'the run has no point "{point}", only {", ".join(places)}')
    first = places[points[0]]
    for point in points:
        for prompt in first | places[point]:
            if places[point].get(prompt, {}).keys() != first.get(prompt, {}).keys():
                raise ValueError(
                    f'"{points[0]}" and "{point}" have different seeds for the prompt "{prompt}": '
                    "finish the evaluation first"
                )


def _check_reference(places: _Places, point: str) -> None:
    """Refuse a prompt of the point without images to compare with."""
    for prompt in places[point]:
        if not places[REFERENCE].get(prompt):
            raise ValueError(
                f'the run has no point "{REFERENCE}" for the prompt "{prompt}": finish the evaluation first'
            )


class _Instrument(NamedTuple):
    """How a metric is read.

    Attributes:
        values: gives a value or feature vector for each row of the table.
        measure: takes those of one prompt, and of the reference where it is needed.
        least: the fewest images for which the metric is defined.
        compared: whether it needs the reference.
    """

    values: Callable[[], np.ndarray]
    measure: Measure
    least: int
    compared: bool = False


def _instruments(run: Run, rows: list[dict[str, Any]], concerned: Sequence[int]) -> dict[str, _Instrument]:
    """Everything that can be measured from a run's table and features, by the metric's name; `concerned` rows count."""
    recipe = run.recipe.get("evaluation") or {}
    k = recipe.get("neighbours", 3)
    found = {
        name: _Instrument(partial(_column, rows, "scores", name, np.nan), lambda x: float(np.mean(x)), 1)
        for name in _shared(rows, concerned, "scores")
    }
    found["vendi"] = _Instrument(run.features, _of_features("vendi_score"), 2)
    found["vendi_corrected"] = _Instrument(run.features, vendi_corrected, 2)
    found["distance"] = _Instrument(run.features, _of_features("mean_pairwise_distance"), 2)
    found |= {name: _Instrument(run.features, _of_features(name, k=k), k + 1, True) for name in AGAINST_REFERENCE}
    for name, spec in (recipe.get("further_features") or {}).items():
        found |= _further(partial(run.features, name), name, spec)
    for name in _shared(rows, concerned, "labels"):
        read = partial(_column, rows, "labels", name, "")
        found |= {f"{name}_entropy": _Instrument(read, _entropy, 1)}
        found |= {f"{name}_coverage": _Instrument(read, _modes_reached, 1, True)}
    return found


def _shared(rows: list[dict[str, Any]], concerned: Sequence[int], kind: str) -> list[str]:
    """Names of the scores or labels that all of these rows have."""
    own = [rows[i].get(kind) or {} for i in concerned]
    return [name for name in own[0] if all(name in each for each in own)]


def _column(rows: list[dict[str, Any]], kind: str, name: str, missing: Any) -> np.ndarray:
    return np.array([(row.get(kind) or {}).get(name, missing) for row in rows])


def _further(read: Callable[[], np.ndarray], name: str, spec: str) -> dict[str, _Instrument]:
    """What is measured in further features: a Vendi score only where the cosine tells two images apart."""
    from sfumato.metrics.extractors.build import distance_of

    distance = distance_of(spec)
    found = {f"distance_{name}": _Instrument(read, _of_features("mean_pairwise_distance", metric=distance), 2)}
    if distance == "cosine":
        found[f"vendi_{name}"] = _Instrument(read, _of_features("vendi_score"), 2)
    return found


def _of_features(name: str, **options: Any) -> Measure:
    """A measure of `sfumato.metrics`, called with arrays: the point's, then the reference's where it is needed."""

    def measure(*arrays: np.ndarray) -> float:
        import torch

        from sfumato import metrics

        return float(getattr(metrics, name)(*map(torch.from_numpy, reversed(arrays)), **options))

    return measure


def _entropy(labels: np.ndarray) -> float:
    from sfumato.metrics import entropy

    return entropy(labels.tolist())


def _modes_reached(labels: np.ndarray, reference: np.ndarray) -> float:
    from sfumato.metrics import mode_coverage

    return mode_coverage(reference.tolist(), labels.tolist()).share
