"""Rewards that other installed packages bring, by the entry point group `sfumato.rewards`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sfumato.rewards.base import UNBOUNDED
from sfumato.rewards.info import RewardInfo

GROUP = "sfumato.rewards"


def installed(taken: Collection[str], name: str | None = None) -> dict[str, EntryPoint]:
    """Name -> entry point of the rewards that installed packages bring.

    Args:
        taken: names of our own.
        name: look for this one only.

    Raises:
        ValueError: two rewards have the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP, name=name) if name else entry_points(group=GROUP):
        before = found.setdefault(entry.name, entry)
        if entry.name in taken or before.value != entry.value:
            other = "sfumato itself" if entry.name in taken else _package(before)
            raise ValueError(
                f"the package {_package(entry)} brings a reward {entry.name!r}, and so does {other}: uninstall "
                f"{_package(entry)}, or rename its entry point in {GROUP}"
            )
    return found


def builder(found: Any) -> Callable[..., Any]:
    """What takes the options of a recipe: a class itself; a function is the reward, and takes none."""
    return found if inspect.isclass(found) else lambda: found


def load(entry: EntryPoint) -> RewardInfo:
    """What is known of an installed reward: its entry point leads to what `module:attribute` may be, or a `RewardInfo`.

    Raises:
        ValueError: it cannot be imported, or is neither.
    """
    try:
        found = entry.load()
    except Exception as error:  # whatever another package's code raises
        raise ValueError(f"the reward {entry.name!r} of {_package(entry)} cannot be loaded: {error!r}") from error
    if isinstance(found, RewardInfo):
        return replace(found, name=entry.name, package=_package(entry))
    if not callable(found):
        raise ValueError(
            f"the reward {entry.name!r} of {_package(entry)} is {found!r}: it has to be a function (images, prompts), "
            "a class of such, or a sfumato.rewards.RewardInfo"
        )
    description = (found.__doc__ or "no description").strip().partition("\n")[0]
    bounds = getattr(found, "range", UNBOUNDED)
    words = f"[{bounds[0]:g}, {bounds[1]:g}]" if isinstance(bounds, tuple) else "depends on its options"
    gradient = bool(getattr(found, "differentiable", True))
    return RewardInfo(entry.name, description, words, gradient, builder(found), package=_package(entry))


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module
