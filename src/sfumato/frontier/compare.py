"""From per-prompt values of every operating point to intervals, the frontier and the comparison of methods.

Design (docs/statistics.md says why):

* Every point was measured on the same prompts with the same seeds, so differences are paired.
* Values, intervals and differences of single metrics use all prompts.
* Differences between points are corrected for being many: the family is every pair on both axes, whatever is shown.
* Methods are compared by hypervolume in scaled axes: reward runs from 0 at the base to 1 at the tuned model, diversity
  from 0 at the tuned model to 1 at the base. The scale is fixed on a calibration split of the prompts; hypervolumes and
  their bootstrap use the other prompts, and one reference point for all methods and resamples.
* All of it is conditional on the trained models: it says nothing about another training seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.frontier.multiple import simultaneous
from sfumato.frontier.pareto import pareto_front
from sfumato.frontier.statistics import REPETITIONS, Array, as_values, bootstrap, paired_difference
from sfumato.frontier.volumes import Volumes, compare_methods, equal_compute

REFERENCE_POINT = (-0.1, -0.1)
ENOUGH_PROMPTS = 20
Table = dict[str, dict[str, Array]]


def summarise(
    per_prompt: Mapping[str, Mapping[str, ArrayLike]],
    methods: Mapping[str, Sequence[str]],
    *,
    reward: str = "reward",
    diversity: str = "vendi",
    base: str = "base",
    tuned: str = "tuned",
    forwards: Mapping[str, float] | None = None,
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
        forwards: point -> denoiser forwards per image, for the equal-compute view.
        calibration: indices of the prompts that set the scale; every third one if not given.
        reference_point: of the hypervolume, in scaled axes.
        repetitions: resamples of the bootstrap.
        seed: of the resamples.

    Returns:
        `axes`, `scale`, `reference_point`, `calibration`, `warnings`, `points` (in the order given: `name`,
        `nondominated` by the means over all prompts, `metrics`, `versus_tuned`, `per_prompt`), `methods` (`name`,
        `points`, `hypervolume`, `distribution`: quantiles of its bootstrap distribution, `points_differ`),
        `comparisons` (`a`, `b`, `probability`, `points_differ`), `differences` (`a`, `b`, `metric`, `mean` of b - a,
        `low` and `high` that hold for all pairs at once, `p`, `p_adjusted`), and with `forwards` also `equal_compute`
        (`budget`, `points`, `front`, `methods`).

    Raises:
        ValueError: a point, metric or method that does not fit, fewer than 3 prompts, NaN or infinity.
    """
    ends, axes = (base, tuned), (reward, diversity)
    table = _table(per_prompt, axes, ends)
    _check_methods(methods, table, ends)
    _check_forwards(forwards, table)
    names, options = list(table), {"repetitions": repetitions, "seed": seed}
    values = np.stack([np.stack([row[reward], row[diversity]], axis=-1) for row in table.values()], axis=1)  # (m, P, 2)
    found, scaled = _scaled(values, names, ends, axes, calibration)
    volumes = Volumes(scaled, names, reference_point, **options)
    means = values.mean(axis=0)
    front = {names[i] for i in pareto_front(means)}
    found["reference_point"] = list(reference_point)
    found["points"] = [
        {"name": name, "nondominated": name in front, **_describe(row, table[tuned], name == tuned, **options)}
        for name, row in table.items()
    ]
    found |= compare_methods(volumes, methods)
    found["differences"] = _differences(values, names, axes, front | set(ends), **options)
    if forwards is not None:
        by_name = dict(zip(names, map(tuple, means.tolist()), strict=True))
        found["equal_compute"] = equal_compute(volumes, methods, by_name, forwards, ends)
    return found


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


def _check_forwards(forwards: Mapping[str, float] | None, table: Table) -> None:
    if forwards is None:
        return
    for point in table:
        cost = forwards.get(point)
        if cost is None or not 0 < cost < np.inf:
            raise ValueError(f'the forwards per image of point "{point}" must be a positive number, not {cost}')


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


def _scaled(
    values: Array, names: list[str], ends: tuple[str, str], axes: tuple[str, str], calibration: Sequence[int] | None
) -> tuple[dict[str, Any], Array]:
    """What frontier.json says of the axes, and the scaled values of the prompts that methods are compared on."""
    chosen, rest = _split(len(values), calibration)
    base, tuned = (values[chosen].mean(axis=0)[names.index(end)] for end in ends)
    scale, warnings = _scale(base, tuned, axes)
    found = {
        "axes": {"reward": axes[0], "diversity": axes[1]},
        "scale": {"reward": scale[0].tolist(), "diversity": scale[1].tolist()},
        "calibration": chosen,
        "warnings": warnings + _too_few(len(values)),
    }
    return found, (values[rest] - scale[:, 0]) / (scale[:, 1] - scale[:, 0])


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


def _too_few(m: int) -> list[str]:
    if m >= ENOUGH_PROMPTS:
        return []
    return [
        f"Only {m} prompts: where values are skewed the 95 % intervals cover less than 90 %, and the probabilities "
        f"that one method beats another are too sure. Ask at least {ENOUGH_PROMPTS}."
    ]


def _differences(
    values: Array, names: list[str], axes: tuple[str, str], shown: set[str], repetitions: int, seed: int
) -> list[dict[str, Any]]:
    """Paired differences b - a on both axes, of every pair with a point that is shown among it, from (m, P, 2).

    Corrected over all pairs: which points stand on the front was seen in the same values.
    """
    pairs = list(combinations(range(len(names)), 2))
    first, second = np.array(pairs).T
    found = simultaneous(
        (values[:, second] - values[:, first]).reshape(len(values), -1), repetitions=repetitions, seed=seed
    )
    return [
        {"a": names[a], "b": names[b], "metric": metric, **asdict(difference)}
        for ((a, b), metric), difference in zip(product(pairs, axes), found, strict=True)
        if {names[a], names[b]} & shown
    ]
