"""Run any diffusers pipeline: plainly, with gradient through its last steps, from a step on, or one step again.

The pipeline's own `__call__` is the sampler. Under torch's `no_grad` decorator lies the undecorated function, which is
called here with gradient switched on from the wanted scheduler step; the scheduler's `set_timesteps` and `step` are
wrapped on the instance while it runs. No pipeline family needs code of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.calls import per_image, started_at, undecorated, undone, without_gradient_killers
from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.predictions import predicted_original, prediction_type
from sfumato.pipelines.recording import Start, Step, Watch
from sfumato.pipelines.state import GUIDANCE

__all__ = ["Rollout", "Step", "continued", "replay", "rollout"]


@dataclass(frozen=True)
class Rollout:
    """What a pipeline call gave.

    Attributes:
        images: (B, 3, H, W) in [0, 1], with gradient if `last_steps` > 0. Post-processing clamps to [0, 1], so pixels
            outside pass no gradient.
        seeds: one per image; (prompt, seed) is an image's identity whatever the batch.
        arguments: the pipeline arguments of the call, per-image generators left out.
        forwards: how often the denoiser was run, base and tuned counted alike when guidance is on. A call on a batch
            that classifier-free guidance has doubled counts once.
        steps: the recorded steps, empty unless `record` was set.
    """

    images: torch.Tensor
    seeds: list[int]
    arguments: dict[str, Any] = field(repr=False)
    forwards: int
    steps: list[Step] = field(default_factory=list, repr=False)


def rollout(
    pipe: Any,
    *,
    seeds: Sequence[int],
    last_steps: int = 0,
    stop_at: int | None = None,
    record: bool = False,
    prefix: AbstractContextManager[None] | None = None,
    **arguments: Any,
) -> Rollout:
    """Sample one image per seed with any diffusers pipeline.

    The images equal those of `pipe(...)` with the same per-image CPU generators. The safety checker and the invisible
    watermark are off meanwhile, because both would cut the gradient. Where a pipeline gives its scheduler no generator,
    the images' own generators are passed, so that stochastic steps too depend on the seed alone.

    Args:
        pipe: any text-to-image pipeline of diffusers.
        seeds: one integer per image, from 0 to 2**32 - 1.
        last_steps: K, the number of scheduler steps at the end that carry gradient. 0 samples without gradient.
            Schedulers of second order take about two scheduler steps per inference step.
        stop_at: the scheduler step, negative from the end, that is the last to be run: the image is then its one-step
            prediction of x0 (ReFL, arXiv 2304.05977), and the remaining steps cost nothing.
        record: keep every scheduler step, for `replay` and `continued`.
        prefix: a context for the part without gradient, which makes it cheaper; see `sfumato.pipelines.prefix`.
        **arguments: passed to the pipeline. `prompt` (and every other prompt argument) is a string or a list as long as
            `seeds`; embeddings have one row per seed.

    Raises:
        ValueError: K exceeds the number of steps, there is no step `stop_at` or its prediction is of an unknown kind, a
            wrong number of prompts, a reserved argument, or a seed that torch would confuse with another.
    """
    seeds = [int(seed) for seed in seeds]
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise ValueError(f"seed {wrong[0]}: torch draws by the lowest 32 bits, so take seeds from 0 to 2**32 - 1")
    arguments = per_image(arguments, len(seeds))
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    watch = _watch(pipe, generators, None, last_steps, stop_at, record, prefix)
    return Rollout(_images(pipe, arguments, watch), seeds, arguments, _passes(pipe, watch), watch.steps)


def continued(
    pipe: Any,
    rollout: Rollout,
    index: int,
    *,
    sample: torch.Tensor | None = None,
    last_steps: int = 0,
    stop_at: int | None = None,
    record: bool = False,
    **changes: Any,
) -> Rollout:
    """Run a pipeline from one recorded step to the end, from the recorded x_t or from another one.

    From the recorded x_t, with unchanged weights, the images are those of the rollout bit for bit. From another sample
    the scheduler begins anew at that step, as in image-to-image, with the noise of the recording. So DRaFT-LV (arXiv
    2309.17400, section 3) is `continued(pipe, result, -1, sample=noised(...), last_steps=1)`.

    Args:
        rollout: made with `record=True`, or a `blank_rollout`.
        index: which of its steps comes first; negative counts from the end.
        sample: x_t' (B, ...) in the place of that step's sample; its gradient is kept.
        last_steps: as in `rollout`.
        stop_at: as in `rollout`; counts in the whole grid.
        record: as in `rollout`.
        **changes: arguments of the pipeline that are not those of the rollout, such as `guidance_scale=1.0`.

    Raises:
        ValueError: as `rollout`, or the scheduler cannot begin anew at this step.
        RuntimeError: as `replay`.
    """
    start = _start(pipe, rollout, index, sample, anew=sample is not None)
    arguments = {**rollout.arguments, **per_image(changes, len(rollout.seeds))}
    watch = _watch(pipe, _blank_generators(rollout), start, last_steps, stop_at, record)
    with undone(pipe):
        images = _images(pipe, arguments, watch)
    return Rollout(images, rollout.seeds, arguments, _passes(pipe, watch), watch.steps)


def replay(
    pipe: Any, rollout: Rollout, index: int, *, grad: bool = False, sample: torch.Tensor | None = None, **changes: Any
) -> Step:
    """Run one recorded step again, classifier-free guidance and all, from exactly the recorded x_t or another sample.

    With unchanged weights the result equals the recording bit for bit, for schedulers with history and for stochastic
    ones too. Under `base_weights(pipe)` it gives the base model's prediction at the same x_t.

    Args:
        rollout: a rollout made with `record=True`, or a `blank_rollout`.
        index: which recorded step; negative counts from the end.
        grad: whether the step carries gradient to the denoiser's parameters.
        sample: x_t' (B, ...) in the place of the recorded one; its gradient is kept. `next_sample` is then what the
            scheduler makes of it with the history of the recording.
        **changes: arguments of the pipeline that are not those of the rollout, such as `guidance_scale=1.0`.

    Raises:
        ValueError: the rollout has no recording, or a change is no argument for one image per seed.
        RuntimeError: the pipeline does not start from the latents that it is given, or guidance is on with savings
            that use earlier steps.
    """
    start = _start(pipe, rollout, index, sample)
    arguments = {**rollout.arguments, **per_image(changes, len(rollout.seeds))}
    watch = Watch(
        pipe,
        _blank_generators(rollout),
        section=lambda _: range(start.index, start.index + 1),
        start=start,
        last_steps=1 if grad else None,
        record=True,
    )
    with undone(pipe):
        run(pipe, arguments, watch, start.sample, "latent")
    return watch.steps[0]


def run(
    pipe: Any, arguments: dict[str, Any], watch: Watch, sample: torch.Tensor | None = None, output_type: str = "pt"
) -> Any:
    """The pipeline's own call under a watch, without gradient until that enables it; gives its images.

    Args:
        arguments: of the call, per image.
        watch: over this one call.
        sample: latents to start from, if not the pipeline's own.
        output_type: "pt" or "latent".
    """
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(False))
        stack.enter_context(without_gradient_killers(pipe))
        if sample is not None:
            arguments = {**arguments, **stack.enter_context(started_at(pipe, sample))}
        stack.enter_context(watch.running())
        stack.callback(denoiser(pipe).register_forward_pre_hook(watch.count_forward).remove)
        return undecorated(pipe)(**arguments, generator=watch.generators, output_type=output_type).images


def _images(pipe: Any, arguments: dict[str, Any], watch: Watch) -> torch.Tensor:
    images = run(pipe, arguments, watch, watch.start.sample if watch.start else None)
    if (watch.last_steps or watch.start or watch.finish) and watch.taken != watch.total:
        raise ValueError(
            f"{type(pipe).__name__} ran {watch.taken} of {watch.total} steps: gradient needs a text-to-image call"
        )
    return images


def _passes(pipe: Any, watch: Watch) -> int:
    guidance = getattr(pipe, GUIDANCE, None)
    return guidance.passes if guidance else watch.forwards


def _watch(
    pipe: Any,
    generators: list[torch.Generator],
    start: Start | None,
    last_steps: int,
    stop_at: int | None,
    record: bool,
    prefix: AbstractContextManager[None] | None = None,
) -> Watch:
    """What watches over a call that ends in images."""
    _check_gradient(pipe, last_steps)
    finish = None
    if stop_at is not None:
        prediction_type(pipe.scheduler)
        finish = functools.partial(predicted_original, pipe.scheduler)

    def section(count: int) -> range:
        first, last = start.index if start else 0, count - 1 if stop_at is None else stop_at
        steps = range(first, (last + count if last < 0 else last) + 1)
        if not 0 < len(steps) <= count - first:
            raise ValueError(f"stop_at={stop_at}: the steps that can be the last are {first} to {count - 1} here")
        if start and start.state is None:
            _check_beginning(pipe.scheduler, steps)
        return steps

    return Watch(
        pipe,
        generators,
        section=section,
        start=start,
        last_steps=last_steps or None,
        record=record,
        finish=finish,
        prefix=prefix,
    )


def _start(pipe: Any, rollout: Rollout, index: int, sample: torch.Tensor | None, anew: bool = False) -> Start:
    """Where one recorded step begins, or another sample in its place."""
    if not rollout.steps:
        raise ValueError("this rollout was not recorded: pass record=True to rollout(...)")
    guidance = getattr(pipe, GUIDANCE, None)
    if guidance and guidance.blender.savings.looks_back:
        raise RuntimeError("with savings that use earlier steps no step can be replayed alone: replay without them")
    step = rollout.steps[index]
    if sample is None:
        if not step.sample.numel():
            raise ValueError("a blank rollout has no samples of its own: pass sample=...")
        sample = step.sample.detach()
    return Start(step.index, sample, step.noise, None if anew else step.state)


def _blank_generators(rollout: Rollout) -> list[torch.Generator]:
    return [torch.Generator("cpu") for _ in rollout.seeds]


def _check_gradient(pipe: Any, last_steps: int) -> None:
    if last_steps < 0:
        raise ValueError(f"last_steps is a number of scheduler steps >= 0, not {last_steps}")
    if last_steps and any(hasattr(component, "_hf_hook") for component in pipe.components.values()):
        raise ValueError("gradient does not survive model offloading: move the pipeline to one device with pipe.to()")


def _check_beginning(scheduler: Any, steps: range) -> None:
    """Raise ValueError unless the timesteps from there on are of the pattern that the scheduler begins with."""
    times, first = denoised_timesteps(scheduler).tolist(), steps.start
    doubled = [grid[1:2] == grid[2:3] for grid in (times, times[first:])]
    if first % scheduler.order or (len(steps) > 1 and doubled[0] != doubled[1]):
        raise ValueError(
            f"{type(scheduler).__name__} cannot begin with another sample at step {first}, in the midst of a larger "
            "step or with several still to go: choose another step, or DDIM or an Euler scheduler"
        )
