"""Choose an operating point: "keep at least so much of this, then the most of that", and say how sure the choice is.

Everything is computed from the per-prompt values in `frontier.json`. What is uncertain is which prompts were asked: on
resampled prompts the constraint may not hold, and another point may be chosen. Both are counted (docs/frontier.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.change import tuning_change
from sfumato.frontier.compare import ENOUGH_PROMPTS
from sfumato.frontier.pareto import pareto_front
from sfumato.frontier.plane import Plane, Threshold, ratio
from sfumato.frontier.statistics import REPETITIONS, Array, Interval, interval, jackknife_weights, resampling_weights

SURE = 0.9
"""A constraint that holds on this share of resamples counts as safe."""
DOUBTFUL = 0.005
"""A share has no interval if tuning gained (or the base had) nothing on more than this share of the resamples."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval; the limits are None where on some resamples there was nothing to share."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Candidate:
    """An operating point as the choice sees it.

    Attributes:
        name, label, method, definition: as in frontier.json.
        forwards: denoiser forwards per image, if they were counted.
        nondominated: on the axes of the choice, by the means over all prompts.
        reward, diversity: means over prompts with 95 % intervals.
        gain_kept: (R - R_base) / (R_tuned - R_base); None if tuning gained nothing.
        diversity_kept: (D - floor) / (D_base - floor); None if the base has nothing above the floor.
        balance: the product of the gain kept and of the lost diversity given back, each counted from 0 to 1.
        fails: which of "diversity", "reward" and "budget" rule it out.
        probability: share of resampled sets of prompts on which the constraints on diversity and reward hold.
        frequency: share of resampled sets of prompts on which this point is chosen.
    """

    name: str
    label: str
    method: str
    definition: dict[str, Any]
    forwards: float | None
    nondominated: bool
    reward: Interval
    diversity: Interval
    gain_kept: Share | None
    diversity_kept: Share | None
    balance: float
    fails: tuple[str, ...]
    probability: float
    frequency: float


