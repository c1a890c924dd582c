"""From per-prompt values of every operating point to intervals, the frontier and the comparison of methods.

Design (docs/statistics.md says why):

* Every point was measured on the same prompts with the same seeds, so differences are paired.
* Values, intervals and differences of single metrics use all prompts.
* Methods are compared by hypervolume in scaled axes: reward runs from 0 at the base to 1 at the tuned model, diversity
  from 0 at the tuned model to 1 at the base. The scale is fixed on a calibration split of the prompts; hypervolumes and
  their bootstrap use the other prompts, and one reference point for all methods and resamples.
* All of it is conditional on the trained models: it says nothing about another training seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.frontier.pareto import hypervolumes, pareto_front
from sfumato.frontier.statistics import (
    REPETITIONS,
    Array,
    as_values,
    bootstrap,
    interval,
    jackknife_weights,
    paired_difference,
    resampling_weights,
)

REFERENCE_POINT = (-0.1, -0.1)
Table = dict[str, dict[str, Array]]


def summarise(
    per_prompt: Mapping[str, Mapping[str, ArrayLike]],
    methods: Mapping[str, Sequence[str]],
    *,
    reward: str = "reward",
    diversity: str = "vendi",
    base: str = "base",
    tuned: str = "tuned",
    calibration: Sequence[int] | None = None,
    reference_point: tuple[float, float] = REFERENCE_POINT,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that `frontier.json` says about the measured numbers, JSON-able.

    Args:
        per_prompt: point -> metric -> one value per prompt (m,), the prompts in one order throughout.
        methods: method -> its points, `base` and `tuned` among them, chosen before looking at results. For a fair
            hypervolume all methods have equally many; where not, `points_differ` says so.
        reward: metric on the first axis.
        diversity: metric on the second axis.
        base: name of the base model's point.
        tuned: name of the tuned model's point.
        calibration: indices of the prompts that set the scale; every third one if not given.
        reference_point: of the hypervolume, in scaled axes.
        repetitions: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        `axes`, `scale`, `reference_point`, `calibration`, `warnings`, `points` (in the order given: `name`,
        `nondominated` by the means over all prompts, `metrics`, `versus_tuned`, `per_prompt`), `methods` (`name`,
        `points`, `hypervolume`, `points_differ`), `comparisons` (`a`, `b`, `probability`, `points_differ`).

    Raises:
        ValueError: a point, metric or method that does not fit, fewer than 3 prompts, NaN or infinity.
    """
    table = _table(per_prompt, (reward, diversity), (base, tuned))
    _check_methods(methods, table, (base, tuned))
    chosen, rest = _split(len(table[base][reward]), calibration)
    values = np.stack([np.stack([row[reward], row[diversity]], axis=-1) for row in table.values()], axis=1)  # (m, P, 2)
    names = list(table)
    ends = values[chosen].mean(axis=0)
    scale, warnings = _scale(ends[names.index(base)], ends[names.index(tuned)], (reward, diversity))
    scaled = (values[rest] - scale[:, 0]) / (scale[:, 1] - scale[:, 0])
    front = set(pareto_front(values.mean(axis=0)))
    options = {"repetitions": repetitions, "seed": seed}
    return {
        "axes": {"reward": reward, "diversity": diversity},
        "scale": {"reward": scale[0].tolist(), "diversity": scale[1].tolist()},
        "reference_point": list(reference_point),
        "calibration": chosen,
        "warnings": warnings,
        "points": [
            {"name": name, "nondominated": i in front, **_describe(row, table[tuned], name == tuned, **options)}
            for i, (name, row) in enumerate(table.items())
        ],
        **_compare(scaled, names, methods, reference_point, **options),
    }


def _table(per_prompt: Mapping[str, Mapping[str, ArrayLike]], axes: tuple[str, str], ends: tuple[str, str]) -> Table:
    """The values as arrays, checked: all of one length, with both axes, with base and tuned."""
    for name in ends:
        if name not in per_prompt:
            raise ValueError(f'there is no point "{name}", only {", ".join(per_prompt)}')
    table: Table = {}
    for point, metrics in per_prompt.items():
        for axis in axes:
            if axis not in metrics:
                raise ValueError(f'point "{point}" has no metric "{axis}", only {", ".join(metrics)}')
        table[point] = {}
        for metric, values in metrics.items():
            try:
                table[point][metric] = as_values(values)
            except ValueError as error:
                raise ValueError(f'metric "{metric}" of point "{point}": {error}') from None
    lengths = {f'"{metric}" of "{point}"': len(v) for point, row in table.items() for metric, v in row.items()}
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lambda key: lengths[key]), max(lengths, key=lambda key: lengths[key])
        raise ValueError(
            f"all points need values for the same prompts: {short} has {lengths[short]}, {long} has {lengths[long]}"
        )
    return table


