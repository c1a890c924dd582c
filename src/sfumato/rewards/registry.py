"""Rewards by name: what a recipe's `reward:` section can say, and how it becomes a `Reward`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from sfumato.rewards import (
    aesthetic,
    clip,
    compose,
    gold,
    hps,
    image,
    image_reward,
    jpeg,
    ocr,
    preference,
    safety,
    siglip,
)
from sfumato.rewards.base import Device, Reward, as_reward
from sfumato.rewards.calibration import normalized
from sfumato.rewards.compose import WeightedSum
from sfumato.rewards.info import RewardInfo
from sfumato.rewards.installed import builder, installed, load
from sfumato.rewards.observed import OBSERVED

FILES = (preference, hps, image_reward, aesthetic, clip, siglip, image, jpeg, ocr, safety, gold, compose)
"""Those whose rewards have a name, in the order in which docs present them."""

DTYPES = ("float32", "bfloat16", "float16")
"""Those that a recipe can name."""

_REWARDS = {info.name: info for file in FILES for info in file.INFO}


def list_rewards() -> list[RewardInfo]:
    """Every reward that has a name: ours, in the order in which docs present them, then those of installed packages.

    Raises:
        ValueError: a reward of a package cannot be loaded, or has the name of another one.
    """
    found = [*_REWARDS.values(), *map(load, installed(_REWARDS).values())]
    return [replace(info, observed="; ".join(filter(None, [info.observed, OBSERVED.get(info.name)]))) for info in found]


RewardConfig = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


def build_reward(config: RewardConfig, device: Device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    """Make a reward from what a recipe says.

    Args:
        config: a name, or `{"name": ..., **options}`, or a list of these, each with a `weight` (1 unless given), for
            their weighted sum. A name is one of `list_rewards()`, or `module:attribute` for your own: a function
            (images, prompts) -> scores, or a class of such, whose constructor takes the options. Any mapping may have
            `normalize`: `"base"`, or `{"mean": ..., "std": ...}`, and `dtype`: `"bfloat16"`, `"float16"` or
            `"float32"`, for itself and its parts. Rewards made of rewards, such as `minimum`, have options that are
            again configurations like this one.
        device: for rewards that hold a model.
        dtype: for rewards that hold a model, where the configuration names none.

    Raises:
        ValueError: unknown name or option, or an import path that leads nowhere.
    """
    build = partial(build_reward, device=device, dtype=dtype)
    if isinstance(config, str):
        config = {"name": config}
    if not isinstance(config, Mapping):
        parts = [dict(part) if isinstance(part, Mapping) else {"name": part} for part in config]
        weights: list[Any] = [part.pop("weight", 1.0) for part in parts]
        return WeightedSum([build(part) for part in parts], weights)
    options = dict(config)
    if "weight" in options:
        return build([options])
    if "normalize" in options:
        how = options.pop("normalize")
        return normalized(build(options), how, options)
    if "dtype" in options:
        dtype = _dtype(options.pop("dtype"))
        return build_reward(options, device, dtype)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"a reward needs a name, but its configuration is {dict(config)}: add name: ...")
    found = _imported(name) if ":" in name else _lookup(name).build
    return as_reward(_call(name, found, options, {"device": device, "dtype": dtype, "build": build}))


def _dtype(name: Any) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"dtype of a reward is one of {', '.join(DTYPES)}, not {name!r}")
    return getattr(torch, name)


def _lookup(name: str) -> RewardInfo:
    others = installed(_REWARDS, name)
    if name in others:
        return load(others[name])
    if name not in _REWARDS:
        known = [*_REWARDS, *installed(_REWARDS)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown reward {name!r}: did you mean {near!r}? There are {', '.join(known)}, "
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
    return builder(found)


def _call(name: str, build: Callable[..., Reward], options: dict[str, Any], placement: dict[str, Any]) -> Reward:
    """Build with the options, and with device, dtype and `build`, which makes parts, where the builder takes them."""
    parameters = inspect.signature(build).parameters
    placed = {key: value for key, value in placement.items() if key in parameters}
    try:
        inspect.signature(build).bind(**options, **placed)
    except TypeError as error:
        known = ", ".join(key for key in parameters if key not in placement) or "none"
        told = f". It is {_REWARDS[name].description}" if name in _REWARDS else ""
        raise ValueError(f"reward {name!r}: {error}; its options are: {known}{told}") from None
    return build(**options, **placed)
