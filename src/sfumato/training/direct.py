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
    trajectory = Trajectory(batch, sampled)
    yield attached(trajectory, last_steps)
    yield from batch.terms.apart(trajectory, [step.index for step in sampled.steps[-last_steps:]])


def attached(trajectory: Trajectory, last_steps: int) -> Outcome:
    """Minus the mean reward, and the penalties at the steps through which its gradient goes."""
    batch, sampled = trajectory.batch, trajectory.sampled
    rewards = batch.score(sampled.images)
    values, logs = batch.terms.values(sampled.images, batch.prompts, rewards)
    tuned = {step.index: step for step in sampled.steps[-last_steps:]}
    penalty, more = batch.terms.joined(trajectory, tuned)
    return Outcome(penalty - values.mean(), rewards.detach(), {**logs, **more})


def check_differentiable(reward: Reward, method: str) -> None:
    """Raise ValueError if the reward has no gradient, which `method` needs."""
    if not reward.differentiable:
        raise ValueError(
            f"{method} needs a gradient, but reward {reward.name!r} is not differentiable: choose another reward, or a "
            "policy-gradient objective"
        )


def check_steps(pipe: Any, prompt: str, call: dict[str, Any], last_steps: int, key: str = "last_steps") -> None:
    """Raise ValueError if no step is to carry gradient, or more than the pipeline takes scheduler steps.

    Args:
        last_steps: how many are to.
        key: the setting of the objective that says so.
    """
    if last_steps < 1:
        raise ValueError(f"training.objective.{key} is {last_steps}, but one step at least has to carry gradient")
    steps = planned_steps(pipe, prompt=prompt, **call)
    if last_steps > steps:
        raise ValueError(
            f"the gradient is to go through the last {last_steps} steps, but {type(pipe.scheduler).__name__} takes "
            f"only {steps}: lower training.objective.{key} or raise sampling.num_inference_steps"
        )
