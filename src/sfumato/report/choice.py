"""Which point to use: the best balance, and what wins when more or less of the diversity has to stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato.change import unchanged_axes
from sfumato.report.vocabulary import lower_first, metric, number, signed

END_POINTS = ("base", "tuned")


@dataclass(frozen=True)
class Balance:
    """An operating point by what it keeps of each.

    Attributes:
        point: its entry in frontier.json.
        kept: share of the reward that tuning gained.
        regained: share of the diversity that tuning lost.
    """

    point: dict[str, Any]
    kept: float
    regained: float

    @property
    def product(self) -> float:
        """Both shares together, each counted from 0 to 1."""
        return min(max(self.kept, 0), 1) * min(max(self.regained, 0), 1)


@dataclass(frozen=True)
class Stage:
    """What to use while at least a share between `above` and `regained` of the lost diversity has to come back.

    Attributes:
        point: its entry in frontier.json.
        above: share from which on it is the choice.
        kept: share of the reward gain, as mean, low and high of the point's own interval.
        regained: share of the lost diversity, likewise.
        against: how it differs from the choice at the next priority, and whether that is beyond noise.
    """

    point: dict[str, Any]
    above: float
    kept: tuple[float, float, float]
    regained: tuple[float, float, float]
    against: str


def mean(point: dict[str, Any] | None, key: str) -> float | None:
    """A point's figure, or None where it was not measured."""
    entry = (point or {}).get("metrics", {}).get(key) or {}
    return entry.get("mean")


def end_point(frontier: dict[str, Any], method: str) -> dict[str, Any] | None:
    """The base or the tuned model among the points."""
    return next((point for point in frontier["points"] if point.get("method") == method), None)


def interior(frontier: dict[str, Any]) -> list[dict[str, Any]]:
    """The points that are neither base nor tuned."""
    return [point for point in frontier["points"] if point["method"] not in END_POINTS]


def balances(frontier: dict[str, Any]) -> list[Balance]:
    """Every point between base and tuned with its two shares, the best balance first.

    None at all if tuning gained no reward or lost no diversity, or so little that a share would be one of noise.
    """
    ends = _ends(frontier)
    if ends is None:
        return []
    found = [
        Balance(point, shares[0][0], shares[1][0]) for point in interior(frontier) if (shares := _shares(point, ends))
    ]
    return sorted(found, key=lambda balance: -balance.product)


def best_balance(frontier: dict[str, Any]) -> Balance | None:
    """The point with the largest product of both shares, each counted up to 1; None if no point keeps some of both."""
    return next((balance for balance in balances(frontier) if balance.product > 0), None)


def priorities(frontier: dict[str, Any]) -> list[Stage]:
    """The point with most reward for every share of the lost diversity that has to come back, from 0 upwards.

    None at all where `balances` finds none.
    """
    ends = _ends(frontier)
    if ends is None:
        return []
    found = [(point, shares) for point in frontier["points"] if (shares := _shares(point, ends))]
    stairs: list[tuple[dict[str, Any], Any]] = []
    for point, shares in sorted(found, key=lambda item: (-item[1][1][0], -item[1][0][0])):
        if not stairs or shares[0][0] > stairs[-1][1][0][0]:
            stairs.append((point, shares))
    stairs.reverse()
    stages = []
    for i, (point, (kept, regained)) in enumerate(stairs):
        above = stairs[i - 1][1][1][0] if i else 0.0
        if regained[0] < 0 or above >= 1:
            continue
        following = stairs[i + 1][0] if i + 1 < len(stairs) else None
        stages.append(Stage(point, max(above, 0.0), kept, regained, _against(point, following, frontier)))
    return stages


def _ends(frontier: dict[str, Any]) -> tuple[tuple[str, float, float], tuple[str, float, float]] | None:
    """For reward and diversity the key, the value at share 0 and what lies between shares 0 and 1."""
    reward, diversity = frontier["axes"]["reward"], frontier["axes"]["diversity"]
    base, tuned = (end_point(frontier, method) for method in END_POINTS)
    values = [mean(point, key) for key in (reward, diversity) for point in (base, tuned)]
    if None in values:
        return None
    low, high, all_of_it, floor = values
    gain, loss = high - low, all_of_it - floor  # type: ignore[operator]
    if gain <= 0 or loss <= 0 or unchanged_axes(frontier):
        return None
    return (reward, low, gain), (diversity, floor, loss)  # type: ignore[return-value]


def _shares(point: dict[str, Any], ends: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """The two shares of a point, each as mean, low and high; None if one of the figures is missing."""
    found = []
    for key, zero, width in ends:
        entry = point["metrics"].get(key) or {}
        if entry.get("mean") is None:
            return None
        values = [entry["mean"] if entry.get(end) is None else entry[end] for end in ("mean", "low", "high")]
        found.append(tuple((value - zero) / width for value in values))
    return found[0], found[1]


def alarm(diagnosis: dict[str, Any], name: str) -> str:
    """What `sfumato diagnose` thinks of a point and why, "hacked (rewards, modes)"; empty if it was not asked."""
    for entry in diagnosis.get("points") or []:
        if entry["name"] == name:
            signs = [sign for sign, level in (entry.get("levels") or {}).items() if level in ("alarm", "warn")]
            return f"{entry['verdict']} ({', '.join(signs)})" if signs else entry["verdict"]
    return ""


def difference(frontier: dict[str, Any], a: str, b: str, key: str) -> dict[str, Any] | None:
    """The simultaneous difference a - b of one figure, whichever way round frontier.json holds it."""
    for row in frontier["differences"]:
        if row["metric"] == key and (row["a"], row["b"]) == (a, b):
            return row
        if row["metric"] == key and (row["a"], row["b"]) == (b, a):
            return row | {"a": a, "b": b, "mean": -row["mean"], "low": -row["high"], "high": -row["low"]}
    return None


def _against(point: dict[str, Any], other: dict[str, Any] | None, frontier: dict[str, Any]) -> str:
    if other is None:
        return ""
    told = []
    for key in (frontier["axes"]["reward"], frontier["axes"]["diversity"]):
        row = difference(frontier, point["name"], other["name"], key)
        if row is None:
            return ""
        sure = "beyond noise" if row["low"] > 0 or row["high"] < 0 else "within noise"
        label = lower_first(metric(key).label)
        told.append(f"{label} {signed(row['mean'])} ({number(row['low'])} to {number(row['high'])}), {sure}")
    return f"Against {other['label']}, the choice if more has to come back: {'; '.join(told)}."
