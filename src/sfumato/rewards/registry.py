"""Rewards by name: what a recipe's `reward:` section can say, and how it becomes a `Reward`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sfumato.rewards import clip, gold, image, preference
from sfumato.rewards.base import Reward, as_reward
from sfumato.rewards.compose import WeightedSum
from sfumato.rewards.info import RewardInfo

FILES = (preference, clip, image, gold)
"""Those whose rewards have a name, in the order in which docs present them."""

_REWARDS = {info.name: info for file in FILES for info in file.INFO}


def list_rewards() -> list[RewardInfo]:
    """Every reward that has a name, in the order in which docs present them."""
    return list(_REWARDS.values())


RewardConfig = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def build_reward(config: RewardConfig, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    """Make a reward from what a recipe says.

    Args:
        config: a name, or `{"name": ..., **options}`, or a list of these, each with a `weight` (1 unless given), for
            their weighted sum. A name is one of `list_rewards()`, or `module:attribute` for your own: a function
            (images, prompts) -> scores, or a class of such, whose constructor takes the options.
        device: for rewards that hold a model.
        dtype: for rewards that hold a model.

    Raises:
        ValueError: unknown name or option, or an import path that leads nowhere.
    """
    if isinstance(config, str):
        config = {"name": config}
    if not isinstance(config, Mapping):
        parts = [dict(part) if isinstance(part, Mapping) else {"name": part} for part in config]
        weights = [float(part.pop("weight", 1.0)) for part in parts]
        return WeightedSum([build_reward(part, device, dtype) for part in parts], weights)
    options = dict(config)
    if "weight" in options:
        return build_reward([options], device, dtype)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"a reward needs a name, but its configuration is {dict(config)}: add name: ...")
    build = _imported(name) if ":" in name else _lookup(name).build
    return as_reward(_call(name, build, options, {"device": device, "dtype": dtype}))


def _lookup(name: str) -> RewardInfo:
    if name not in _REWARDS:
        near = difflib.get_close_matches(name, _REWARDS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown reward {name!r}: did you mean {near!r}? There are {', '.join(_REWARDS)}, "
            "and module:attribute for one of your own"
        )
    return _REWARDS[name]


def _imported(path: str) -> Callable[..., Any]:
    """A builder for the user's own reward at module:attribute; the working directory counts as importable."""
    module_name, _, attribute = path.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load the reward {path!r}: {error}. Write module:attribute") from error
    finally:
        sys.path.pop(0)
    return found if inspect.isclass(found) else lambda: found


def _call(name: str, build: Callable[..., Reward], options: dict[str, Any], placement: dict[str, Any]) -> Reward:
    """Build with the options, and with device and dtype where the builder takes them."""
    parameters = inspect.signature(build).parameters
    placed = {key: value for key, value in placement.items() if key in parameters}
    try:
        inspect.signature(build).bind(**options, **placed)
    except TypeError as error:
        known = ", ".join(key for key in parameters if key not in placement) or "none"
        raise ValueError(f"reward {name!r}: {error}; its options are: {known}") from None
    return build(**options, **placed)
