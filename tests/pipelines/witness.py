"""What a guided denoiser was asked and what it answered, and what separate models answer to the same."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sfumato.pipelines.adapters import denoiser
from tests import tiny


@dataclass
class Call:
    """One call of a denoiser by its pipeline."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: torch.Tensor

    def asked(self, module: torch.nn.Module) -> torch.Tensor:
        """What another model answers."""
        with torch.no_grad():
            return _first(module(*copy.deepcopy(self.args), **copy.deepcopy(self.kwargs)))


def _first(output: Any) -> torch.Tensor:
    first = output[0]
    return torch.stack(list(first)) if isinstance(first, list) else first


@contextmanager
def witnessed(pipe: Any) -> Iterator[list[Call]]:
    """The calls that a pipeline makes of its denoiser; guidance is seen from outside."""
    calls: list[Call] = []

    def write(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        calls.append(Call(copy.deepcopy(args), copy.deepcopy(kwargs), _first(output).clone()))

    handle = denoiser(pipe).register_forward_hook(write, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@functools.cache
def several(family: str, names: tuple[str, ...], scheduler: str | None = None) -> tuple[Any, list[torch.nn.Module]]:
    """A pipeline with several LoRAs in double precision, and as separate models the base and each tuned one.

    The same ones at every call, for tests that leave them as they are.
    """
    together, modules = tiny.pipeline(family, scheduler=scheduler), [denoiser(tiny.pipeline(family).to(torch.float64))]
    for seed, name in enumerate(names):
        alone = tiny.pipeline(family)
        for pipe in (together, alone):
            tiny.perturbed_lora(pipe, name, seed=seed)
        modules.append(denoiser(alone.to(torch.float64)))
    return together.to(torch.float64), modules


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal up to rounding, in double precision except for what diffusers computes in single."""
    return torch.allclose(ours, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))
