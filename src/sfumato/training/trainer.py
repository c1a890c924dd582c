"""The training loop: a generator of records, exact to resume, on one process or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.device import staying
from sfumato.pipelines.prompts import PromptCache
from sfumato.rewards import as_reward
from sfumato.runs import append_jsonl, flush, read_jsonl
from sfumato.trained import remove_leftovers, remove_weights
from sfumato.training.batches import images_of_update, micro_batches
from sfumato.training.checkpoints import (
    CheckpointError,
    TrainingState,
    cut_log,
    explained_failure,
    finished,
    resume,
    save_checkpoint,
    take_over,
)
from sfumato.training.checks import check_training
from sfumato.training.data_term import build_data_term
from sfumato.training.feedback import strength_after
from sfumato.training.memory import Savings, checkpoint_denoiser
from sfumato.training.monitor import Monitor
from sfumato.training.objective import Batch, Objective
from sfumato.training.optimizers import build_optimizer, learning_rate
from sfumato.training.preflight import try_on_base
from sfumato.training.rewards_seen import RewardsSeen
from sfumato.training.sharding import check_sharding, shard_denoiser
from sfumato.training.terms import Shaping, Terms, build_bonus, build_penalties
from sfumato.training.trackers import track
from sfumato.training.tuned import build_weights
from sfumato.training.update import Tally, Update, loss_scale
from sfumato.training.watch import check_looks, ended, looks_of, result, seen


class TrainingError(RuntimeError):
    """A training cannot go on; the message says what to change."""


def unessential(config: TrainingConfig) -> set[str]:
    """Settings that may change when a training is continued, because the updates do not depend on them."""
    keys = {"checkpoint_every", "trackers", "watch"}
    keys |= set() if config.floor else {"monitor_every", "monitor_prompts", "monitor_images"}
    return keys if config.lr_schedule != "constant" else keys | {"steps"}


class Trainer:
    """Tunes a LoRA on a pipeline's denoiser, or all of it: `for record in Trainer(...): ...` runs it to the end.

    Every update draws prompts and image seeds from (seed, update) alone, and micro-batches are formed before they are
    shared out among processes, so that the result does not depend on where a run was interrupted or on how many
    processes take part. Gradients are averaged by accelerate; the denoiser itself stays unwrapped.

    Args:
        pipe: any diffusers text-to-image pipeline, on the device and in the dtype to train in. A LoRA named "tuned" is
            added, or with `config.lora` None its own denoiser is trained; everything else is frozen. What is trained is
            kept in float32.
        objective: turns a batch into a loss.
        reward: what is maximised; any callable (images, prompts) -> scores.
        prompts: the training prompts.
        config: the settings; its `objective` is not looked at.
        sampling: how training images are sampled.
        folder: where checkpoints, `metrics.jsonl` and the result go. A training found there is continued.
        monitor: looks at held-out prompts every `config.monitor_every` updates; `config.watch` and `config.floor` go by
            what it sees.

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
        check_training(pipe, objective, self.reward, prompts, config, sampling, monitor)
        self.accelerator = Accelerator(
            cpu=pipe.device.type == "cpu", log_with=list(config.trackers) or None, project_dir=str(folder)
        )
        self.parts = micro_batches(config, self.accelerator.num_processes)
        if config.memory.shard:
            check_sharding(config, objective, self.accelerator.num_processes)
        self.savings = Savings(config.memory, pipe, self.reward)
        self.scale = loss_scale(denoiser(pipe))
        self.weights = build_weights(pipe, config)
        self.penalties = build_penalties(config.regularizers)
        self.bonus = build_bonus(config.regularizers, pipe.device)
        self.data = build_data_term(config.regularizers)
        self.state = self._prepare()
        self.cache = PromptCache()
        self.fingerprint = self._fingerprint()
        self.begun = resume(self.folder, self.state, self.fingerprint)
        self.weights.show()
        log = read_jsonl(self.folder / "metrics.jsonl") if self.begun else []
        self.looks = looks_of([record for record in log if record["update"] <= self.state.update])
        if self.begun:
            check_looks(self.looks, config, monitor)
        if self.state.update > config.steps:
            raise CheckpointError(
                f"{folder} holds a training of {self.state.update} updates already, more than training.steps = "
                f"{config.steps}: choose another run folder, or raise the steps"
            )
        self.complete = finished(self.folder) and self.ended
        self.accelerator.wait_for_everyone()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train, yielding one record per update that is still to do; the last one comes after the result is written."""
        if self.accelerator.is_main_process:
            remove_leftovers(self.folder)
        if self.ended:
            if not self.complete:  # killed after the last checkpoint
                self._finish()
            return
        if self.accelerator.is_main_process:
            remove_weights(self.folder)
            cut_log(self.folder / "metrics.jsonl", self.state.update if self.begun else -1)
        if self.config.trackers:
            self.accelerator.init_trackers("sfumato", config={"recipe": str(self.fingerprint)})
        with self.savings.on(), self.cache.on(self.pipe), staying(self.pipe):
            self.savings.encode(self.prompts, self.sampling.call())
            if not self.begun:
                reward, call = self.savings.reward, self.sampling.call()
                try_on_base(self.pipe, self.objective, reward, self.prompts, self.config, call)
            if self.monitor and not self.begun:
                yield self._written({"update": 0, **self._look(0)})
            while not self.ended:
                yield self._written(self._update())

    def run(self) -> list[dict[str, Any]]:
        """Train to the end and return the records."""
        return list(self)

    @property
    def ended(self) -> bool:
        """Whether the last update is done, or the training was stopped by what a look showed."""
        return self.state.update == self.config.steps or ended(self.looks, self.config)

    def _written(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write down an update: its record, then a checkpoint if there is to be one, then the result if it was the
        last."""
        self._log(record)
        if self.config.saves(self.state.update):
            self._save()
        if self.ended:
            self._finish()
        return record

    def _prepare(self) -> TrainingState:
        parameters = self.weights.parameters
        wanted = self.config.gradient_checkpointing
        checkpoint_denoiser(self.pipe, wanted, self.objective, self.prompts[0], self.sampling.call())
        self.pipe.set_progress_bar_config(disable=True)
        if self.config.memory.shard:
            shard_denoiser(denoiser(self.pipe), parameters, self.accelerator)
        optimizer = build_optimizer(self.config, parameters)
        average = [p.detach().clone() for p in parameters] if self.config.ema_decay else None
        return TrainingState(0, parameters, optimizer, average, RewardsSeen().tensors())

    def _fingerprint(self) -> dict[str, Any]:
        """What the updates depend on; a checkpoint made under another one is not continued."""
        return {
            **self.config.model_dump(mode="json", exclude={*unessential(self.config), "objective"}),
            "objective": str(self.objective),
            "reward": self.reward.name,
            "processes": self.accelerator.num_processes,
            "prompts": self.prompts,
            "sampling": self.sampling.model_dump(mode="json"),
            **({"monitor": self.monitor.identity()} if self.monitor and self.config.floor else {}),
        }

    def _update(self) -> dict[str, Any]:
        started, number = time.perf_counter(), self.state.update + 1
        lr, strength = learning_rate(self.config, number), strength_after(self.looks, self.config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr
        steps = [self._step(tally, number) for tally in self.objective(self._images(number, strength))]
        rewards = torch.cat([found.pop("reward") for found in steps])
        if len(rewards):
            self.state.extra |= RewardsSeen(**self.state.extra).and_these(rewards).tensors()
        self.state.update = number
        record = {
            "update": number,
            "loss": _mean(steps, "loss"),
            **_moments(rewards),
            **{key: _mean(steps, key) for key in steps[0] if key not in ("loss", "grad_norm")},
            "grad_norm": _mean(steps, "grad_norm"),
            "lr": lr,
            **({"strength": strength} if self.config.floor else {}),
            "seconds": time.perf_counter() - started,
        }
        return record | (self._look(number) if self.monitor and self.config.looks(number) else {})

    def _images(self, number: int, strength: float) -> Update:
        """What an update is made of."""
        config, accelerator = self.config, self.accelerator
        prompts, seeds = images_of_update(
            self.prompts, config.batch_size, config.seed, number, config.images_per_prompt
        )
        seen = RewardsSeen(**self.state.extra)
        shaping = Shaping(config.shaping.clip, *((seen.mean, seen.std) if config.shaping.normalize else ()))
        terms = Terms(self.penalties, shaping, strength, self.bonus, self.data)
        batches = [
            Batch(
                self.pipe,
                prompts[part],
                seeds[part],
                self.sampling.call(),
                self.savings.reward,
                self.weights.base,
                terms,
                part,
                self.weights.prefix,
            )
            for part in self.parts[accelerator.process_index :: accelerator.num_processes]
        ]
        return Update(number, config.seed, prompts, batches, accelerator, self.scale)

    def _step(self, tally: Tally, number: int) -> dict[str, torch.Tensor]:
        """One step of the optimiser with the gradient that has accumulated; what to log of it, over all processes."""
        processes = self.accelerator.num_processes
        for parameter in self.state.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad /= self.scale
            if processes > 1:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
        norm = torch.nn.utils.clip_grad_norm_(self.state.parameters, self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient of update {number} is not finite. Lower training.lr, or train in bfloat16 or float32; "
                "the checkpoints written so far are intact"
            )
        self.state.optimizer.step()
        self.weights.show()
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.follow(self.config.ema_decay)
        sums = self.accelerator.reduce({"loss": tally.loss, **tally.logs}, reduction="sum")
        return {**sums, "reward": self.accelerator.gather(tally.rewards), "grad_norm": norm}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, if an average is kept."""
        try:
            with self.state.averaged():
                self.weights.show()
                yield
        finally:
            self.weights.show()

    def _look(self, number: int) -> dict[str, Any]:
        """What the monitor sees on the first process, which tells the others, and what follows from it."""
        assert self.monitor is not None
        found: list[Any] = [None]
        if self.accelerator.is_main_process or self.config.memory.shard:
            with self._averaged(), self.savings.looking():
                found = [self.monitor(self.pipe, number)]
        look = {"update": number, **broadcast_object_list(found)[0]}
        self.looks.append(look | seen([*self.looks, look], self.config))
        return self.looks[-1]

    def _save(self) -> None:
        """Write a checkpoint: its tuned weights are the averaged ones, the trainer's state has the trained ones."""
        if self.accelerator.is_main_process:
            flush(self.folder / "metrics.jsonl")
            tensors = self.state.tensors()
            with self._averaged():
                save_checkpoint(self.folder, self.weights.save, self.state.update, tensors, self.fingerprint)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> None:
        """Write the tuned weights, which are an earlier checkpoint's if the watch says so, and close the trackers."""
        good = result(self.looks, self.config)
        if self.accelerator.is_main_process and good is not None:
            take_over(self.folder, good)
        elif self.accelerator.is_main_process:
            with self._averaged(), explained_failure(self.folder):
                self.weights.save(self.folder)
        for tracker in self.accelerator.trackers if self.config.trackers else []:
            tracker.finish()
        self.accelerator.wait_for_everyone()

    def _log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with explained_failure(self.folder / "metrics.jsonl"):
                append_jsonl(self.folder / "metrics.jsonl", [record])
        if self.config.trackers:
            track(self.accelerator, record, self.folder)


def _mean(steps: list[dict[str, torch.Tensor]], key: str) -> float:
    return torch.stack([step[key] for step in steps]).mean().item()


def _moments(rewards: torch.Tensor) -> dict[str, float]:
    """What to log of an update's rewards, if there are any."""
    return {"reward": rewards.mean().item(), "reward_std": rewards.std(correction=0).item()} if len(rewards) else {}