def _check_methods(methods: Mapping[str, Sequence[str]], table: Table, ends: tuple[str, str]) -> None:
    for name, points in methods.items():
        unknown = [point for point in points if point not in table]
        if unknown:
            raise ValueError(f'method "{name}" names points that were not measured: {", ".join(unknown)}')
        if not set(ends) <= set(points):
            raise ValueError(f'method "{name}" must hold both "{ends[0]}" and "{ends[1]}" among its points')
        if len(set(points)) < len(points):
            raise ValueError(f'method "{name}" holds a point more than once')


def _split(m: int, calibration: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Prompts that set the scale, and those that methods are compared on."""
    chosen = list(range(0, m, 3)) if calibration is None else sorted(set(calibration))
    rest = sorted(set(range(m)) - set(chosen))
    if not chosen or not set(chosen) <= set(range(m)) or len(rest) < 2:
        raise ValueError(
            f"a frontier needs at least 1 prompt to set the scale and 2 others to compare methods on: there are {m} "
            f"prompts, and the calibration split is {chosen}"
        )
    return chosen, rest


def _scale(base: Array, tuned: Array, axes: tuple[str, str]) -> tuple[Array, list[str]]:
    """Raw values (2 axes, 2) that are mapped to 0 and 1, with a warning where tuning did not do what it does.

    Both axes stay maximised whatever happened: the lower of the two models is 0. Where they are equal the axis keeps
    its unit.
    """
    scale = np.array([[base[0], tuned[0]], [tuned[1], base[1]]])
    changes = ("did not raise", "did not lower")
    warnings = [
        f"On the calibration prompts tuning {change} {axis} (base {base[i]:.4g}, tuned {tuned[i]:.4g}): "
        "the scaled axes and hypervolumes mean little."
        for i, (axis, change) in enumerate(zip(axes, changes, strict=True))
        if scale[i, 1] <= scale[i, 0]
    ]
    scale.sort(axis=1)
    scale[:, 1] += scale[:, 1] == scale[:, 0]
    return scale, warnings


def _describe(row: dict[str, Array], tuned: dict[str, Array], is_tuned: bool, **options: Any) -> dict[str, Any]:
    """One point's metrics with intervals, and how they differ from the tuned model's."""
    shared = [] if is_tuned else [metric for metric in row if metric in tuned]
    return {
        "metrics": {metric: asdict(bootstrap(values, **options)) for metric, values in row.items()},
        "versus_tuned": {metric: asdict(paired_difference(row[metric], tuned[metric], **options)) for metric in shared},
        "per_prompt": {metric: values.tolist() for metric, values in row.items()},
    }


def _compare(
    scaled: Array,
    names: list[str],
    methods: Mapping[str, Sequence[str]],
    reference_point: tuple[float, float],
    repetitions: int,
    seed: int,
) -> dict[str, Any]:
    """Hypervolumes of the methods, and how often one exceeds another, over resamples of the prompts (m, P, 2)."""
    m = len(scaled)

    def volumes(weights: Array, points: Sequence[str]) -> Array:
        own = scaled[:, [names.index(point) for point in points]]
        return hypervolumes(np.tensordot(weights, own, axes=1), reference_point)

    everything = np.full((1, m), 1 / m)
    resampled = {name: volumes(resampling_weights(m, repetitions, seed), points) for name, points in methods.items()}
    sizes = [len(points) for points in methods.values()]
    usual = max(sizes, key=lambda size: (sizes.count(size), size), default=0)
    described = []
    for name, points in methods.items():
        estimate = float(volumes(everything, points)[0])
        bounds = interval(estimate, resampled[name], volumes(jackknife_weights(m), points))
        differs = len(points) != usual
        described.append(
            {"name": name, "points": list(points), "hypervolume": asdict(bounds), "points_differ": differs}
        )
    return {
        "methods": described,
        "comparisons": [
            {
                "a": a,
                "b": b,
                "probability": _probability_larger(resampled[a], resampled[b]),
                "points_differ": len(methods[a]) != len(methods[b]),
            }
            for a, b in combinations(methods, 2)
        ],
    }


def _probability_larger(a: Array, b: Array) -> float:
    """Share of resamples in which a exceeds b; ties count half."""
    close = np.isclose(a, b, rtol=1e-12, atol=1e-12)
    return float(np.where(close, 0.5, a > b).mean())
