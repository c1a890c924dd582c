"""A diffusers scheduler in double precision, so that its arithmetic can be compared with a closed form to 1e-10."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import restore, snapshot


class _InDouble:
    """A module in which float32 means float64."""

    def __init__(self, module: Any):
        self.module = module
        self.float32 = module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


@contextmanager
def double_precision(scheduler: Any) -> Iterator[None]:
    """Run the scheduler's own code in float64.

    Many schedulers of diffusers cast samples and tables to float32, whatever the pipeline computes in. Within this
    context the tables of `scheduler` are float64 and so are those that `set_timesteps` makes; `float32` in the
    scheduler's module means `float64`, which holds for other schedulers of the same class too. All is undone at the
    end, so call `set_timesteps` again afterwards.
    """
    module = sys.modules[type(scheduler).__module__]
    before = snapshot(scheduler)
    vars(scheduler).update(
        {
            name: value.double()
            for name, value in before.items()
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32
        }
    )
    try:
        with patched(module, "torch", _InDouble(torch)), patched(module, "np", _InDouble(numpy)):
            yield
    finally:
        restore(scheduler, before)
