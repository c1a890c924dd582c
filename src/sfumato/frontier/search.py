"""Find the schedule with the most reward that keeps enough diversity, or the reverse, within a budget of images.

`search` knows neither pipeline nor images: it asks `measure` for the reward and the diversity of a schedule on one
prompt. How it goes about it:

* The fixed schedules that people use without a search come first and are measured on every prompt, so that the result
  is never worse than the best of them on these prompts.
* Then Optuna's TPE proposes schedules; the goal's "keep at least" is a constraint of its own (`Trial.set_constraint`),
  not a penalty: schedules that keep enough are ranked by the objective, the others below them by how much they lack.
* Every other proposal is a line search along `cap`: between known caps of one shape, reward and diversity are read off
  straight lines, and the cap that keeps just enough is tried if it promises to beat the best. The optimum lies on that
  edge, and TPE alone finds it slowly.
* A schedule is measured prompt by prompt in one order for all, and stopped early where it is surely worse than the best
  so far, or surely keeps too little: see `is_surely_negative`.

The course of a search depends on its seed and on the measured values only. So a search that was killed is continued by
running it again with a `measure` that remembers.
"""

from __future__ import annotations

import math
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from sfumato.config import PointConfig
from sfumato.frontier.search_space import (
    BASE,
    CAP,
    CAP_STEP,
    FIRST_LOOKS,
    FIXED,
    TUNED,
    Parameters,
    label,
    point,
    suggest,
)
from sfumato.frontier.statistics import Array

FIRST_RUNG = 3
RISK = 0.1
"""Probability at most that a schedule which beats the best so far and keeps enough is stopped early."""
PATIENCE = 100
"""The search ends after so many proposals in a row that were measured before."""

Measure = Callable[[PointConfig, str], tuple[float, float]]
"""(schedule, prompt) -> mean reward and diversity of its images."""


@dataclass(frozen=True)
class Goal:
    """What is kept, and how much of it; the other one of reward and diversity is maximised.

    Attributes:
        keep: "diversity" keeps at least `share` of the base model's diversity above `floor`; "reward" keeps at least
            `share` of what the tuned model gains over the base model. Both are means over the prompts.
        share: q, above 0 and at most 1.
        floor: the diversity of images that are all alike; 1 for the Vendi score, of which nothing is left at 1.

    Raises:
        ValueError: another constraint, or a share out of range.
    """

    keep: Literal["diversity", "reward"] = "diversity"
    share: float = 0.9
    floor: float = 1.0

    def __post_init__(self) -> None:
        if self.keep not in ("diversity", "reward"):
            raise ValueError(f"unknown constraint {self.keep!r}: keep diversity or reward, such as diversity=0.9")
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of the {self.keep} to keep is above 0 and at most 1, not {self.share:g}")

    @classmethod
    def parse(cls, text: str) -> Goal:
        """A goal from `diversity=0.9`; raises ValueError."""
        keep, _, share = text.partition("=")
        try:
            number = float(share)
        except ValueError:
            raise ValueError(f"cannot read {text!r}: write diversity=0.9 or reward=0.8") from None
        return cls(keep, number)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """Fit for a folder: `diversity-0.9`."""
        return f"{self.keep}-{self.share:g}"

    @property
    def maximised(self) -> str:
        return "reward" if self.keep == "diversity" else "diversity"

    def needed(self, base: Values, tuned: Values) -> Array:
        """The least that counts as kept on each prompt (m,)."""
        if self.keep == "diversity":
            return self.floor + self.share * (base.diversity - self.floor)
        return base.reward + self.share * (tuned.reward - base.reward)


@dataclass(frozen=True)
class Values:
    """A schedule's reward and diversity on the first k prompts, (k,) each."""

    reward: Array
    diversity: Array

    def of(self, name: str) -> Array:
        return self.reward if name == "reward" else self.diversity


@dataclass(frozen=True)
class Trial:
    """A schedule that was tried.

    Attributes:
        number: in the order of the search.
        parameters: its place in the search space.
        point: the schedule.
        fixed: whether it is one of those that people use without a search.
        values: on the prompts that it was measured on, in the search's order.
        slack: by how much it keeps more than is needed on each of them.
        stopped: "" if it was measured on all prompts, else what it surely lacks: "reward" or "diversity".
        estimate: its objective over all prompts; if stopped, the best schedule's plus the mean difference to it.
    """

    number: int
    parameters: Parameters
    point: PointConfig
    fixed: bool
    values: Values = field(repr=False)
    slack: Array = field(repr=False)
    stopped: str
    estimate: float

    @property
    def valid(self) -> bool:
        """Whether it was measured on all prompts and keeps enough."""
        return not self.stopped and bool(self.slack.mean() >= 0)


