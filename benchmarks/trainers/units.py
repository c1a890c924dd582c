"""What cheaper steps save, and what they do to the gradient: unit costs, and DRaFT-1's gradients on emoji-64."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bed import EMOJI, HELD_OUT, PROMPTS, RANK, preference
from diffusers import DiffusionPipeline

from sfumato.pipelines.adapters import AdapterSwitch, add_lora, denoiser, load_lora, trainable
from sfumato.pipelines.halves import conditional_gradient
from sfumato.pipelines.prefix import cheaper, computed_in, merged
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.skipping import denoised_every


def report(folder: Path, rounds: int, batches: int, threads: int) -> Iterator[str]:
    torch.set_num_threads(threads)
    yield from costs(folder, rounds)
    yield from gradients(batches)


def costs(folder: Path, rounds: int) -> Iterator[str]:
    """CPU seconds of the parts of an update with 4 images, relative to a forward without gradient, F."""
    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    add_lora(pipe, rank=RANK, adapter="tuned")
    unet, switch = denoiser(pipe), AdapterSwitch(denoiser(pipe), "tuned")

    def forward(images: int) -> torch.Tensor:
        size, width = unet.config.sample_size, unet.config.cross_attention_dim
        latents, words = torch.randn(images, 4, size, size), torch.randn(images, 12, width)
        return unet(latents, torch.tensor(1), encoder_hidden_states=words).sample

    def without_gradient(images: int, *contexts: Callable[[], AbstractContextManager[None]]) -> Callable[[], object]:
        def run() -> None:
            with ExitStack() as stack, torch.no_grad():
                for context in contexts:
                    stack.enter_context(context())
                forward(images)

        return run

    def with_gradient(images: int) -> Callable[[], object]:
        return lambda: torch.autograd.grad(forward(images).sum(), trainable(unet))

    merge, lower = partial(merged, switch), partial(computed_in, pipe, torch.bfloat16)
    units = {
        "F: forward of 4 images, guidance doubles them": without_gradient(8),
        "LoRA merged, merging included": without_gradient(8, merge),
        "LoRA skipped": without_gradient(8, switch.off),
        "bfloat16": without_gradient(8, lower),
        "bfloat16, LoRA merged": without_gradient(8, merge, lower),
        "one half of guidance": without_gradient(4),
        "forward and backward": with_gradient(8),
        "forward and backward of one half": with_gradient(4),
        "two timesteps in one batch, forward": without_gradient(16),
        "two timesteps in one batch, forward and backward": with_gradient(16),
    }
    seconds = timed(units, rounds)
    first = statistics.median(next(iter(seconds.values())))
    yield f"{'part':50}{'CPU ms':>8}{'F':>7}"
    for name, found in seconds.items():
        yield f"{name:50}{1000 * statistics.median(found):8.0f}{statistics.median(found) / first:7.2f}"


def timed(units: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every unit, in turns."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):  # the first warms up
        for name, unit in units.items():
            start = time.process_time()
            unit()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def gradients(batches: int) -> Iterator[str]:
    """Cosine and length of the gradient of cheaper updates, relative to the exact one of the same images."""
    pipe = DiffusionPipeline.from_pretrained(EMOJI, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    load_lora(pipe, EMOJI / "tuned", "tuned")
    for name, parameter in denoiser(pipe).named_parameters():
        parameter.requires_grad_("lora_" in name)
    switch, reward = AdapterSwitch(denoiser(pipe), "tuned"), preference()
    whole = {"halves": partial(conditional_gradient, pipe, len(PROMPTS))}
    prefixes = {
        "exact": nullcontext,
        "exact, other images": nullcontext,
        "LoRA merged": partial(merged, switch),
        "bfloat16": partial(computed_in, pipe, torch.bfloat16),
        "bfloat16, LoRA merged": partial(cheaper, pipe, switch, torch.bfloat16),
        **{f"denoiser every {n} steps": partial(denoised_every, pipe, n) for n in (2, 3)},
        "every 2 steps, bfloat16, LoRA merged": partial(cheaper, pipe, switch, torch.bfloat16, 2),
        "LoRA skipped": switch.off,
        "halves": nullcontext,
    }
    cosines: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    for batch in range(batches):
        exact = torch.empty(0)
        for name, prefix in prefixes.items():
            seeds = [100 * batch + i + (50 if "other" in name else 0) for i in range(len(PROMPTS))]
            with whole.get(name, nullcontext)():
                found = gradient(pipe, reward, PROMPTS if batch % 2 == 0 else HELD_OUT, seeds, prefix())
            exact = found if name == "exact" else exact
            cosines[name].append(float(torch.cosine_similarity(found, exact, 0)))
            lengths[name].append(float(found.norm() / exact.norm()))
    yield f"{'gradient of DRaFT-1 on emoji-64':50}{'cosine':>9}{'worst':>9}{'length':>9}"
    for name, found in cosines.items():
        yield f"{name:50}{statistics.mean(found):9.5f}{min(found):9.5f}{statistics.mean(lengths[name]):9.4f}"


def gradient(
    pipe: Any, reward: Any, prompts: list[str], seeds: list[int], prefix: AbstractContextManager[None]
) -> torch.Tensor:
    """Of the mean reward through the last of 12 steps, as one vector."""
    call = {"num_inference_steps": 12, "guidance_scale": 3.0}
    sampled = rollout(pipe, prompt=prompts, seeds=seeds, last_steps=1, prefix=prefix, **call)
    found = torch.autograd.grad(reward(sampled.images, prompts).mean(), trainable(denoiser(pipe)))
    return torch.cat([part.flatten() for part in found]).double()
