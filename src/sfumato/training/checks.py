"""What can be known to be wrong with a training before it starts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.rewards import Reward
from sfumato.training.data_term import build_data_term
from sfumato.training.memory import check_memory
from sfumato.training.monitor import Monitor
from sfumato.training.objective import Objective
from sfumato.training.optimizers import check_optimizer
from sfumato.training.terms import build_penalties
from sfumato.training.tuned import check_weights
from sfumato.training.watch import PROXY


def check_training(
    pipe: Any,
    objective: Objective,
    reward: Reward,
    prompts: list[str],
    config: TrainingConfig,
    sampling: SamplingConfig,
    monitor: Monitor | None = None,
) -> None:
    """Look at everything that a training needs; nothing is sampled.

    Raises:
        ValueError: the reward, the pipeline or the way it is sampled does not suit the objective or a penalty, or a
            prompt, LoRA target, tracker or what watching needs is missing.
    """
    if isinstance(prompts, str):
        raise ValueError(f"the training prompts are one text, {prompts!r}: give a list of texts")
    if not prompts:
        raise ValueError("there are no prompts to train on")
    objective.check(reward)
    if hasattr(objective, "check_images"):
        objective.check_images(prompts, config)
    check_weights(pipe, config)
    _check_trackers(config.trackers)
    check_memory(config.memory, pipe, reward)
    check_optimizer(config, pipe.device)
    _check_watching(config, monitor)
    objective.check_sampling(pipe, prompts[0], sampling.call())
    if data := build_data_term(config.regularizers):
        data.check_sampling(pipe, prompts[0], sampling.call())
    with getattr(objective, "sampler", nullcontext)(pipe):
        for penalty in build_penalties(config.regularizers).values():
            penalty.check_sampling(pipe, prompts[0], sampling.call(), objective)


def _check_watching(config: TrainingConfig, monitor: Monitor | None) -> None:
    if config.watch is None and config.floor is None:
        return
    if monitor is None or config.monitor_every is None:
        raise ValueError(
            "training.watch and training.floor go by looks at held-out prompts: give the recipe an evaluation and "
            "training.monitor_every a number"
        )
    for name in (config.watch and config.watch.rewards) or []:
        if name not in monitor.rewards or name == PROXY:
            known = ", ".join(sorted({*monitor.rewards} - {PROXY}))
            raise ValueError(f"training.watch.rewards: there is no held-out reward {name!r}; known: {known or 'none'}")


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
