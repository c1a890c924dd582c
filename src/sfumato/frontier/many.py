"""Methods compared across runs: other base models, rewards and training seeds.

Every run has a scale of its own, so runs are not compared with one another: within each run the hypervolume of method A
is set against that of method B, and these differences are collected. Runs of one base model and one reward that differ
in nothing but the training seed are repetitions of one experiment; what they say about yet another training is the
sign test and an interval for the median, neither of which exists below `ENOUGH` runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from statistics import fmean, median
from typing import Any

from sfumato.change import unchanged_axes
from sfumato.frontier.statistics import Interval
from sfumato.frontier.tuned_runs import TunedRun

ENOUGH = 6
"""Trainings that must agree before a sign test reaches p < 0.05: 2 / 2^6 = 0.031."""
LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """Method A against method B.

    Attributes:
        a, b: the methods; `a` is the one with the larger mean.
        differences: run -> hypervolume of A minus that of B, in the run's own scale.
        probabilities: run -> bootstrap probability over prompts that A's hypervolume exceeds B's.
        mean: of the differences over the runs.
        wins: runs in which A's hypervolume is the larger; equal ones count half.
        points_differ: whether A and B have different numbers of points in some run, so that they are not like for like.
        p: two-sided sign test over the runs, exact; None for runs that are no repetitions of one experiment.
        median: 95 % interval (or more) of the median difference over trainings, from order statistics; None below
            `ENOUGH` runs and for runs that are no repetitions.
    """

    a: str
    b: str
    differences: dict[str, float]
    probabilities: dict[str, float]
    mean: float
    wins: float
    points_differ: bool
    p: float | None
    median: Interval | None


@dataclass(frozen=True)
class Group:
    """Runs of one base model and one reward.

    Attributes:
        model, reward: what they share.
        runs: run -> training seed.
        varied: keys of the recipe in which they differ beside the training seed; if there are any, the runs are no
            repetitions.
        volumes: method -> run -> hypervolume with its interval over prompts.
        pairs: every two methods that some run of the group compares.
    """

    model: str
    reward: str
    runs: dict[str, int]
    varied: tuple[str, ...]
    volumes: dict[str, dict[str, Interval]]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Comparison:
    """Methods compared across runs.

    Attributes:
        axes: the metrics on the axes of all runs.
        groups: by base model and reward.
        overall: every two methods over all runs of all groups; no test, since the runs are no repetitions of one
            experiment.
        left_out: run, or "run: method" -> why it is not compared.
    """

    axes: dict[str, str]
    groups: tuple[Group, ...]
    overall: tuple[Pair, ...]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-able values."""
        return asdict(self)


def compare_runs(runs: Sequence[TunedRun]) -> Comparison:
    """Compare methods within each run, and collect what the runs say.

    A run is left out, with the reason, if its axes or its reference point are not those of most runs, if tuning changed
    an axis within noise only, if it compares no methods, if it is the same trained model as another, or if it repeats
    another's settings and training seed. A method is left out of a run that gave it other points than most runs did: a
    checkpoint is the same point after the same share of the updates, and between base models or rewards, where a
    coefficient means something else, a training under the same name is the same point.
    """
    left_out: dict[str, str] = {}
    kept = list(_trained_apart(list(_comparable(runs, left_out)), left_out))
    groups = []
    for model, reward in dict.fromkeys((run.model, run.reward) for run in kept):
        members = [run for run in kept if (run.model, run.reward) == (model, reward)]
        groups.append(_group(model, reward, members, left_out))
    among = [run for run in kept if run.name not in left_out]
    aligned = _align(among, left_out if len(groups) > 1 else {}, by_name=len(groups) > 1)
    return Comparison(
        axes=dict(among[0].frontier["axes"]) if among else {},
        groups=tuple(groups),
        overall=tuple(_pairs(among, aligned, repeated=False)) if len(groups) > 1 else (),
        left_out=left_out,
    )