def check_size(prompts: Sequence[str], images_per_prompt: int, budget: int) -> None:
    """Raise ValueError for fewer than two prompts, or a budget that the fixed schedules and one more would exceed."""
    if len(set(prompts)) < 2:
        raise ValueError(f"a search needs at least 2 different prompts, not {len(set(prompts))}")
    if len(set(prompts)) < len(prompts):
        raise ValueError(f"the prompts of a search must be all different, but {len(prompts)} have some twice")
    smallest = (len(FIXED) + 1) * len(prompts) * images_per_prompt
    if budget < smallest:
        raise ValueError(
            f"a budget of {budget} images is too small: the {len(FIXED)} fixed schedules and one more, on "
            f"{len(prompts)} prompts with {images_per_prompt} images each, take {smallest}. Raise the budget, or give "
            "fewer prompts or fewer images per prompt"
        )


def best(trials: Sequence[Trial], fixed_only: bool = False) -> Trial:
    """The valid trial with the highest objective. There is one: base keeps all diversity, tuned all of its gain."""
    return max((t for t in trials if t.valid and (t.fixed or not fixed_only)), key=lambda t: t.estimate)


def order_of(prompts: Sequence[str], seed: int) -> list[str]:
    """The prompts in the search's order, so that the first k are a random sample of them."""
    return random.Random(seed).sample(list(prompts), len(prompts))


def search(
    measure: Measure, prompts: Sequence[str], images_per_prompt: int, goal: Goal, budget: int, seed: int = 0
) -> Iterator[Trial]:
    """Try schedules until the budget would not do for one more on all prompts; yields each trial.

    Args:
        measure: gives reward and diversity of a schedule on a prompt, always on the same seeds.
        prompts: at least two, all different.
        images_per_prompt: what one call of `measure` costs.
        goal: what to keep.
        budget: images in all; base and tuned model count as well.
        seed: of the proposals and of the prompts' order.

    Raises:
        ValueError: fewer than two prompts, a budget that is too small, or no gain of the tuned model to keep.
        ModuleNotFoundError: Optuna is not installed.
    """
    check_size(prompts, images_per_prompt, budget)
    with tqdm(total=budget, desc="searching", unit="image") as bar:
        yield from _Search(measure, order_of(prompts, seed), images_per_prompt, goal, seed, bar).trials()


class _Search:
    """A search under way."""

    def __init__(self, measure: Measure, prompts: list[str], cost: int, goal: Goal, seed: int, bar: Any):
        self.measure = measure
        self.prompts = prompts
        self.cost = cost
        self.goal = goal
        self.study = _study(seed)
        self.bar = bar
        self.left = bar.total
        self.known: dict[tuple[str, str], tuple[float, float]] = {}
        self.done: dict[str, Trial] = {}
        self.best: Trial | None = None

    def trials(self) -> Iterator[Trial]:
        base, tuned = (self._values(point(parameters), len(self.prompts)) for parameters in (BASE, TUNED))
        low, high = float(base.reward.mean()), float(tuned.reward.mean())
        if self.goal.keep == "reward" and high <= low:
            raise ValueError(
                f"the tuned model's reward ({high:.4g}) is not above the base model's ({low:.4g}) on these prompts, so "
                "there is no gain to keep: check the reward and the prompts, or keep diversity instead"
            )
        self.needed = self.goal.needed(base, tuned)
        first = [*FIXED, *FIRST_LOOKS]
        for parameters in first:
            self.study.enqueue_trial(parameters)
        repeated = 0
        while repeated < PATIENCE and self.left >= self.cost * len(self.prompts):
            asked = self.study.ask()
            parameters = suggest(asked)
            key = point(parameters).model_dump_json()
            repeated = repeated + 1 if key in self.done else 0
            trial = self.done.get(key) or self._try(parameters)
            asked.set_constraint("kept", -float(trial.slack.mean()))
            self.study.tell(asked, trial.estimate)
            if not repeated:
                self.done[key] = trial
                yield trial
            if asked.number >= len(first) and asked.number % 2 == 0:
                promising = along_cap(list(self.done.values()))
                if promising:
                    self.study.enqueue_trial(promising)

    def _try(self, parameters: Parameters) -> Trial:
        config, fixed, m = point(parameters), len(self.done) < len(FIXED), len(self.prompts)
        stopped = ""
        for k in [] if fixed else _rungs(m):
            stopped = self._lacks(self._values(config, k), RISK / (2 * len(_rungs(m))))
            if stopped:
                break
        values = self._values(config, k if stopped else m)
        estimate = float(values.of(self.goal.maximised).mean())
        if stopped and self.best:
            estimate = self.best.estimate + float(self._difference(values).mean())
        slack = self._slack(values)
        trial = Trial(len(self.done), parameters, config, fixed, values, slack, stopped, estimate)
        if trial.valid and (self.best is None or trial.estimate > self.best.estimate):
            self.best = trial
        self._show()
        return trial

    def _values(self, config: PointConfig, k: int) -> Values:
        """A schedule's values on the first k prompts; each is measured, and paid for, once."""
        key = config.model_dump_json()
        for prompt in self.prompts[:k]:
            if (key, prompt) not in self.known:
                self.known[key, prompt] = self.measure(config, prompt)
                self.left -= self.cost
                self.bar.update(self.cost)
        reward, diversity = zip(*(self.known[key, prompt] for prompt in self.prompts[:k]), strict=True)
        return Values(np.array(reward), np.array(diversity))

    def _lacks(self, values: Values, risk: float) -> str:
        """What a schedule surely lacks: "reward", "diversity" or ""."""
        if is_surely_negative(self._slack(values), len(self.prompts), risk):
            return self.goal.keep
        worse = is_surely_negative(self._difference(values), len(self.prompts), risk)
        return self.goal.maximised if worse else ""

    def _slack(self, values: Values) -> Array:
        return values.of(self.goal.keep) - self.needed[: len(values.reward)]

    def _difference(self, values: Values) -> Array:
        """The objective on each prompt so far, less that of the best schedule on the same one."""
        assert self.best is not None
        own = values.of(self.goal.maximised)
        return own - self.best.values.of(self.goal.maximised)[: len(own)]

    def _show(self) -> None:
        if self.best:
            values = self.best.values
            shown = {"reward": f"{values.reward.mean():.3g}", "diversity": f"{values.diversity.mean():.3g}"}
            self.bar.set_postfix(shown | {"left": self.left, "best": label(self.best.point)}, refresh=False)


