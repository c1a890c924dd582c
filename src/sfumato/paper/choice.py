"""The choice of an operating point in plain words: what, why, how sure, what it costs, and how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from sfumato.frontier.choice import Candidate, Choice, Share
from sfumato.frontier.plane import Threshold
from sfumato.frontier.statistics import Interval
from sfumato.frontier.tuned_runs import TunedRun
from sfumato.paper.usage import usage
from sfumato.report.choice import alarm
from sfumato.report.table import LEGEND, aligned
from sfumato.report.vocabulary import lower_first, metric, number
from sfumato.runs import read_json

ELSEWHERE = ("gold", "vendi", "recall", "distance")
"""Metrics that are told of the chosen point beside those on its axes."""


def choice_text(choice: Choice, run: TunedRun) -> str:
    """The table of operating points, the choice and its reasons, as text for a terminal."""
    known = f"{choice.prompts} prompts"
    known += f" x {choice.images_per_prompt} images" if choice.images_per_prompt else ""
    title = f"{run.name}: {run.model}, tuned on {run.reward}, training seed {run.seed}"
    sentences = map(wrapped, _chosen(choice, run) if choice.chosen else _none(choice, run))
    warnings = [wrapped(f"warning: {warning}") for warning in choice.warnings]
    return "\n".join(
        [title, f"{known}, 95 % intervals over prompts", "", *choice_table(choice), "", _legend(choice), ""]
        + ([*warnings, ""] if warnings else [])
        + [*sentences]
    )


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 110 characters; a line that is indented is meant to be copied and stays whole."""
    return text if text.startswith(" ") else fill(text, 110, break_long_words=False, break_on_hyphens=False)


def choice_table(choice: Choice) -> list[str]:
    """One line per operating point: `*` where no other is better on both axes, `>` for the chosen one."""
    asked = choice.min_diversity or choice.min_reward
    head = ["", "operating point", *choice.axes.values(), "gain kept", "diversity kept", "F/image"]
    rows = [[*head, *(["holds"] if asked else []), "chosen"]]
    for point in choice.candidates:
        mark = ">" if choice.chosen and point.name == choice.chosen.name else "*" if point.nondominated else ""
        row = [mark, point.label, with_limits(point.reward), with_limits(point.diversity)]
        row += [_share(point.gain_kept, choice.min_reward), _share(point.diversity_kept, choice.min_diversity)]
        row.append(_forwards(point.forwards))
        rows.append([*row, *([f"{point.probability:.2f}"] if asked else []), f"{point.frequency:.2f}"])
    return [line.rstrip() for line in aligned(rows)]


def _legend(choice: Choice) -> str:
    return LEGEND + (", > the choice" if choice.chosen else "")


def with_limits(value: Interval) -> str:
    """`2.06 [1.86, 2.36]`."""
    return f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def _share(share: Share | None, least: Threshold | None = None) -> str:
    """`91 % [85, 97]`, without limits where there are none; with more digits if it would round up to the least."""
    if share is None:
        return "\N{EN DASH}"
    digits = _digits(share.mean, least)
    mean, *limits = (f"{100 * value:.{digits}f}" for value in (share.mean, share.low, share.high) if value is not None)
    return f"{mean} % [{', '.join(limits)}]" if len(limits) == 2 else f"{mean} %"


def _digits(share: float, least: Threshold | None) -> int:
    """Decimals of a percentage with which a share below the least is seen to be below; at most 3."""
    if least is None or least.metric or share >= least.value:
        return 0
    return next((digits for digits in range(3) if round(100 * share, digits) < 100 * least.value), 3)


def _forwards(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.4g}"


def _word(key: str) -> str:
    return lower_first(metric(key).label)


def _demand(side: str, threshold: Threshold, choice: Choice) -> str:
    """What a constraint asks, as in "points that ..."."""
    if threshold.metric:
        return f"have {threshold.metric} of at least {threshold.value:g}"
    share, axis = f"{100 * threshold.value:g} %", _word(choice.axes[side])
    if side == "reward":
        return f"keep at least {share} of what tuning gained in {axis}"
    counted = f" (counted from {choice.floor:g}, where all images are alike)" if choice.floor else ""
    return f"keep at least {share} of the base's {axis}{counted}"


def _demands(choice: Choice) -> str:
    sides = {"diversity": choice.min_diversity, "reward": choice.min_reward}
    found = [_demand(side, threshold, choice) for side, threshold in sides.items() if threshold]
    if choice.budget is not None:
        found.append(f"cost at most {choice.budget:g} forwards per image")
    return " and ".join(found)


