"""The training loop: a generator of records, exact to resume, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.adapters import WEIGHTS_NAME, denoiser
from sfumato.pipelines.prompts import PromptCache
from sfumato.rewards import as_reward
from sfumato.runs import append_jsonl, flush
from sfumato.training.batches import images_of_update, micro_batches
from sfumato.training.checkpoints import (
    CheckpointError,
    TrainingState,
    cut_log,
    explained_failure,
    finished,
    resume,
    save_checkpoint,
)
from sfumato.training.checks import check_training
from sfumato.training.monitor import Monitor
from sfumato.training.objective import Batch, Objective
from sfumato.training.rewards_seen import RewardsSeen
from sfumato.training.terms import Shaping, Terms, build_penalties
from sfumato.training.tuned import LoraWeights
from sfumato.training.update import Tally, Update


class TrainingError(RuntimeError):
    """A training cannot go on; the message says what to change."""


def unessential(config: TrainingConfig) -> set[str]:
    """Settings that may change when a training is continued, because the updates do not depend on them."""
    keys = {"checkpoint_every", "monitor_every", "monitor_prompts", "monitor_images", "trackers"}
    return keys if config.lr_schedule != "constant" else keys | {"steps"}


class Trainer:
    """Tunes a LoRA on a pipeline's denoiser: `for record in Trainer(...): ...` runs it to the end.

    Every update draws prompts and image seeds from (seed, update) alone, and micro-batches are formed before they are
    shared out among processes, so that the result does not depend on where a run was interrupted or on how many
    processes take part. The LoRA's gradients are averaged by accelerate; the denoiser itself stays unwrapped.

    Args:
        pipe: any diffusers text-to-image pipeline, on the device and in the dtype to train in. A LoRA named "tuned" is
            added; everything else is frozen. The LoRA itself is kept in float32.
        objective: turns a batch into a loss.
        reward: what is maximised; any callable (images, prompts) -> scores.
        prompts: the training prompts.
        config: the settings; its `objective` is not looked at.
        sampling: how training images are sampled.
        folder: where checkpoints, `metrics.jsonl` and the final LoRA go. A training found there is continued.
        monitor: looks at held-out prompts every `config.monitor_every` updates.

    Raises:
        ValueError: whatever `check_training` finds, or a batch that the processes cannot share evenly.
        CheckpointError: the folder holds a training with other settings, or a damaged checkpoint.
    """

    def __init__(
        self,
        pipe: Any,
        objective: Objective,
        reward: Callable[[torch.Tensor, list[str]], torch.Tensor],
        prompts: list[str],
        config: TrainingConfig,
        sampling: SamplingConfig,
        folder: str | Path,
        monitor: Monitor | None = None,
    ):
        self.pipe, self.objective, self.reward = pipe, objective, as_reward(reward)
        self.prompts, self.config, self.sampling = prompts, config, sampling
        self.folder, self.monitor = Path(folder), monitor
        check_training(pipe, objective, self.reward, prompts, config, sampling)
        self.accelerator = Accelerator(
            cpu=pipe.device.type == "cpu", log_with=list(config.trackers) or None, project_dir=str(folder)
        )
        self.parts = micro_batches(config, self.accelerator.num_processes)
        self.weights = LoraWeights(pipe, config)
        self.penalties = build_penalties(config.regularizers)
        self.state = self._prepare()
        self.cache = PromptCache()
        self.fingerprint = self._fingerprint()
        resume(self.folder, self.state, self.fingerprint)
        if self.state.update > config.steps:
            raise CheckpointError(
                f"{folder} holds a training of {self.state.update} updates already, more than training.steps = "
                f"{config.steps}: choose another run folder, or raise the steps"
            )
        self.complete = finished(self.folder) and self.state.update == config.steps
        self.accelerator.wait_for_everyone()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train, yielding one record per update that is still to do; the last one comes after the LoRA is written."""
        if self.state.update == self.config.steps:
            if not self.complete:  # killed after the last checkpoint
                self._finish()
            return
        if self.accelerator.is_main_process:
            (self.folder / WEIGHTS_NAME).unlink(missing_ok=True)
            cut_log(self.folder / "metrics.jsonl", self.state.update)
        if self.config.trackers:
            self.accelerator.init_trackers("sfumato", config={"recipe": str(self.fingerprint)})
        with self.cache.on(self.pipe):
            if self.state.update == 0 and self.monitor:
                yield self._log({"update": 0, **self._look(0)})
            while self.state.update < self.config.steps:
                record = self._log(self._update())
                if self.config.saves(self.state.update):
                    self._save()
                if self.state.update == self.config.steps:
                    self._finish()
                yield record

    def run(self) -> list[dict[str, Any]]:
        """Train to the end and return the records."""
        return list(self)

    def _prepare(self) -> TrainingState:
        parameters = self.weights.parameters
        if self.config.gradient_checkpointing:
            denoiser(self.pipe).enable_gradient_checkpointing()
        self.pipe.set_progress_bar_config(disable=True)
        optimizer = torch.optim.AdamW(
            parameters, lr=self.config.lr, betas=self.config.betas, weight_decay=self.config.weight_decay
        )
        average = [p.detach().clone() for p in parameters] if self.config.ema_decay else None
        return TrainingState(0, parameters, optimizer, average, RewardsSeen().tensors())

    def _fingerprint(self) -> dict[str, Any]:
        """What the updates depend on; a checkpoint made under another one is not continued."""
        return {
            **self.config.model_dump(mode="json", exclude={*unessential(self.config), "objective"}),
            "objective": str(self.objective),
            "reward": self.reward.name,
            "prompts": self.prompts,
            "sampling": self.sampling.model_dump(mode="json"),
        }

    def _update(self) -> dict[str, Any]:
        started, number = time.perf_counter(), self.state.update + 1
        lr = self._lr(number)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr
        steps = [self._step(tally, number) for tally in self.objective(self._images(number))]
        rewards = torch.cat([found.pop("reward") for found in steps])
        self.state.extra |= RewardsSeen(**self.state.extra).and_these(rewards).tensors()
        self.state.update = number
        record = {
            "update": number,
            "loss": _mean(steps, "loss"),
            "reward": rewards.mean().item(),
            "reward_std": rewards.std(correction=0).item(),
            **{key: _mean(steps, key) for key in steps[0] if key not in ("loss", "grad_norm")},
            "grad_norm": _mean(steps, "grad_norm"),
            "lr": lr,
            "seconds": time.perf_counter() - started,
        }
        every = self.config.monitor_every
        if every and (number % every == 0 or number == self.config.steps):
            record |= self._look(number)
        return record

    def _images(self, number: int) -> Update:
        """What an update is made of."""
        config, accelerator = self.config, self.accelerator
        prompts, seeds = images_of_update(
            self.prompts, config.batch_size, config.seed, number, config.images_per_prompt
        )
        seen = RewardsSeen(**self.state.extra)
        shaping = Shaping(config.shaping.clip, *((seen.mean, seen.std) if config.shaping.normalize else ()))
        terms = Terms(self.penalties, shaping)
        batches = [
            Batch(
                self.pipe,
                prompts[part],
                seeds[part],
                self.sampling.call(),
                self.reward,
                self.weights.base,
                terms,
                part,
                self.weights.prefix,
            )
            for part in self.parts[accelerator.process_index :: accelerator.num_processes]
        ]
        return Update(number, config.seed, prompts, batches, accelerator)

    def _step(self, tally: Tally, number: int) -> dict[str, torch.Tensor]:
        """One step of the optimiser with the gradient that has accumulated; what to log of it, over all processes."""
        processes = self.accelerator.num_processes
        for parameter in self.state.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if processes > 1:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        norm = torch.nn.utils.clip_grad_norm_(self.state.parameters, self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient of update {number} is not finite. Lower training.lr, or train in bfloat16 or float32; "
                "the checkpoints written so far are intact"
            )
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        self._average_weights()
        sums = self.accelerator.reduce({"loss": tally.loss, **tally.logs}, reduction="sum")
        return {**sums, "reward": self.accelerator.gather(tally.rewards), "grad_norm": norm}

    def _lr(self, number: int) -> float:
        """The learning rate of an update, a function of its number alone."""
        config = self.config
        warmup = min(1.0, number / config.warmup_steps) if config.warmup_steps else 1.0
        done = max(0, number - 1 - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return config.lr * warmup * decay[config.lr_schedule]

    @torch.no_grad()
    def _average_weights(self) -> None:
        if self.state.average is not None:
            assert self.config.ema_decay is not None
            torch._foreach_lerp_(self.state.average, [p.data for p in self.state.parameters], 1 - self.config.ema_decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, if an average is kept."""
        if self.state.average is None:
            yield
            return
        trained = [p.data for p in self.state.parameters]
        for parameter, tensor in zip(self.state.parameters, self.state.average, strict=True):
            parameter.data = tensor
        try:
            yield
        finally:
            for parameter, tensor in zip(self.state.parameters, trained, strict=True):
                parameter.data = tensor

    def _look(self, number: int) -> dict[str, Any]:
        """What the monitor sees, on the first process only: the others would see the same."""
        if self.monitor is None or not self.accelerator.is_main_process:
            return {}
        with self._averaged():
            return self.monitor(self.pipe, number)

    def _save(self) -> None:
        """Write a checkpoint: the LoRA file holds the averaged weights, the trainer's state the trained ones."""
        if self.accelerator.is_main_process:
            flush(self.folder / "metrics.jsonl")
            tensors = self.state.tensors()
            with self._averaged():
                save_checkpoint(self.folder, self.weights.save, self.state.update, tensors, self.fingerprint)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        """Write the tuned LoRA and close the trackers."""
        if self.accelerator.is_main_process:
            with self._averaged(), explained_failure(self.folder / WEIGHTS_NAME):
                self.weights.save(self.folder)
        for tracker in self.accelerator.trackers if self.config.trackers else []:
            tracker.finish()
        self.accelerator.wait_for_everyone()

    def _log(self, record: dict[str, Any]) -> dict[str, Any]:
        if self.accelerator.is_main_process:
            with explained_failure(self.folder / "metrics.jsonl"):
                append_jsonl(self.folder / "metrics.jsonl", [record])
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=record["update"])
        return record


def _mean(steps: list[dict[str, torch.Tensor]], key: str) -> float:
    return torch.stack([step[key] for step in steps]).mean().item()
