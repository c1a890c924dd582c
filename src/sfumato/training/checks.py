"""What can be known to be wrong with a training before it starts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.adapters import ATTENTION, present_targets
from sfumato.rewards import Reward
from sfumato.training.objective import Objective
from sfumato.training.terms import build_penalties


def check_training(
    pipe: Any,
    objective: Objective,
    reward: Reward,
    prompts: list[str],
    config: TrainingConfig,
    sampling: SamplingConfig,
) -> None:
    """Look at everything that a training needs; nothing is sampled.

    Raises:
        ValueError: the reward, the pipeline or the way it is sampled does not suit the objective or a penalty, or a
            prompt, LoRA target or tracker is missing.
    """
    if not prompts:
        raise ValueError("there are no prompts to train on")
    objective.check(reward)
    present_targets(pipe, config.lora.targets or ATTENTION)
    _check_trackers(config.trackers)
    objective.check_sampling(pipe, prompts[0], sampling.call())
    with getattr(objective, "sampler", nullcontext)(pipe):
        for penalty in build_penalties(config.regularizers).values():
            penalty.check_sampling(pipe, prompts[0], sampling.call(), objective)


def _check_trackers(names: list[str]) -> None:
    """accelerate itself leaves out a tracker that is not installed, without a word."""
    from accelerate import tracking

    known = {str(name) for name in tracking.LOGGER_TYPE_TO_CLASS}
    absent = {name.value for name in tracking.LoggerType} - {str(name) for name in tracking.get_available_trackers()}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no tracker {name!r}: training.trackers can be {', '.join(sorted(known))}")
        if name in absent:
            raise ValueError(f"the tracker {name!r} is not installed: pip install {name}, or leave it out")