def _chosen(choice: Choice, run: TunedRun) -> Iterator[str]:
    point = choice.chosen
    assert point is not None
    yield f"Choice: {point.label} ({point.name})"
    yield _why(choice, point)
    yield _keeps(choice, point)
    yield from _elsewhere(choice, point, run.frontier)
    yield from _diagnosis(run, point)
    yield _runner_up(choice)
    yield from _ruled_out(choice)
    yield _uncertain(choice, point)
    if choice.safer:
        yield (
            f"Safer: {choice.safer.label}, which satisfies this with probability {choice.safer.probability:.2f}, at "
            f"{with_limits(choice.safer.reward)} {_word(choice.axes['reward'])} and "
            f"{with_limits(choice.safer.diversity)} {_word(choice.axes['diversity'])}."
        )
    yield _cost(choice, point)
    yield from ["", "Use it:", *(f"  {line}" for line in usage(point, run)), ""]


def _why(choice: Choice, point: Candidate) -> str:
    demands = _demands(choice)
    left = _left(choice)
    if len([candidate for candidate in choice.candidates if candidate.name != "base"]) == 1:
        return "Beside the base there is no other point."
    if len(left) == 1:
        return f"No other point can {demands}."
    among = f"the {len(left)} points that {demands}" if demands else "all points"
    if choice.objective != "balance":
        return f"It has the most {_word(choice.axes[choice.objective])} of {among}."
    return (
        f"It has the best balance of {among}: {point.balance:.2f}, the product of the share of the gain in "
        f"{_word(choice.axes['reward'])} that it keeps and of the lost {_word(choice.axes['diversity'])} that it gives "
        "back."
    )


def _left(choice: Choice) -> list[Candidate]:
    return [point for point in choice.candidates if not point.fails and point.name != "base"]


def _keeps(choice: Choice, point: Candidate) -> str:
    ends = {end.name: end for end in choice.candidates if end.name in ("base", "tuned")}
    parts = []
    for side, share, of in (
        ("reward", point.gain_kept, "what tuning gained in"),
        ("diversity", point.diversity_kept, "the base's"),
    ):
        value, base, tuned = (getattr(p, side) for p in (point, ends["base"], ends["tuned"]))
        levels = f"{with_limits(value)}; base {number(base.mean)}, tuned {number(tuned.mean)}"
        kept = f"keeps {_share(share)} of {of}" if share else "has"
        parts.append(f"{kept} {_word(choice.axes[side])} {f'({levels})' if share else levels}")
    return f"It {', and '.join(parts)}."


def _elsewhere(choice: Choice, point: Candidate, frontier: Mapping[str, Any]) -> Iterator[str]:
    """Other metrics of the chosen point, and what it does to prompts that have nothing to do with the tuning."""
    entries = {entry["name"]: entry for entry in frontier["points"]}
    own, base, tuned = (entries[name]["metrics"] for name in (point.name, "base", "tuned"))
    told = [key for key in ELSEWHERE if key in own and key not in choice.axes.values()]
    words = [
        f"{_word(key)} {with_limits(Interval(**own[key]))} (base {number(base[key]['mean'])}, tuned "
        f"{number(tuned[key]['mean'])})"
        for key in told
    ]
    if words:
        yield f"Elsewhere: {'; '.join(words)}."
    drift = {name: (entries[name].get("drift") or {}).get("distance_to_base") for name in (point.name, "tuned")}
    told_of = [with_limits(Interval(**value)) for value in drift.values() if value]
    if len(told_of) == 2:
        moved, furthest = told_of
        yield f"On unrelated prompts it moved {moved} away from the base's images (tuned {furthest})."


def _diagnosis(run: TunedRun, point: Candidate) -> Iterator[str]:
    """What the alarm thinks of the point, where it was asked."""
    path = Path(run.path) / "evaluation" / "diagnosis.json"
    if path.exists() and (found := alarm(read_json(path), point.name)):
        yield f"Diagnosis: {found}; `sfumato diagnose {run.path} --point {point.name}` shows why."


def _runner_up(choice: Choice) -> str:
    other = choice.runner_up
    if other is None:
        return "There is no runner-up: no other point satisfies this."
    parts = []
    for side in ("reward", "diversity"):
        value = choice.versus[side]
        less = value.mean >= 0
        low, high = (value.low, value.high) if less else (-value.high, -value.low)
        size = with_limits(Interval(abs(value.mean), low, high))
        parts.append(f"{size} {'less' if less else 'more'} {_word(choice.axes[side])}")
    decisive = choice.versus["objective"]
    what = "balance" if choice.objective == "balance" else _word(choice.axes[choice.objective])
    noise = "beyond the noise of the prompts" if decisive.low > 0 else "within the noise of the prompts: take either"
    size = f", {with_limits(decisive)}," if choice.objective == "balance" else ""
    return (
        f"Runner-up: {other.label} ({other.name}), with {' and '.join(parts)}. The paired difference in {what}{size} "
        f"is {noise}."
    )


def _ruled_out(choice: Choice) -> Iterator[str]:
    reasons = {"diversity": "keep too little diversity", "reward": "keep too little reward", "budget": "cost too much"}
    parts = []
    for reason, words in reasons.items():
        labels = [point.label for point in choice.candidates if reason in point.fails and point.name != "base"]
        if labels:
            parts.append(f"{', '.join(labels)} ({words})")
    if parts:
        yield f"Ruled out: {'; '.join(parts)}."


