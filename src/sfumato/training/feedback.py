"""Hold a share of the base's diversity: the strength of all regularizers as a function of the looks so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfumato.config import FloorConfig, TrainingConfig
from sfumato.training.watch import Look

AHEAD, OVER = 3, 2
"""Looks. An optimiser with momentum answers late: without looking ahead, strength swings. The trend is taken over two
looks, since over one it would answer to its own last change."""


def strength(kept: Sequence[float], floor: FloorConfig) -> float:
    """What all regularizers are multiplied by: strength <- strength · exp(gain · (keep - ahead)) after every look.

    `ahead` is the share of diversity some looks ahead, if it goes on as over the last ones; it counts from none to that
    of the base. So log strength is a proportional plus an integral controller's, which rests only where `keep` is met,
    whatever the coefficients. A difference counts from the edge of the dead zone on.

    Args:
        kept: share of the base's diversity at every look, from update 0 on, where it is 1.
    """
    low, high = map(math.log, floor.bounds)
    value = 0.0
    for number, now in enumerate(kept[1:], start=1):
        before = max(0, number - OVER)
        trend = (now - kept[before]) / (number - before)
        lack = floor.keep - min(max(now + AHEAD * trend, 0.0), 1.0)
        value += floor.gain * math.copysign(max(0.0, abs(lack) - floor.dead_zone), lack)
        value = min(max(value, low), high)
    return math.exp(value)


def strength_after(looks: Sequence[Look], config: TrainingConfig) -> float:
    """What all regularizers are multiplied by in the update after these looks; 1 without a floor."""
    if config.floor is None:
        return 1.0
    assert config.monitor_every is not None
    regular = [look for look in looks if look["update"] % config.monitor_every == 0]  # not that at an earlier end
    return strength([look["eval/kept"] for look in regular], config.floor)