def _rungs(prompts: int) -> list[int]:
    """After how many of the prompts a schedule may be stopped: 3, 6, 12, ..."""
    return [k for k in (FIRST_RUNG * 2**i for i in range(prompts.bit_length())) if k < prompts]


def is_surely_negative(values: Array, total: int, risk: float) -> bool:
    """Whether the mean over all prompts is negative, as far as a random sample of k of them can tell.

    The upper confidence limit of Student's t with the correction for a finite population of `total` prompts is below 0:
    mean + t(1 - risk, k - 1) · sd · sqrt((1 - k / total) / k) < 0.

    Args:
        values: (k,), paired differences on the prompts seen, k at least 2.
        total: number of prompts, more than k.
        risk: the probability of saying so wrongly, if the values are normal.
    """
    k = len(values)
    spread = values.std(ddof=1) * math.sqrt((1 - k / total) / k)
    return bool(values.mean() + student_quantile(1 - risk, k - 1) * spread < 0)


@cache
def student_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's t for a level from 0.5 to 1: with t = sqrt(ν) tan θ the density is cos(θ)^(ν - 1)."""
    angle = np.linspace(0, np.pi / 2, 10_001)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(2 * level - 1, area / area[-1], angle))


def along_cap(trials: Sequence[Trial]) -> Parameters | None:
    """The untried cap of a known shape that promises the most, if that is more than the best trial has.

    For each shape, objective and slack are taken as straight between its trials and the base model at cap 0, and beyond
    the last trial, up to half as far again, as going on straight.
    """
    rays: dict[Any, dict[float, Trial]] = defaultdict(lambda: {0.0: trials[0]})
    for trial in trials[1:]:
        shape = {key: value for key, value in trial.parameters.items() if key != "cap"}
        rays[tuple(shape.items())][trial.parameters["cap"]] = trial
    promise, found = best(trials).estimate, None
    for shape, known in rays.items():
        caps = np.array(sorted(known))
        wanted = np.arange(CAP_STEP, min(CAP, 1.5 * caps[-1]) + CAP_STEP / 2, CAP_STEP)
        wanted = np.array([cap for cap in wanted.round(2) if cap not in known])
        objective = _straight(wanted, caps, [known[cap].estimate for cap in caps])
        slack = _straight(wanted, caps, [float(known[cap].slack.mean()) for cap in caps])
        for cap, value in zip(wanted[slack >= 0], objective[slack >= 0], strict=True):
            if value > promise:
                promise, found = value, {**dict(shape), "cap": float(cap)}
    return found


def _straight(x: Array, known: Array, values: list[float]) -> Array:
    """Values at x on straight lines through the known ones; after the last, on the last line."""
    slope = (values[-1] - values[-2]) / (known[-1] - known[-2])
    return np.where(x > known[-1], values[-1] + slope * (x - known[-1]), np.interp(x, known, values))


def _study(seed: int) -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a search needs Optuna: pip install 'sfumato[tune]'") from None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            start = len(FIXED) + len(FIRST_LOOKS)
            sampler = optuna.samplers.TPESampler(n_startup_trials=start, seed=seed, multivariate=True, group=True)
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(verbosity)
