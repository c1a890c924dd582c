"""What tuning changed, as `frontier.json` holds it: one judgement of "beyond noise" for all who read that file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Change = tuple[float, float, float]
"""Tuned minus base, paired over the prompts: mean and 95 % limits."""


def tuning_change(frontier: Mapping[str, Any], metric: str) -> Change | None:
    """The change of a metric by tuning; None where the file does not say, as of pooled figures."""
    versus = next((point.get("versus_tuned") or {} for point in frontier["points"] if point["name"] == "base"), {})
    mean, low, high = ((versus.get(metric) or {}).get(key) for key in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return None
    return 0 - mean, 0 - high, 0 - low  # -mean would make a negative zero


def within_noise(frontier: Mapping[str, Any], metric: str) -> bool:
    """Whether the interval of the change holds 0; False where the file does not say."""
    change = tuning_change(frontier, metric)
    return change is not None and change[1] <= 0 <= change[2]


def unchanged_axes(frontier: Mapping[str, Any]) -> dict[str, Change]:
    """The axes that tuning did not change beyond noise; with any of them there is no scale from base to tuned."""
    changes = {metric: tuning_change(frontier, metric) for metric in frontier["axes"].values()}
    return {metric: change for metric, change in changes.items() if change and within_noise(frontier, metric)}
