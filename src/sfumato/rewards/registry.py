"""Rewards by name: what a recipe's `reward:` section can say, and how it becomes a `Reward`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sfumato.rewards.base import Reward, as_reward
from sfumato.rewards.clip import CLIPScore
from sfumato.rewards.compose import WeightedSum
from sfumato.rewards.gold import JudgeGold
from sfumato.rewards.image import Colourfulness, JPEGCompressibility, JPEGDistance, JPEGIncompressibility
from sfumato.rewards.preference import PreferenceReward

BUNDLED = "emoji64"


@dataclass(frozen=True)
class RewardInfo:
    """What `list_rewards` says of a reward.

    Attributes:
        name: what a recipe calls it.
        description: one line.
        range: of its values, in words.
        differentiable: whether it can be trained on by back-propagation.
        build: makes it from the options of the recipe.
    """

    name: str
    description: str
    range: str
    differentiable: bool
    build: Callable[..., Reward]


def _clip_score(model: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    from sfumato import emoji64

    return CLIPScore(emoji64.scorer_path() if model == BUNDLED else model, device, dtype)


def _preference(
    model: str,
    processor: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Reward:
    from sfumato import emoji64

    return PreferenceReward(emoji64.path("preference") if model == BUNDLED else model, processor, device, dtype)


def _pickscore(device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Reward:
    processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    return PreferenceReward("yuvalkirstain/PickScore_v1", processor, device, dtype)


_REWARDS = {
    info.name: info
    for info in (
        RewardInfo(
            "preference",
            "logit of a reward learned from pairs; model: folder, hub id or emoji64",
            "unbounded logit, [-100, 100] without a head",
            True,
            _preference,
        ),
        RewardInfo(
            "pickscore",
            "PickScore v1: what people chose on Pick-a-Pic (CLIP-H, 4 GB)",
            "[-100, 100], observed 17 to 24",
            True,
            _pickscore,
        ),
        RewardInfo(
            "clip_score",
            "100 max(cos(image, text), 0); model: folder, hub id or emoji64",
            "[0, 100], observed 15 to 40",
            True,
            _clip_score,
        ),
        RewardInfo(
            "jpeg_compressibility",
            "minus the kilobytes of a JPEG of quality 95",
            "(-inf, 0]",
            False,
            JPEGCompressibility,
        ),
        RewardInfo(
            "jpeg_incompressibility", "kilobytes of a JPEG of quality 95", "[0, inf)", False, JPEGIncompressibility
        ),
        RewardInfo(
            "jpeg_distance", "minus the distance to the image's own JPEG of quality 80", "(-inf, 0]", True, JPEGDistance
        ),
        RewardInfo("colourfulness", "Hasler & Süsstrunk's M", "[0, 377], observed 0 to 150", True, Colourfulness),
        RewardInfo(
            "gold", "emoji-64's judge: P(house style) x P(right subcategory)", "[0, 1]", False, JudgeGold.emoji64
        ),
    )
}


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