def _comparable(runs: Sequence[TunedRun], left_out: dict[str, str]) -> Iterator[TunedRun]:
    """The runs that can stand in one comparison; the others go to `left_out`."""
    axes = _most(tuple(run.frontier["axes"].values()) for run in runs)
    corner = _most(tuple(run.frontier["reference_point"]) for run in runs)
    seen: dict[str, str] = {}
    for run in runs:
        own = tuple(run.frontier["axes"].values())
        if own != axes:
            left_out[run.name] = (
                f"its axes are {' and '.join(own)}, those of most runs {' and '.join(axes)}: choose axes for all runs "
                "with --reward and --diversity"
            )
        elif tuple(run.frontier["reference_point"]) != corner:
            left_out[run.name] = (
                "its hypervolumes have another reference point than those of most runs: evaluate it again"
            )
        elif unchanged := unchanged_axes(run.frontier):
            left_out[run.name] = (
                f"tuning did not change {' or '.join(unchanged)} beyond noise, so there is no scale from base to tuned "
                "to measure hypervolumes in"
            )
        elif not run.frontier.get("methods"):
            left_out[run.name] = "it has no operating points between base and tuned"
        elif run.weights and run.weights in seen:
            left_out[run.name] = f"it is the same trained model as {seen[run.weights]}, which counts once"
        else:
            yield run
            if run.weights:
                seen[run.weights] = run.name


def _trained_apart(runs: Sequence[TunedRun], left_out: dict[str, str]) -> Iterator[TunedRun]:
    """The runs without those that train again what an earlier one did, with its seed; these go to `left_out`."""
    seen: dict[tuple[str, str, int, str], str] = {}
    for run in runs:
        settings = {key: value for key, value in _settings(run.recipe) if value is not None}
        own = (run.model, run.reward, run.seed, json.dumps(settings, sort_keys=True))
        if own in seen:
            left_out[run.name] = (
                f"it has the settings and the training seed {run.seed} of {seen[own]}: one seed counts once, as it is "
                "no other draw"
            )
        else:
            seen[own] = run.name
            yield run


def _most(values: Iterable[Any]) -> Any:
    """The most common value, of equally common ones the first."""
    return Counter(values).most_common(1)[0][0]


def _group(model: str, reward: str, runs: Sequence[TunedRun], left_out: dict[str, str]) -> Group:
    varied = _varied(runs)
    aligned = _align(runs, left_out)
    volumes: dict[str, dict[str, Interval]] = {}
    for run in runs:
        for method in run.frontier["methods"]:
            if method["name"] in aligned[run.name]:
                volumes.setdefault(method["name"], {})[run.name] = Interval(**method["hypervolume"])
    pairs = _pairs(runs, aligned, repeated=len(runs) > 1 and not varied)
    return Group(model, reward, {run.name: run.seed for run in runs}, varied, volumes, tuple(pairs))


