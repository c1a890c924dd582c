"""Checkpoints that a kill cannot break and that resume bit for bit: safetensors for tensors, JSON for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sfumato.runs import atomic_path, read_json, read_jsonl, write_json, write_jsonl
from sfumato.trained import atomic_folder, copy_weights, weights_in

STATE, INFO = "trainer.safetensors", "trainer.json"
KEPT_STATES = 2


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says what to do."""


@dataclass
class TrainingState:
    """All that changes while training.

    Attributes:
        update: updates done.
        parameters: the trained parameters.
        optimizer: over exactly these parameters.
        average: their exponential moving average, or None.
        extra: 0-d tensors that other parts of the training remember.
    """

    update: int
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: list[torch.Tensor] | None
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {f"parameter.{i}": p.detach() for i, p in enumerate(self.parameters)}
        for i, parameter in enumerate(self.parameters):
            found |= {f"optimizer.{i}.{key}": _tensor(value) for key, value in self.optimizer.state[parameter].items()}
        found |= {f"average.{i}": tensor for i, tensor in enumerate(self.average or [])}
        return found | {f"extra.{name}": tensor for name, tensor in self.extra.items()}

    @torch.no_grad()
    def load(self, update: int, tensors: dict[str, torch.Tensor]) -> None:
        """Become what `tensors()` gave after an update.

        Raises:
            ValueError: the tensors are those of other parameters.
        """
        own = {key: t.shape for key, t in self.tensors().items() if not key.startswith("optimizer.")}
        if own != {key: t.shape for key, t in tensors.items() if not key.startswith("optimizer.")}:
            raise ValueError("its weights are not those that are trained here")
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
            prefix = f"optimizer.{i}."
            saved = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            self.optimizer.state[parameter] = {k: _value(k, t, parameter.device) for k, t in saved.items()}
        for i, tensor in enumerate(self.average or []):
            tensor.copy_(tensors[f"average.{i}"])
        self.extra = {name: tensors[f"extra.{name}"] for name in self.extra}
        self.update = update

    @torch.no_grad()
    def follow(self, decay: float | None) -> None:
        """Let the average, if there is one, follow the parameters."""
        if self.average is not None:
            assert decay is not None
            torch._foreach_lerp_(self.average, [parameter.data for parameter in self.parameters], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The average, if there is one, in place of the parameters."""
        trained = [parameter.data for parameter in self.parameters]
        for parameter, tensor in zip(self.parameters, self.average or trained, strict=True):
            parameter.data = tensor
        try:
            yield
        finally:
            for parameter, tensor in zip(self.parameters, trained, strict=True):
                parameter.data = tensor


def _tensor(value: Any) -> torch.Tensor:
    """What an optimiser remembers, as safetensors can hold it: no plain numbers, nothing twice."""
    return value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else torch.tensor(value)


def _value(key: str, tensor: torch.Tensor, device: torch.device) -> Any:
    """The same as the optimiser had it. That of torch counts its steps on the CPU, in a float; others in an int."""
    if key == "step":
        return tensor if tensor.is_floating_point() else int(tensor)
    return tensor.to(device)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("checkpoint-??????"))


def checkpoint_path(folder: Path, update: int) -> Path:
    return folder / f"checkpoint-{update:06d}"


def save_checkpoint(
    folder: Path,
    save_weights: Callable[[Path], Any],
    update: int,
    tensors: dict[str, torch.Tensor],
    fingerprint: dict[str, Any],
) -> Path:
    """Write the tuned weights and the trainer's tensors into `folder/checkpoint-NNNNNN` in one step.

    The trainer's state of older checkpoints is dropped, their tuned weights stay.

    Raises:
        CheckpointError: the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    path = checkpoint_path(folder, update)
    with explained_failure(path), atomic_folder(path) as temporary:
        save_weights(temporary)
        with atomic_path(temporary / STATE) as file:
            save_file({key: t.contiguous() for key, t in tensors.items()}, file)
        write_json(temporary / INFO, {"update": update, "fingerprint": fingerprint})
    for old in checkpoints(folder)[:-KEPT_STATES]:
        (old / STATE).unlink(missing_ok=True)
    return path


@contextmanager
def explained_failure(path: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises into a CheckpointError about `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"could not write {path}: {error}. Earlier checkpoints are untouched: free disk space, then repeat the "
            "same command to continue from the last one"
        ) from error


def resume(folder: Path, state: TrainingState, fingerprint: dict[str, Any]) -> bool:
    """Load the newest checkpoint into `state`; whether there was one.

    Raises:
        CheckpointError: the checkpoint is damaged, or belongs to a training with other settings.
    """
    found = checkpoints(folder)
    if not found:
        return False
    path = found[-1]
    try:
        info = read_json(path / INFO)
        tensors = load_file(path / STATE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it to continue from the one before") from error
    before = info["fingerprint"]
    changed = sorted(key for key in fingerprint | before if fingerprint.get(key) != before.get(key))
    if changed == ["processes"]:
        raise CheckpointError(
            f"{folder} was trained by {before.get('processes', 1)} processes, and {fingerprint['processes']} would "
            "round sums differently: start as many as before to continue it, or choose another run folder. The weights "
            f"in {path.name} can be used as they are"
        )
    if changed:
        raise CheckpointError(
            f"{folder} holds a training with other settings ({', '.join(changed)}): choose another run folder, or "
            "restore the settings"
        )
    try:
        state.load(info["update"], tensors)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be continued, {error}: choose another run folder") from None
    return True


def take_over(folder: Path, update: int) -> None:
    """Make the tuned weights of the last checkpoint up to an update those of `folder`.

    Raises:
        CheckpointError: there is no checkpoint that early, or the disk is full or cannot be written.
    """
    found = [path for path in checkpoints(folder) if path <= checkpoint_path(folder, update)]
    if not found:
        raise CheckpointError(
            f"{folder} has no checkpoint up to update {update}, the last good one: set training.watch.action=warn to "
            "go on without, or choose another run folder"
        )
    weights = weights_in(found[-1])
    assert weights is not None
    with explained_failure(folder / weights.name):
        copy_weights(weights, folder)


def cut_log(path: Path, update: int) -> None:
    """Forget the records of updates after a checkpoint: they will be made again."""
    if path.exists():
        write_jsonl(path, [record for record in read_jsonl(path) if record["update"] <= update])


def finished(folder: Path) -> bool:
    """Whether the training in `folder` has written its final weights."""
    return weights_in(folder) is not None