def _uncertain(choice: Choice, point: Candidate) -> str:
    others = sorted((other for other in choice.candidates if other != point), key=lambda other: -other.frequency)
    rivals = [f"{other.label} on {other.frequency:.0%}" for other in others if other.frequency >= 0.05]
    rivals += [f"none on {choice.none:.0%}"] if choice.none >= 0.01 else []
    text = f"this very point is chosen on {point.frequency:.0%} of them" + (
        f" ({', '.join(rivals)})." if rivals else "."
    )
    if choice.min_diversity or choice.min_reward:
        return f"How sure: on resampled prompts it satisfies this with probability {point.probability:.2f}, and {text}"
    return f"How sure: if the prompts are resampled, {text}"


def _cost(choice: Choice, point: Candidate) -> str:
    base = next(other.forwards for other in choice.candidates if other.name == "base")
    if point.forwards is None or not base:
        return "Cost: the run did not count forwards."
    times = f"{point.forwards / base:.2g} times the base's {base:.4g}" if point.forwards != base else "like the base"
    return f"Cost: {point.forwards:.4g} forwards per image, {times}."


def _none(choice: Choice, run: TunedRun) -> Iterator[str]:
    reward, diversity, demands = _word(choice.axes["reward"]), _word(choice.axes["diversity"]), _demands(choice)
    base = next(point for point in choice.candidates if point.name == "base")
    but_base = "" if base.fails else " but the base model itself"
    if all("budget" in point.fails for point in choice.candidates if point.name != "base"):
        cheapest = min(point.forwards or 0.0 for point in choice.candidates if point.name != "base")
        yield (
            f"Choice: none. No operating point{but_base} costs at most {choice.budget:g} forwards per image. "
            f"The cheapest costs {cheapest:.4g}: raise --budget to that."
        )
        return
    if not (choice.min_diversity or choice.min_reward):
        among = f"of the points that {demands}, " if demands else ""
        yield (
            f"Choice: none. There is nothing to balance: {among}none has both more {reward} than the base and more "
            f"{diversity} than the tuned model. Say what to keep with --min-diversity or --min-reward, or choose other "
            "axes with --reward and --diversity."
        )
        return
    yield f"Choice: none. No operating point{but_base} can {demands}."
    point = choice.nearest
    assert point is not None
    yield f"Nearest: {point.label} ({point.name}), which {_nearly(choice, point, run.frontier)}. {_short(choice)}"
    yield "Try: ask for less, or measure points in between: add them to evaluation.points."
    if keep := _keep(choice):
        yield "Or let a search find a schedule:"
        yield f"  sfumato tune-schedule {shlex.quote(run.path)} --keep {keep}"


def _nearly(choice: Choice, point: Candidate, frontier: Mapping[str, Any]) -> str:
    """What the nearest point has, in the terms in which it was asked."""
    metrics = next(entry["metrics"] for entry in frontier["points"] if entry["name"] == point.name)
    asked = [threshold.metric for threshold in (choice.min_diversity, choice.min_reward) if threshold]
    found = [f"has {name} {with_limits(Interval(**metrics[name]))}" for name in dict.fromkeys(filter(None, asked))]
    sides = (point.gain_kept, choice.min_reward, "gain"), (point.diversity_kept, choice.min_diversity, "diversity")
    kept = [f"{_share(share, least)} of the {what}" for share, least, what in sides if share]
    found += [f"keeps {' and '.join(kept)}"] if kept else []
    return f"{' and '.join(found)}, at {_forwards(point.forwards)} forwards per image"


def _short(choice: Choice) -> str:
    """By how much the nearest point misses what was asked: "It falls short by 4.00 [3.00, 5.00] percentage points"."""
    parts = []
    asked = {"diversity": (choice.min_diversity, "diversity"), "reward": (choice.min_reward, "gain")}
    for side, lack in choice.lacks.items():
        threshold, whole = asked[side]
        assert threshold is not None
        factor, of = (1, f"in {threshold.metric}") if threshold.metric else (100, f"percentage points of the {whole}")
        limits = ", ".join(number(factor * limit) for limit in (lack.low, lack.high) if limit is not None)
        parts.append(f"{number(factor * lack.mean)} {f'[{limits}] ' if limits else ''}{of}")
    return f"It falls short by {' and '.join(parts)}."


def _keep(choice: Choice) -> str | None:
    """The constraint as `sfumato tune-schedule` takes it, if it is one that a search knows."""
    known = {"diversity": (choice.min_diversity, "vendi"), "reward": (choice.min_reward, "reward")}
    for side, (threshold, axis) in known.items():
        if threshold and threshold.metric is None and choice.axes[side] == axis:
            return f"{side}={threshold.value:g}"
    return None
