"""What objectives that back-propagate the reward itself have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.rollout import Rollout
from sfumato.rewards import Reward
from sfumato.training.objective import Batch, Outcome
from sfumato.training.terms import Trajectory


def outcomes(batch: Batch, sampled: Rollout, last_steps: int) -> Iterator[Outcome]:
    """Minus the mean reward of sampled images, and the penalties.

    Args:
        sampled: with gradient in its last `last_steps` steps; recorded if there are penalties.
    """
    rewards = batch.score(sampled.images)
    loss = -batch.terms.shaping(rewards).mean()
    if not batch.terms.penalties:
        yield Outcome(loss, rewards.detach())
        return
    count = len(sampled.steps)
    trajectory = Trajectory(batch, sampled)
    attached = {index: sampled.steps[index] for index in range(count - last_steps, count)}
    penalty, logs = batch.terms.joined(trajectory, attached)
    yield Outcome(loss + penalty, rewards.detach(), logs)
    yield from batch.terms.apart(trajectory, attached)


def check_differentiable(reward: Reward, method: str) -> None:
    """Raise ValueError if the reward has no gradient, which `method` needs."""
    if not reward.differentiable:
        raise ValueError(
            f"{method} needs a gradient, but reward {reward.name!r} is not differentiable: choose another reward, or a "
            "policy-gradient objective"
        )


def check_steps(pipe: Any, prompt: str, call: dict[str, Any], last_steps: int) -> None:
    """Raise ValueError if the pipeline takes fewer scheduler steps than are to carry gradient."""
    steps = planned_steps(pipe, prompt=prompt, **call)
    if last_steps > steps:
        raise ValueError(
            f"the gradient is to go through the last {last_steps} steps, but {type(pipe.scheduler).__name__} takes "
            f"only {steps}: lower training.objective.last_steps or raise sampling.num_inference_steps"
        )
