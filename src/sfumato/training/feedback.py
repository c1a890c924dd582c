"""Hold a share of the base's diversity: the strength of all regularizers as a function of the looks so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from sfumato.config import FloorConfig, TrainingConfig
from sfumato.training.watch import Look

LOOSENED = 0.5
"""Diversity that is lost is harder to have back than reward that was not yet gained."""


def strength(kept: Sequence[float], floor: FloorConfig) -> float:
    """What all regularizers are multiplied by: strength <- strength · exp(gain · (keep - kept)) after every look.

    This is an integral controller of log strength: it rests only where `keep` is met, whatever the coefficients. A
    difference counts from the edge of the dead zone on, and not where the share came nearer to `keep` by more than the
    dead zone since the look before: else the time that a model takes to move would use up the strength. It falls half
    as fast as it rises.

    Args:
        kept: share of the base's diversity at every look, from update 0 on, where it is 1.
    """
    low, high = map(math.log, floor.bounds)
    value = 0.0
    for before, now in pairwise(kept):
        lack = floor.keep - now
        nearer = math.copysign(now - before, (now - before) * lack)
        if abs(lack) > floor.dead_zone >= nearer:
            change = floor.gain * (lack - math.copysign(floor.dead_zone, lack))
            value += change if change > 0 else LOOSENED * change
            value = min(max(value, low), high)
    return math.exp(value)


def strength_after(looks: Sequence[Look], config: TrainingConfig) -> float:
    """What all regularizers are multiplied by in the update after these looks; 1 without a floor."""
    if config.floor is None:
        return 1.0
    assert config.monitor_every is not None
    regular = [look for look in looks if look["update"] % config.monitor_every == 0]  # not that at an earlier end
    return strength([look["eval/kept"] for look in regular], config.floor)
