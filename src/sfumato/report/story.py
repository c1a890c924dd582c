"""What happened, in sentences that are computed from the figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from sfumato.report.vocabulary import lower_first, metric, number

END_POINTS = ("base", "tuned")


@dataclass(frozen=True)
class Balance:
    """An operating point between base and tuned, by what it keeps of each.

    Attributes:
        point: its entry in frontier.json.
        kept: share of the reward that tuning gained.
        regained: share of the diversity that tuning lost.
    """

    point: dict[str, Any]
    kept: float
    regained: float


def mean(point: dict[str, Any] | None, key: str) -> float | None:
    """A point's figure, or None where it was not measured."""
    entry = (point or {}).get("metrics", {}).get(key) or {}
    return entry.get("mean")


def end_point(frontier: dict[str, Any], method: str) -> dict[str, Any] | None:
    """The base or the tuned model among the points."""
    return next((point for point in frontier["points"] if point.get("method") == method), None)


def best_balance(frontier: dict[str, Any]) -> Balance | None:
    """The point with the largest product of both shares, each counted up to 1.

    None if no point keeps some of both, or if the intervals of base and tuned overlap, so that a share would be noise.
    """
    axes = (frontier["axes"]["reward"], frontier["axes"]["diversity"])
    base, tuned = (end_point(frontier, method) for method in END_POINTS)
    gain, loss = _difference(tuned, base, axes[0]), _difference(base, tuned, axes[1])
    if not gain or not loss or gain < 0 or loss < 0 or any(_overlap(base, tuned, key) for key in axes):
        return None
    found = []
    for point in interior(frontier):
        kept, regained = _difference(point, base, axes[0]), _difference(point, tuned, axes[1])
        if kept is not None and regained is not None:
            found.append(Balance(point, kept / gain, regained / loss))
    best = max(found, key=_product, default=None)
    return best if best and _product(best) > 0 else None


def interior(frontier: dict[str, Any]) -> list[dict[str, Any]]:
    """The points that are neither base nor tuned."""
    return [point for point in frontier["points"] if point["method"] not in END_POINTS]


def _difference(a: dict[str, Any] | None, b: dict[str, Any] | None, key: str) -> float | None:
    first, second = mean(a, key), mean(b, key)
    return None if first is None or second is None else first - second


def _product(balance: Balance) -> float:
    return min(max(balance.kept, 0), 1) * min(max(balance.regained, 0), 1)


def headline(frontier: dict[str, Any]) -> list[str]:
    """What tuning did, what the judge thinks of it, and which point keeps most of both."""
    base, tuned = end_point(frontier, "base"), end_point(frontier, "tuned")
    points, prompts = len(frontier["points"]), len(frontier["prompts"])
    sentences = []
    changes = [_change(base, tuned, frontier["axes"][axis]) for axis in ("reward", "diversity")]
    if all(changes):
        sentences.append(f"Tuning {changes[0]} and {changes[1]}.")
    else:
        sentences.append(f"Measured: {plural(points, 'operating point')} on {plural(prompts, 'prompt')}.")
    gold = _change(base, tuned, "gold") if frontier["axes"]["reward"] != "gold" else None
    if gold:
        sentences.append(f"It {gold}, which tuning never saw.")
    best = best_balance(frontier)
    if best:
        others = len(interior(frontier)) - 1
        sentences.append(
            f"{capitalise(best.point['label'])} keeps {percent(best.kept)} of the reward gain and gives back "
            f"{percent(best.regained)} of the lost diversity{', the best balance of all points' if others else ''}."
        )
    return sentences


def _change(base: dict[str, Any] | None, tuned: dict[str, Any] | None, key: str) -> str | None:
    """ "raised the reward from 1.20 to 3.40"; says so where the intervals overlap."""
    old, new = mean(base, key), mean(tuned, key)
    if old is None or new is None:
        return None
    verb = "raised" if new > old else "cut" if new < old else "left"
    text = f"{verb} the {lower_first(metric(key).label)} "
    text += f"at {number(new)}" if new == old else f"from {number(old)} to {number(new)}"
    return text + (" (the intervals overlap)" if new != old and _overlap(base, tuned, key) else "")


def _overlap(a: dict[str, Any] | None, b: dict[str, Any] | None, key: str) -> bool:
    first, second = (point["metrics"][key] for point in (a, b) if point)
    if not all(entry.get(end) is not None for entry in (first, second) for end in ("low", "high")):
        return False
    return first["low"] <= second["high"] and second["low"] <= first["high"]


def verdict(frontier: dict[str, Any]) -> str | None:
    """Which method has the largest hypervolume and how sure that is against the next one.

    Methods that have another number of points than most are left out: with more points a hypervolume can only grow.
    """
    methods = [m for m in frontier.get("methods", []) if (m.get("hypervolume") or {}).get("mean") is not None]
    equal = [m for m in methods if not m.get("points_differ")]
    if len(equal) < 2:
        return None
    first, second = sorted(equal, key=lambda m: -m["hypervolume"]["mean"])[:2]
    a, b = first["name"], second["name"]
    text = "Of the methods with equally many points, " if len(equal) < len(methods) else ""
    text += f"{a} has the largest hypervolume, {number(first['hypervolume']['mean'])}"
    chances = {(c["a"], c["b"]): c["probability"] for c in frontier.get("comparisons", [])}
    chances |= {(b, a): 1 - chance for (a, b), chance in chances.items()}
    chance = chances.get((a, b))
    if chance is None:
        return f"{text}; next comes {b} with {number(second['hypervolume']['mean'])}."
    return f"{text}; with bootstrap probability {percent(chance)} it exceeds that of {b}, which comes next."


def title(info: dict[str, Any], recipe: dict[str, Any]) -> str:
    """What was tuned on what: the recipe's description, or else its model and reward, or else the run's name."""
    if recipe.get("description"):
        return capitalise(recipe["description"].strip().rstrip("."))
    model = PurePath((recipe.get("pipeline") or {}).get("path") or "").name
    rewards = recipe.get("reward") or []
    names = [str(r["name"]) for r in (rewards if isinstance(rewards, list) else [rewards]) if r.get("name")]
    return f"{model}, tuned on {' + '.join(names)}" if model and names else info["name"]


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    return f"{round(100 * share)}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
