"""What the trainer and an objective say to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sfumato.config import ObjectiveConfig
from sfumato.pipelines.rollout import Rollout, rollout
from sfumato.rewards import Reward, score
from sfumato.training.terms import Terms

if TYPE_CHECKING:
    from sfumato.training.update import Tally, Update


@dataclass(frozen=True)
class Batch:
    """A micro-batch: the images that are in memory at the same time.

    Attributes:
        pipe: the pipeline, tuned weights at work.
        prompts: one per image; images of one prompt stand side by side.
        seeds: one per image.
        call: further arguments of the pipeline's call.
        reward: what is maximised.
        base: a context in which `pipe` runs as the base model.
        terms: what stands beside the objective.
        place: which of the update's images these are.
        prefix: a context for the sampling steps before those that carry gradient.
    """

    pipe: Any
    prompts: list[str]
    seeds: list[int]
    call: dict[str, Any]
    reward: Reward
    base: Callable[[], AbstractContextManager[None]]
    terms: Terms = field(default_factory=Terms)
    place: slice = field(default_factory=lambda: slice(None))
    prefix: Callable[[], AbstractContextManager[None]] = nullcontext

    def sample(self, last_steps: int = 0, record: bool = False, **changes: Any) -> Rollout:
        """Sample the images; see `sfumato.pipelines.rollout.rollout`. `changes` replace arguments of the call."""
        arguments = {**self.call, **changes}
        return rollout(
            self.pipe,
            prompt=self.prompts,
            seeds=self.seeds,
            last_steps=last_steps,
            record=record,
            prefix=self.prefix() if last_steps else None,
            **arguments,
        )

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """The reward of each image, (B,)."""
        return score(self.reward, images, self.prompts)


@dataclass(frozen=True)
class Outcome:
    """A part of what an objective makes of a batch, to be back-propagated at once.

    Attributes:
        loss: 0-d, with gradient to the trained parameters; a mean over images. The parts of a batch add up.
        rewards: (B,), detached and as they are before shaping; None if another part has them.
        logs: further 0-d tensors to log, detached; those of the same name add up.
    """

    loss: torch.Tensor
    rewards: torch.Tensor | None = None
    logs: dict[str, torch.Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A way to tune: a plain value that turns an update's images into gradients.

    One that samples within a context of its own, such as `flow_sde`, also has a method `sampler(pipe)` that gives it;
    one whose gradient goes through some of the steps only, `attached_steps(count)`, those of `count` steps that it may
    go through; one that cannot work with any batch of images, `check_images(prompts, config)`, which raises ValueError.
    """

    def check(self, reward: Reward) -> None:
        """Raise ValueError if the objective cannot work with this reward."""

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        """Raise ValueError if the objective cannot work with this pipeline, sampled like this; called before anything
        is sampled."""

    def __call__(self, update: Update) -> Iterator[Tally]:
        """Accumulate gradients by `update.accumulate`, and yield its tally whenever the optimiser is to take a step."""


OBJECTIVES = {
    "draft": "draft.Draft",
    "draft_lv": "draft_lv.DraftLV",
    "align_prop": "align_prop.AlignProp",
    "refl": "refl.ReFL",
    "adjoint_matching": "adjoint.AdjointMatching",
    "ddpo": "ddpo.DDPO",
    "flow_grpo": "flow_grpo.FlowGRPO",
    "diffusion_dpo": "dpo.DiffusionDPO",
    "sft": "sft.SFT",
}
"""Name in a recipe -> module and class in this folder; the class has the fields of the recipe's section."""


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that a recipe asks for."""
    module, _, name = OBJECTIVES[config.name].partition(".")
    return getattr(import_module(f"sfumato.training.{module}"), name)(**config.model_dump(exclude={"name"}))