@dataclass(frozen=True)
class Choice:
    """The chosen operating point, and why.

    Attributes:
        axes: the metrics on the axes, "reward" and "diversity".
        floor: diversity of images that are all alike, from which shares are counted.
        min_diversity, min_reward, budget: what was asked.
        objective: what was maximised among the points that remain.
        chosen: None if no point but the base model satisfies the constraints, or if there is nothing to balance.
        runner_up: what would be chosen without it.
        versus: chosen minus runner-up with paired 95 % intervals: "objective", "reward" and "diversity".
        safer: the best point whose constraints hold on 90 % of resamples, if that is not the chosen one.
        nearest: where nothing is chosen, the point that lacks least by its means, in distances from base to tuned.
        lacks: by how much the nearest falls short, "diversity" and "reward": of a share where a share was asked, else
            of the metric's value.
        candidates: all points in the order of frontier.json.
        none: share of resamples on which nothing can be chosen.
        prompts, images_per_prompt: what it rests on.
        warnings: what makes it doubtful.
    """

    axes: dict[str, str]
    floor: float
    min_diversity: Threshold | None
    min_reward: Threshold | None
    budget: float | None
    objective: Literal["reward", "diversity", "balance"]
    chosen: Candidate | None
    runner_up: Candidate | None
    versus: dict[str, Interval]
    safer: Candidate | None
    nearest: Candidate | None
    lacks: dict[str, Share]
    candidates: tuple[Candidate, ...]
    none: float
    prompts: int
    images_per_prompt: int | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The choice as JSON-able values."""
        return asdict(self)


def choose(
    frontier: Mapping[str, Any],
    *,
    min_diversity: str | float | None = None,
    min_reward: str | float | None = None,
    budget: float | None = None,
    reward: str | None = None,
    diversity: str | None = None,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Choice:
    """Choose among the operating points of a run.

    With `min_diversity` the point with the most reward is chosen among those that keep enough diversity, with
    `min_reward` the reverse; with both or neither the best balance. The base model is never chosen. Of equally good
    points the cheaper one is.

    Args:
        frontier: what `frontier.json` holds, as `Run.frontier()` gives it.
        min_diversity: a share of the base's, counted from the diversity of images that are all alike (1 for a Vendi
            score, else 0), as 0.9 or "90%"; or a value of any metric, "vendi>=2.1".
        min_reward: a share of what tuning gained, as 0.8 or "80%"; or a value of any metric, "gold>=0.3".
        budget: most denoiser forwards per image, above 0.
        reward: metric on the first axis; the run's own if not given.
        diversity: metric on the second axis; the run's own if not given.
        repetitions: bootstrap resamples of the prompts.
        seed: of the bootstrap.

    Raises:
        ValueError: a threshold that cannot be read or has no meaning here, a budget that is not above 0, a metric that
            was not measured, a run without per-prompt values, fewer than 2 prompts.
    """
    if budget is not None and not budget > 0:
        raise ValueError(f"a budget is a number of denoiser forwards per image above 0, not {budget}")
    own = frontier["axes"]
    axes = {"reward": reward or own["reward"], "diversity": diversity or own["diversity"]}
    given = {"diversity": min_diversity, "reward": min_reward}
    least = {side: Threshold.parse(text) for side, text in given.items() if text is not None}
    plane = Plane(frontier, axes, least, budget)
    m = len(plane.values)
    whole, resampled = plane.means(np.full((1, m), 1 / m)), plane.means(resampling_weights(m, repetitions, seed))
    left_out = plane.means(jackknife_weights(m))
    frequency = np.bincount(plane.pick(resampled) + 1, minlength=len(plane.points) + 1) / repetitions
    candidates = _describe(plane, whole, resampled, left_out, frequency[1:])
    roles = _roles(plane, whole, np.array([candidate.probability >= SURE for candidate in candidates]))
    compared, near = (roles["chosen"], roles["runner_up"]), roles["nearest"]
    named: dict[str, Any] = {role: candidates[i] if i >= 0 else None for role, i in roles.items()}
    return Choice(
        axes=axes,
        floor=plane.floor,
        min_diversity=least.get("diversity"),
        min_reward=least.get("reward"),
        budget=budget,
        objective=plane.objective,
        **named,
        versus=plane.versus(*compared, whole, resampled, left_out) if min(compared) >= 0 else {},
        lacks=_lacks(plane, candidates[near], near, whole, resampled, left_out) if near >= 0 else {},
        candidates=candidates,
        none=float(frequency[0]),
        prompts=m,
        images_per_prompt=frontier.get("images_per_prompt"),
        warnings=_warnings(frontier, axes, m),
    )


def _roles(plane: Plane, whole: Array, sure: NDArray[np.bool_]) -> dict[str, int]:
    """The points that the choice names, by index; -1 for none."""
    chosen = int(plane.pick(whole)[0])
    if chosen < 0:
        return {"chosen": -1, "runner_up": -1, "safer": -1, "nearest": plane.nearest(whole[0])}
    runner_up = int(plane.pick(whole, without=chosen)[0])
    safer = int(plane.pick(whole, among=sure)[0])
    return {"chosen": chosen, "runner_up": runner_up, "safer": -1 if safer == chosen else safer, "nearest": -1}


def _describe(plane: Plane, whole: Array, resampled: Array, left_out: Array, frequency: Array) -> tuple[Candidate, ...]:
    """Every point with its intervals, shares and probabilities, from means over prompts (., P, K)."""
    front = set(pareto_front(whole[0][:, [plane.r, plane.d]]))
    probability, balance = plane.holds(resampled).mean(axis=0), plane.balance(whole)[0]
    fails = {side: plane.slack(side, whole)[0] < 0 for side in plane.least} | {"budget": ~plane.affordable}
    shares = {side: _shares(plane, side, whole, resampled, left_out) for side in ("reward", "diversity")}

    def mean(i: int, k: int) -> Interval:
        return interval(float(whole[0, i, k]), resampled[:, i, k], left_out[:, i, k], expand=True)

    return tuple(
        Candidate(
            name=point["name"],
            label=point.get("label", point["name"]),
            method=point.get("method", ""),
            definition=point.get("definition", {}),
            forwards=point.get("forwards"),
            nondominated=i in front,
            reward=mean(i, plane.r),
            diversity=mean(i, plane.d),
            gain_kept=shares["reward"][i],
            diversity_kept=shares["diversity"][i],
            balance=float(balance[i]),
            fails=tuple(name for name, failed in fails.items() if failed[i]),
            probability=float(probability[i]),
            frequency=float(frequency[i]),
        )
        for i, point in enumerate(plane.points)
    )


def _shares(plane: Plane, side: str, whole: Array, resampled: Array, left_out: Array) -> list[Share | None]:
    """Every point's share on a side with its limits."""
    share, drawn, without = (_divided(*plane.parts(side, means)) for means in (whole, resampled, left_out))
    points = range(len(plane.points))
    if plane.parts(side, whole)[1][0] <= 0:
        return [None for _ in points]
    if (plane.parts(side, resampled)[1] <= 0).mean() > DOUBTFUL:
        return [Share(float(share[0, i]), None, None) for i in points]
    limits = [interval(float(share[0, i]), drawn[:, i], without[:, i], expand=True) for i in points]
    return [Share(found.mean, found.low, found.high) for found in limits]


