"""Wall time, forwards, peak memory and error of every form, relative to plain sampling with the tuned LoRA."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from beds import Bed
from forms import BASE, EXACT, TUNED, Form
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

Row = dict[str, Any]


def measure(bed: Bed, forms: list[Form], rounds: int, name: str) -> list[Row]:
    """Time all forms in turns, in another order each round, and weigh each once.

    Returns:
        A row per form: `forwards` of the denoiser per image; `time`, the ratio of its median to that of the tuned
        model, and `time_low`, `time_high`, the quartiles of the ratio within single rounds; `memory`, the ratio of the
        peaks; `error`, the root mean square distance of its latents from exact AIG's, relative to that of base and
        tuned.
    """
    seconds: dict[str, list[float]] = {form.name: [] for form in forms}
    latents: dict[str, torch.Tensor] = {}
    forwards: dict[str, float] = {}
    order, shuffle = list(forms), random.Random(0)
    with tqdm(total=len(forms) * (rounds + 1), desc=name, unit="call") as bar:
        for turn in range(rounds + 1):  # the first warms up
            shuffle.shuffle(order)
            for form in order:
                spent, forwards[form.name], latents[form.name] = timed(bed, form)
                if turn:
                    seconds[form.name].append(spent)
                bar.update()
    memory = {form.name: peak_memory(bed, form) for form in tqdm(forms, desc=f"{name}, memory", unit="form")}
    return [_row(form, seconds, forwards, memory, latents) for form in forms]


def timed(bed: Bed, form: Form) -> tuple[float, float, torch.Tensor]:
    """Seconds, forwards and final latents of one call."""
    with form.on(bed.pipe) as guidance:
        _synchronise()
        start = time.perf_counter()
        latents = bed.sample()
        _synchronise()
        spent = time.perf_counter() - start
        return spent, guidance.passes if guidance else bed.call["num_inference_steps"], latents


def peak_memory(bed: Bed, form: Form) -> int:
    """Bytes of tensors at the worst moment of a short call, the pipeline's weights included."""
    bed = Bed(bed.pipe, {**bed.call, "num_inference_steps": min(6, bed.call["num_inference_steps"])})
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        with form.on(bed.pipe):
            bed.sample()
        return torch.cuda.max_memory_allocated()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, form.on(bed.pipe):
        bed.sample()
    return weights(bed.pipe) + highest(profiler)


def highest(profiler: Any) -> int:
    """The largest sum of all bytes allocated and freed so far, on the CPU, since the profiler began."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def weights(pipe: Any) -> int:
    """Bytes of all parameters and buffers."""
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return sum(tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers()))


def table(rows: list[Row]) -> Iterator[str]:
    yield "| form | forwards | time / plain | quartiles of rounds | peak memory / plain | error |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        spread = f"{row['time_low']:.2f} to {row['time_high']:.2f}"
        yield (
            f"| {row['form']} | {row['forwards']:g} | {row['time']:.2f} | {spread} | {row['memory']:.3f} "
            f"| {row['error']:.3f} |"
        )


def _row(
    form: Form,
    seconds: dict[str, list[float]],
    forwards: dict[str, float],
    memory: dict[str, int],
    latents: dict[str, torch.Tensor],
) -> Row:
    own, plain = seconds[form.name], seconds[TUNED.name]
    ratios = [a / b for a, b in zip(own, plain, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    gap = _distance(latents[TUNED.name], latents[BASE.name])
    return {
        "form": form.name,
        "forwards": forwards[form.name],
        "time": statistics.median(own) / statistics.median(plain),
        "time_low": low,
        "time_high": high,
        "seconds": statistics.median(own),
        "memory": memory[form.name] / memory[TUNED.name],
        "bytes": memory[form.name],
        "error": _distance(latents[form.name], latents[EXACT.name]) / gap,
    }


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.sqrt(float((a - b).square().mean()))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
