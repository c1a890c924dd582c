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

import diffusers
import torch
from accelerate import Accelerator
from bed import EMOJI, HELD_OUT, PROMPTS, RANK, preference
from diffusers import DiffusionPipeline

from sfumato.pipelines.adapters import AdapterSwitch, add_lora, denoiser, load_lora, trainable
from sfumato.pipelines.halves import conditional_gradient
from sfumato.pipelines.prefix import cheaper, computed_in, merged
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.skipping import denoised_every
from sfumato.rewards import as_reward
from sfumato.training import DDPO, Batch
from sfumato.training.update import Update

HALVES = "all exact, but no gradient through the unconditional half"
SCHEDULERS = [
    f"{name}Scheduler" for name in ("DPMSolverMultistep", "EulerDiscrete", "HeunDiscrete", "PNDM", "UniPCMultistep")
]


def report(folder: Path, rounds: int, batches: int, threads: int) -> Iterator[str]:
    torch.set_num_threads(threads)
    yield from costs(folder, rounds)
    yield from gradients(batches)
    yield from policy_gradients(batches)


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
    pipe = emoji()
    switch, own = AdapterSwitch(denoiser(pipe), "tuned"), pipe.scheduler
    together = {"every 2 steps, bfloat16, LoRA merged": partial(cheaper, pipe, switch, torch.bfloat16, 2)}
    prefixes = {
        "exact, other images": nullcontext,
        "LoRA merged": partial(merged, switch),
        "bfloat16": partial(computed_in, pipe, torch.bfloat16),
        "bfloat16, LoRA merged": partial(cheaper, pipe, switch, torch.bfloat16),
        **{f"denoiser every {n} steps": partial(denoised_every, pipe, n) for n in (2, 3)},
        **together,
        "LoRA skipped": switch.off,
        HALVES: nullcontext,
    }
    yield f"{'gradient of DRaFT-1 on emoji-64':70}{'cosine':>9}{'worst':>9}{'length':>9}"
    yield from compared(pipe, 12, batches, prefixes)
    for steps in (20, 50):
        yield from compared(pipe, steps, batches, together)
    for name in SCHEDULERS:
        pipe.scheduler = getattr(diffusers, name).from_config(own.config)
        yield from compared(pipe, 20, batches, together)


def emoji() -> Any:
    """emoji-64 with its bundled LoRA, which can be trained."""
    pipe = DiffusionPipeline.from_pretrained(EMOJI, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    load_lora(pipe, EMOJI / "tuned", "tuned")
    for name, parameter in denoiser(pipe).named_parameters():
        parameter.requires_grad_("lora_" in name)
    return pipe


def policy_gradients(batches: int) -> Iterator[str]:
    """What an update of DDPO becomes without the gradient of the unconditional half of guidance, all steps trained."""
    pipe, reward = emoji(), as_reward(preference())
    yield f"{'DDPO on emoji-64 without the unconditional gradient':60}{'cosine':>9}{'worst':>9}{'CPU of':>9}"
    for guidance in (3.0, 7.5):
        call = {"num_inference_steps": 12, "guidance_scale": guidance, "eta": 1.0}
        cosines, seconds = [], []
        for number in range(batches):
            prompts, seeds = [name for name in PROMPTS[:2] for _ in range(4)], range(8 * number, 8 * number + 8)
            batch = Batch(pipe, prompts, list(seeds), call, reward, nullcontext, place=slice(0, 8))
            found = []
            for whole in (True, False):
                start = time.process_time()
                list(DDPO(unconditional_gradient=whole)(Update(1, 0, prompts, [batch], Accelerator(cpu=True))))
                seconds.append(time.process_time() - start)
                found.append(torch.cat([parameter.grad.flatten() for parameter in trainable(denoiser(pipe))]).double())
                denoiser(pipe).zero_grad()
            cosines.append(float(torch.cosine_similarity(*found, 0)))
        ratio = sum(seconds[1::2]) / sum(seconds[::2])
        yield f"{f'guidance {guidance:g}':60}{statistics.mean(cosines):9.3f}{min(cosines):9.3f}{ratio:9.3f}"


def compared(
    pipe: Any, steps: int, batches: int, prefixes: dict[str, Callable[[], AbstractContextManager[None]]]
) -> Iterator[str]:
    """A line for each of the prefixes."""
    reward = preference()
    cosines: dict[str, list[float]] = defaultdict(list)
    lengths: dict[str, list[float]] = defaultdict(list)
    for batch in range(batches):
        prompts, seeds = (PROMPTS, HELD_OUT)[batch % 2], [100 * batch + i for i in range(len(PROMPTS))]
        exact = gradient(pipe, reward, prompts, seeds, steps, nullcontext())
        for name, prefix in prefixes.items():
            there = [seed + 50 for seed in seeds] if "other" in name else seeds
            halved = conditional_gradient(pipe, len(seeds)) if name == HALVES else nullcontext()
            with halved:
                found = gradient(pipe, reward, prompts, there, steps, prefix())
            cosines[name].append(float(torch.cosine_similarity(found, exact, 0)))
            lengths[name].append(float(found.norm() / exact.norm()))
    sampler = f" ({type(pipe.scheduler).__name__.removesuffix('Scheduler')}, {steps})"
    for name, values in cosines.items():
        length = statistics.mean(lengths[name])
        yield f"{name + sampler:70}{statistics.mean(values):9.5f}{min(values):9.5f}{length:9.4f}"


def gradient(
    pipe: Any, reward: Any, prompts: list[str], seeds: list[int], steps: int, prefix: AbstractContextManager[None]
) -> torch.Tensor:
    """Of the mean reward through the last step, as one vector."""
    call = {"num_inference_steps": steps, "guidance_scale": 3.0}
    sampled = rollout(pipe, prompt=prompts, seeds=seeds, last_steps=1, prefix=prefix, **call)
    found = torch.autograd.grad(reward(sampled.images, prompts).mean(), trainable(denoiser(pipe)))
    return torch.cat([part.flatten() for part in found]).double()
