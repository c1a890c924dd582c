"""Fits one preference reward to pairs by the Bradley-Terry loss: exact to resume, on one process or many."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sfumato.config.preference import PreferenceTraining
from sfumato.images import load_image
from sfumato.preferences.embed import Embedder, ReadImage
from sfumato.preferences.evaluate import PreferenceAccuracy, bradley_terry_loss
from sfumato.preferences.pairs import Pair
from sfumato.preferences.state import load_state, save_state
from sfumato.rewards import PreferenceReward


class PreferenceFit:
    """Trains `reward` in place and leaves it, frozen, at the step of the lowest held-out loss: iterate to the end.

    Batches depend on the seed and the step alone, and micro-batches are formed before processes share them out, so that
    the result does not depend on interruptions, nor, but for the rounding of sums, on the number of processes.

    Args:
        reward: gets a new head; with full training also a copy of its backbone.
        pairs: to learn from.
        held_out: to stop by and to report on; they should share no image with `pairs`.
        config: how; `members` and what else concerns several fits is not looked at.
        read: as in `Embedder`.
        state: file to continue from, written at every look at the held-out pairs.
        embedder: with a frozen backbone, that of another fit, whose embeddings are used again.
        accelerator: the processes.

    Attributes:
        step: steps done.
        looks: a record per look at the held-out pairs: step, train_loss, and those of `PreferenceAccuracy`.

    Raises:
        ValueError: one of the two lists of pairs is empty, or the state is damaged or another training's.
    """

    def __init__(
        self,
        reward: PreferenceReward,
        pairs: Sequence[Pair],
        held_out: Sequence[Pair],
        config: PreferenceTraining,
        read: ReadImage = load_image,
        state: Path | None = None,
        embedder: Embedder | None = None,
        accelerator: Accelerator | None = None,
    ):
        if not pairs or not held_out:
            raise ValueError(
                f"training needs pairs on both sides: {len(pairs)} to learn from, {len(held_out)} held out"
            )
        self.reward, self.pairs, self.held_out, self.config, self.file = reward, pairs, held_out, config, state
        self.accelerator = accelerator or Accelerator(cpu=reward.backbone.model.device.type == "cpu")
        if config.full:
            reward.backbone = copy.deepcopy(reward.backbone)
        self.parameters = _trained(reward, config)
        self.embedder = embedder or Embedder(reward, config, read, self.accelerator)
        self.embedder.remember([*pairs, *held_out])
        self.optimizer = torch.optim.AdamW(self.parameters.values(), weight_decay=config.weight_decay)
        self.step, self.best_loss, self.waited = 0, float("inf"), 0
        self.best = self._copy()
        self.looks: list[dict[str, Any]] = []
        if state and state.exists():
            self._resume(state)

    @property
    def ended(self) -> bool:
        """Whether the last step is done, or the held-out loss no longer falls."""
        return self.step == self.config.steps or self.waited == self.config.patience

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train, yielding a record per step: step and loss, and after a look at the held-out pairs that of the look."""
        losses: list[float] = []
        batches = islice(_batches(self.pairs, self.config), self.step, None)
        try:
            while not self.ended:
                losses.append(self._update(next(batches)))
                self.step += 1
                record = {"step": self.step, "train_loss": losses[-1]}
                if self.step % self.config.evaluate_every == 0 or self.step == self.config.steps:
                    record |= self._look(sum(losses) / len(losses))
                    losses.clear()
                yield record
        finally:
            self._settle()

    def run(self) -> list[dict[str, Any]]:
        """Train to the end and return the looks."""
        for _ in self:
            pass
        return self.looks

    def _update(self, batch: Sequence[Pair]) -> float:
        """One step of the optimiser; the loss before it."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        size = self.config.micro_batch_size or -(-len(batch) // processes)
        total = torch.zeros((), device=self.accelerator.device)
        for part in [batch[start : start + size] for start in range(0, len(batch), size)][rank::processes]:
            rewards = self.embedder.rewards(self.reward, part)
            labels = rewards.new_tensor([pair.label for pair in part])
            loss = bradley_terry_loss(rewards[:, 0] - rewards[:, 1], labels) * (len(part) / len(batch))
            loss.backward()
            total += loss.detach()
        for parameter in self.parameters.values():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(grad, reduction="sum") if processes > 1 else grad
        loss = self.accelerator.reduce(total, reduction="sum").item()
        if not loss < float("inf"):
            raise ValueError(
                f"the loss of step {self.step + 1} is not finite: lower training.lr, or set autocast: null"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _look(self, train_loss: float) -> dict[str, Any]:
        """Look at the held-out pairs, remember the best weights, write the state down."""
        rewards = self.embedder.all_rewards(self.reward, self.held_out)
        labels = rewards.new_tensor([pair.label for pair in self.held_out])
        found = PreferenceAccuracy.from_margins(rewards[:, 0] - rewards[:, 1], labels)
        self.looks.append({"step": self.step, "train_loss": train_loss, **asdict(found)})
        self.waited += 1
        if found.loss < self.best_loss:
            self.best, self.best_loss, self.waited = self._copy(), found.loss, 0
        if self.file and self.accelerator.is_main_process:
            save_state(self.file, self._tensors(), self._facts())
        return self.looks[-1]

    def _facts(self) -> dict[str, Any]:
        names = ("step", "best_loss", "waited", "looks")
        return {name: getattr(self, name) for name in names} | {"processes": self.accelerator.num_processes}

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {f"best.{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.parameters.items():
            found[f"parameter.{name}"] = parameter
            found |= {f"optimizer.{key}.{name}": value for key, value in self.optimizer.state[parameter].items()}
        return found

    @torch.no_grad()
    def _resume(self, path: Path) -> None:
        tensors, facts = load_state(path)
        processes = facts.pop("processes")
        if processes != self.accelerator.num_processes:
            raise ValueError(
                f"{path} was written by {processes} processes, and {self.accelerator.num_processes} would round sums "
                "differently: start as many as before, or choose another folder"
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            self.best[name] = tensors[f"best.{name}"].to(parameter.device)
            kept = {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            moved = {key: value if key == "step" else value.to(parameter.device) for key, value in kept.items()}
            self.optimizer.state[parameter] = moved
        for name, value in facts.items():
            setattr(self, name, value)

    @torch.no_grad()
    def _settle(self) -> None:
        """Take the best weights."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.best[name])
            parameter.requires_grad_(False)
        self.reward.backbone.forget_texts()

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}


def _trained(reward: PreferenceReward, config: PreferenceTraining) -> dict[str, torch.nn.Parameter]:
    """The parameters that are to be trained, by name; the head is new."""
    reward.head = None
    modules: dict[str, torch.nn.Module] = {}
    if config.hidden is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            modules["head"] = reward.add_head(config.hidden).requires_grad_(False)
    if config.full:
        modules["backbone"] = reward.backbone.model
    found = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    # it cancels in all margins, and AdamW would step along the rounding of its gradient
    found.pop("head.output.bias", None)
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def _batches(pairs: Sequence[Pair], config: PreferenceTraining) -> Iterator[list[Pair]]:
    """Batches without end; every pair is seen once before any is seen again."""
    generator = torch.Generator().manual_seed(config.seed)
    order: list[int] = []
    while True:
        while len(order) < config.batch_size:
            order += torch.randperm(len(pairs), generator=generator).tolist()
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        yield [pairs[index] for index in chosen]