def _divided(part: Array, whole: Array) -> Array:
    return ratio(part, whole[:, None])


def _lacks(plane: Plane, point: Candidate, i: int, whole: Array, resampled: Array, left_out: Array) -> dict[str, Share]:
    """By how much point i misses each constraint that it misses, in the terms in which that was asked."""
    found = {}
    for side, least in plane.least.items():
        if side not in point.fails:
            continue
        kept = point.gain_kept if side == "reward" else point.diversity_kept
        if least.metric is None:
            assert kept is not None  # a share of nothing was refused
            low, high = (None if limit is None else least.value - limit for limit in (kept.high, kept.low))
            found[side] = Share(least.value - kept.mean, low, high)
        else:
            missing, drawn, without = (-plane.slack(side, means)[:, i] for means in (whole, resampled, left_out))
            found[side] = Share(**asdict(interval(float(missing[0]), drawn, without, expand=True)))
    return found


def _warnings(frontier: Mapping[str, Any], axes: Mapping[str, str], prompts: int) -> tuple[str, ...]:
    """What makes the choice doubtful: first a change by tuning that is noise, then the run's own warnings."""
    found = list(_doubts(frontier, axes))
    found += [*frontier.get("warnings", []), *(frontier.get("small_n") or {}).get("warnings", [])]
    if prompts < ENOUGH_PROMPTS and not any(f"{prompts} prompts" in warning for warning in found):
        found.append(f"Only {prompts} prompts: intervals are rough and probabilities too sure.")
    return tuple(dict.fromkeys(found))


def _doubts(frontier: Mapping[str, Any], axes: Mapping[str, str]) -> Iterator[str]:
    """The axes on which tuning did not do what tuning does, by the paired change of each."""
    for side, verb in (("reward", "raise"), ("diversity", "lower")):
        change = tuning_change(frontier, axes[side])
        if change is None:
            continue
        mean, low, high = change
        size = f"tuned minus base is {mean:.3g}, with a 95 % interval of {low:.3g} to {high:.3g}"
        if low <= 0 <= high:
            yield (
                f"Tuning did not {verb} {axes[side]} beyond noise: {size}. Shares of this change and balances mean "
                "little here, and there is no scale for hypervolumes."
            )
        elif (mean > 0) != (side == "reward"):
            yield (
                f"Tuning did not {verb} {axes[side]}: {size}. There is no change to share, and balances and "
                "hypervolumes mean little here."
            )