def _varied(runs: Sequence[TunedRun]) -> tuple[str, ...]:
    """Dotted keys of the recipe, beside the training seed, that change a result and are not the same in all runs."""
    settings = [dict(_settings(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return tuple(key for key in keys if len({json.dumps(setting.get(key)) for setting in settings}) > 1)


def _settings(recipe: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    harmless = {"training.seed", "evaluation.points", "evaluation.batch_size"}
    for section in ("pipeline", "sampling", "reward", "prompts", "training", "evaluation"):
        content = recipe.get(section)
        for key, value in content.items() if isinstance(content, dict) else [("", content)]:
            name = f"{section}.{key}".rstrip(".")
            if name not in harmless and not name.startswith(("training.monitor", "training.checkpoint")):
                yield name, value


def _align(runs: Sequence[TunedRun], left_out: dict[str, str], by_name: bool = False) -> dict[str, set[str]]:
    """The methods of each run that have the points that most runs gave them; the others go to `left_out`."""
    found: dict[str, set[str]] = {run.name: set() for run in runs}
    methods = dict.fromkeys(method["name"] for run in runs for method in run.frontier["methods"])
    for name in methods:
        points = {run.name: described for run in runs if (described := _points(run, name, by_name)) is not None}
        usual = _most(points.values())
        for run, described in points.items():
            if described == usual:
                found[run].add(name)
            else:
                left_out[f"{run}: {name}"] = "measured at other points than in most runs"
    return found


def _points(run: TunedRun, method: str, by_name: bool) -> str | None:
    """What a run measured of a method, without base and tuned, as text to compare; None if it did not.

    Args:
        by_name: whether a training is told by its name alone, not by its settings.
    """
    listed = next((entry["points"] for entry in run.frontier["methods"] if entry["name"] == method), None)
    if listed is None:
        return None
    definitions = [point.get("definition", {}) for point in run.frontier["points"] if point["name"] in listed[1:-1]]
    variants = run.recipe.get("variants") or {}
    described = []
    for definition in definitions:
        variant = variants.get(definition.get("training")) or {}
        if "checkpoint" in definition:
            updates = variant.get("steps", run.recipe["training"]["steps"])
            definition = definition | {"checkpoint": definition["checkpoint"] / updates}
        described.append([definition, None if by_name else variant])
    return json.dumps(described)


def _pairs(runs: Sequence[TunedRun], aligned: dict[str, set[str]], repeated: bool) -> Iterator[Pair]:
    """Every two methods that are compared in some run, those that are compared like for like first."""
    names = dict.fromkeys(m["name"] for run in runs for m in run.frontier["methods"] if m["name"] in aligned[run.name])
    found = []
    for a, b in combinations(names, 2):
        both = [run for run in runs if {a, b} <= aligned[run.name]]
        if both:
            found.append(_pair(a, b, both, repeated))
    yield from sorted(found, key=lambda pair: pair.points_differ)


def _pair(a: str, b: str, runs: Sequence[TunedRun], repeated: bool) -> Pair:
    methods = {run.name: {entry["name"]: entry for entry in run.frontier["methods"]} for run in runs}
    differences = {run: own[a]["hypervolume"]["mean"] - own[b]["hypervolume"]["mean"] for run, own in methods.items()}
    if fmean(differences.values()) < 0:
        a, b, differences = b, a, {run: -difference for run, difference in differences.items()}
    values = list(differences.values())
    wins = sum(value > 0 for value in values) + sum(value == 0 for value in values) / 2
    chances = {run.name: chance for run in runs if (chance := _probability(run, a, b)) is not None}
    return Pair(
        a=a,
        b=b,
        differences=differences,
        probabilities=chances,
        mean=fmean(values),
        wins=wins,
        points_differ=any(len(own[a]["points"]) != len(own[b]["points"]) for own in methods.values()),
        p=sign_test(values) if repeated else None,
        median=median_interval(values) if repeated else None,
    )


def _probability(run: TunedRun, a: str, b: str) -> float | None:
    """The run's bootstrap probability that A's hypervolume exceeds B's, if it has one."""
    for entry in run.frontier.get("comparisons", []):
        if (entry["a"], entry["b"]) == (a, b):
            return float(entry["probability"])
        if (entry["a"], entry["b"]) == (b, a):
            return 1 - float(entry["probability"])
    return None


def sign_test(differences: Sequence[float]) -> float:
    """Exact two-sided p-value that positive and negative differences are equally likely; zeros are dropped."""
    positive, n = sum(d > 0 for d in differences), sum(d != 0 for d in differences)
    return min(1.0, 2 * _binomial(min(positive, n - positive), n))


def median_interval(differences: Sequence[float]) -> Interval | None:
    """The median and an interval that holds the population's with at least 95 %, whatever the distribution.

    From the k-th smallest to the k-th largest value, with coverage 1 - 2 P(Bin(n, 1/2) < k) and the largest k that has
    enough. None below `ENOUGH` values, where not even the whole range has.
    """
    ordered, n = sorted(differences), len(differences)
    fitting = [k for k in range(1, n // 2 + 1) if 1 - 2 * _binomial(k - 1, n) >= LEVEL]
    return Interval(median(ordered), ordered[fitting[-1] - 1], ordered[-fitting[-1]]) if fitting else None


def _binomial(k: int, n: int) -> float:
    """P(Bin(n, 1/2) <= k)."""
    return float(sum(comb(n, i) for i in range(k + 1)) / 2**n)
