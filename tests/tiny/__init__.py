"""Tiny random pipelines of many families, made in memory: real diffusers classes, a few thousand weights, no download.

`pipeline("sdxl")` gives a fresh pipeline, `call("sdxl")` the arguments of a quick call of it. The text encoders are
real too, over byte-level vocabularies, so that prompts work almost everywhere.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch

from sfumato.pipelines.adapters import denoiser
from tests.tiny import families, more_families
from tests.tiny.calls import call, embedded, generators, images
from tests.tiny.parts import TOKENS
from tests.tiny.schedulers import SCHEDULERS, STOCHASTIC, WITH_HISTORY, make_scheduler
from tests.tiny.tools import counted, footprint, perturbed_lora

__all__ = [
    "ALL_FAMILIES",
    "FAMILIES",
    "SCHEDULERS",
    "STOCHASTIC",
    "TOKENS",
    "WITH_HISTORY",
    "call",
    "counted",
    "embedded",
    "footprint",
    "generators",
    "images",
    "make_scheduler",
    "perturbed_lora",
    "pipeline",
    "shared",
]

FAMILIES = tuple(families.BUILDERS)
"""The families on which every test of pipelines runs."""
ALL_FAMILIES = (*FAMILIES, *more_families.BUILDERS)
"""All families; the conformance suite runs on them."""


def pipeline(family: str, *, lora: bool = False, scheduler: str | None = None) -> Any:
    """A fresh pipeline, always with the same weights.

    Args:
        lora: add a LoRA with alpha = 2 r, of which both matrices are far from 0.
        scheduler: a key of `SCHEDULERS` in place of the family's own scheduler.
    """
    pipe = copy.deepcopy(_built(family, lora))
    if scheduler is not None:
        pipe.scheduler = make_scheduler(scheduler)
    return pipe


@functools.cache
def shared(family: str, *, lora: bool = False, scheduler: str | None = None) -> Any:
    """The same pipeline at every call, for tests that leave it as it is: a copy takes longer than a sample."""
    return pipeline(family, lora=lora, scheduler=scheduler)


@functools.cache
def _built(family: str, lora: bool) -> Any:
    if lora:
        pipe = copy.deepcopy(_built(family, False))
        perturbed_lora(pipe)
        return pipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = {**families.BUILDERS, **more_families.BUILDERS}[family]()
        for parameter in denoiser(pipe).parameters():  # some start at 0, which would hide what lies behind them
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):  # as add_lora leaves them: torch's kernels for weights that require
            component.requires_grad_(False)  # a gradient differ in the last bit on some CPUs, also under no_grad
    pipe.set_progress_bar_config(disable=True)
    return pipe
