"""Paths, seeds, atomic files and the resumable training state shared by all stages."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SFUMATO_EMOJI_CACHE", ROOT / ".cache" / "emoji"))
ASSETS = Path(os.environ.get("SFUMATO_EMOJI_ASSETS", ROOT / "src" / "sfumato" / "assets" / "emoji64"))
FLOW_ASSETS = ASSETS.with_name(ASSETS.name + "_flow")
SEED = 64


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def replace_folder(made: Path, target: Path) -> None:
    """Move a freshly written folder over an older one."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, target)


def save_state(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """One safetensors file that holds tensors and, in its header, JSON facts; replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, {"facts": json.dumps(facts)})
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What ``save_state`` wrote."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in list(file.keys())}, json.loads(file.metadata()["facts"])


class Trainee:
    """A module with AdamW and an exponential moving average, whose whole state is one resumable file."""

    def __init__(self, module: torch.nn.Module, file: Path, lr: float, decay: float, weight_decay: float = 0.01):
        self.module, self.file, self.decay = module, file, decay
        self.parameters = dict(module.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.facts: dict[str, Any] = {"step": 0, "seconds": 0.0}
        self._clock = time.monotonic()

    def update(self, loss: torch.Tensor, lr: float, clip: float = 1.0) -> None:
        """Backward, then ``step``."""
        loss.backward()
        self.step(lr, clip)

    def step(self, lr: float, clip: float = 1.0) -> None:
        """Clip the gradients at hand, step at the given learning rate, move the average."""
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.decay, (1 + self.facts["step"]) / (10 + self.facts["step"]))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)
        self.facts["step"] += 1

    def save(self) -> None:
        """Write weights, moving average, optimizer moments, step and seconds spent."""
        now = time.monotonic()
        self.facts["seconds"] += now - self._clock
        self._clock = now
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}.{name}"] = value
        save_state(self.file, tensors, self.facts)

    def load(self) -> bool:
        """Continue from the saved state if there is one."""
        self._clock = time.monotonic()
        if not self.file.exists():
            return False
        tensors, self.facts = load_state(self.file)
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            self.average[name].copy_(tensors[f"average.{name}"])
            moments = ("step", "exp_avg", "exp_avg_sq")
            if f"step.{name}" in tensors:
                self.optimizer.state[parameter] = {m: tensors[f"{m}.{name}"].clone() for m in moments}
        return True

    def copy_average(self, target: torch.nn.Module) -> None:
        """Put the averaged weights into a module of the same shape."""
        with torch.no_grad():
            for name, parameter in target.named_parameters():
                parameter.copy_(self.average[name])


def rate(step: int, total: int, peak: float, warmup: int = 100, tail: float = 0.25) -> float:
    """Warm-up, constant, then a linear-in-square-root decay to zero over the last ``tail`` of the steps."""
    start = total * (1 - tail)
    if step < start:
        return peak * min(1.0, (step + 1) / warmup)
    return peak * max(0.0, 1 - ((step - start) / max(1.0, total - start)) ** 0.5)


def cosine(step: int, total: int, peak: float, warmup: int = 50) -> float:
    """Warm-up, then a half cosine down to two percent of the peak."""
    ramp = min(1.0, (step + 1) / warmup)
    return peak * ramp * (0.02 + 0.98 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / total)).item()))


def batches(count: int, size: int, seed: int, start: int = 0) -> Iterator[torch.Tensor]:
    """Endless index batches through seeded permutations; ``start`` skips that many batches at no cost."""
    epoch, order = -1, torch.empty(0, dtype=torch.long)
    step = start
    while True:
        rows = []
        for position in range(step * size, (step + 1) * size):
            if position // count != epoch:
                epoch = position // count
                order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            rows.append(int(order[position % count]))
        yield torch.tensor(rows)
        step += 1


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one training step, a function of seed and step only, so that resuming is exact."""
    return torch.Generator().manual_seed(seed * 10_000_019 + step)
