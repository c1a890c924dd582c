"""Run any diffusers pipeline plainly, with gradient through its last steps, or one recorded step again.

The pipeline's own `__call__` is the sampler. Under torch's `no_grad` decorator lies the undecorated function, which is
called here with gradient switched on from the wanted scheduler step; the scheduler's `set_timesteps` and `step` are
wrapped on the instance while it runs. No pipeline family needs code of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils import logging

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.patching import patched
from sfumato.pipelines.state import GUIDANCE, POSITION, restore, snapshot

logger = logging.get_logger(__name__)

RESERVED = {
    "num_images_per_prompt": "give one seed per image instead, and repeat the prompt",
    "generator": "seeds=[...] makes one generator per image",
    "output_type": "a rollout returns tensors in [0, 1]",
    "return_dict": "a rollout returns a Rollout",
}


@dataclass(frozen=True)
class Step:
    """One scheduler step as it happened.

    Attributes:
        index: position in the scheduler's list of timesteps.
        timestep: what the scheduler was given, a 0-d tensor.
        sample: x_t, (B, ...) in the pipeline's own latent layout.
        prediction: what the scheduler saw as model output, that is after classifier-free guidance.
        next_sample: x_{t-1}.
        state: the scheduler's state just before the step.
        noise: the state of each image's generator just before the step.
        options: what else the pipeline gave the scheduler's `step`, such as `eta`.
    """

    index: int
    timestep: torch.Tensor
    sample: torch.Tensor
    prediction: torch.Tensor
    next_sample: torch.Tensor
    state: dict[str, Any] = field(repr=False)
    noise: list[torch.Tensor] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)


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


def rollout(pipe: Any, *, seeds: Sequence[int], last_steps: int = 0, record: bool = False, **arguments: Any) -> Rollout:
    """Sample one image per seed with any diffusers pipeline.

    The images equal those of `pipe(...)` with the same per-image CPU generators. The safety checker and the invisible
    watermark are off meanwhile, because both would cut the gradient. Where a pipeline gives its scheduler no generator,
    the images' own generators are passed, so that stochastic steps too depend on the seed alone.

    Args:
        pipe: any text-to-image pipeline of diffusers.
        seeds: one integer per image, from 0 to 2**32 - 1.
        last_steps: K, the number of scheduler steps at the end that carry gradient. 0 samples without gradient.
            Schedulers of second order take about two scheduler steps per inference step.
        record: keep every scheduler step, for `replay`.
        **arguments: passed to the pipeline. `prompt` (and every other prompt argument) is a string or a list as long as
            `seeds`; embeddings have one row per seed.

    Raises:
        ValueError: K exceeds the number of steps, a wrong number of prompts, a reserved argument, or a seed that torch
            would confuse with another.
    """
    seeds = [int(seed) for seed in seeds]
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise ValueError(f"seed {wrong[0]}: torch draws by the lowest 32 bits, so take seeds from 0 to 2**32 - 1")
    arguments = _per_image(arguments, len(seeds))
    _check_gradient(pipe, last_steps)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    watch = _Watch(pipe.scheduler, generators, last_steps, record)
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(False))
        stack.enter_context(watch.running())
        stack.enter_context(_without_gradient_killers(pipe))
        stack.callback(denoiser(pipe).register_forward_pre_hook(watch.count_forward).remove)
        images = undecorated(pipe)(**arguments, generator=generators, output_type="pt").images
    if last_steps and watch.taken != watch.total:
        raise ValueError(
            f"{type(pipe).__name__} ran {watch.taken} of {watch.total} steps: gradient needs a text-to-image call"
        )
    guidance = getattr(pipe, GUIDANCE, None)
    return Rollout(images, seeds, arguments, guidance.passes if guidance else watch.forwards, watch.steps)


class _Watch:
    """Stands beside the scheduler during a rollout: passes the images' generators, counts, records, enables gradient.

    Attributes:
        total: the number of scheduler steps to take.
        taken: those taken so far.
        forwards: calls of the denoiser.
        steps: the recorded steps.
    """

    def __init__(self, scheduler: Any, generators: list[torch.Generator], last_steps: int, record: bool):
        self.scheduler = scheduler
        self.generators = generators
        self.last_steps = last_steps
        self.record = record
        self.total = self.taken = self.forwards = 0
        self.steps: list[Step] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        set_timesteps, step = self.scheduler.set_timesteps, self.scheduler.step

        @functools.wraps(set_timesteps)
        def set_and_check(*args: Any, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            self.total = len(denoised_timesteps(self.scheduler))
            if self.last_steps > self.total:
                raise ValueError(
                    f"gradient was asked for the last {self.last_steps} steps, but {type(self.scheduler).__name__} "
                    f"takes only {self.total} here: lower last_steps or raise num_inference_steps"
                )
            self._enable_gradient_in_time()
            return result

        @functools.wraps(step)
        def seeded_step(*args: Any, **kwargs: Any) -> Any:
            kwargs = _with_generators(step, kwargs, self.generators)
            if self.record:
                result, done = _recorded(self.scheduler, step, args, kwargs, self.generators, self.taken)
                self.steps.append(done)
            else:
                result = step(*args, **kwargs)
            self.taken += 1
            self._enable_gradient_in_time()
            return result

        with patched(self.scheduler, "set_timesteps", set_and_check), patched(self.scheduler, "step", seeded_step):
            yield

    def _enable_gradient_in_time(self) -> None:
        if self.last_steps and self.taken == self.total - self.last_steps:
            torch.set_grad_enabled(True)

    def count_forward(self, *_: Any) -> None:
        self.forwards += 1


def replay(pipe: Any, rollout: Rollout, index: int, *, grad: bool = False) -> Step:
    """Run one recorded step again, classifier-free guidance and all, from exactly the recorded x_t.

    With unchanged weights the result equals the recording bit for bit, for schedulers with history and for stochastic
    ones too. Under `base_weights(pipe)` it gives the base model's prediction at the same x_t.

    Args:
        rollout: a rollout made with `record=True`.
        index: which recorded step; negative counts from the end.
        grad: whether the step carries gradient to the denoiser's parameters.

    Raises:
        ValueError: the rollout has no recording.
        RuntimeError: the pipeline does not start from the latents that it is given, or guidance is on with savings
            that use earlier steps.
    """
    if not rollout.steps:
        raise ValueError("this rollout was not recorded: pass record=True to rollout(...)")
    guidance = getattr(pipe, GUIDANCE, None)
    if guidance and guidance.blender.savings.looks_back:
        raise RuntimeError("with savings that use earlier steps no step can be replayed alone: replay without them")
    recorded = rollout.steps[index]
    scheduler = pipe.scheduler
    generators = [torch.Generator("cpu") for _ in rollout.seeds]
    set_timesteps, step = scheduler.set_timesteps, scheduler.step
    done: list[Step] = []

    @functools.wraps(set_timesteps)
    def set_one(*args: Any, **kwargs: Any) -> Any:
        result = set_timesteps(*args, **kwargs)
        counts = hasattr(scheduler, POSITION)
        restore(scheduler, recorded.state)
        if counts:
            setattr(scheduler, POSITION, recorded.index)
        beyond = len(scheduler.timesteps) - len(denoised_timesteps(scheduler))
        scheduler.timesteps = scheduler.timesteps[recorded.index : recorded.index + 1 + beyond]
        return result

    @functools.wraps(step)
    def recorded_step(*args: Any, **kwargs: Any) -> Any:
        for generator, state in zip(generators, recorded.noise, strict=True):
            generator.set_state(state)
        scheduler.timesteps = recorded.state["timesteps"].clone()
        kwargs = _with_generators(step, kwargs, generators)
        result, again = _recorded(scheduler, step, args, kwargs, generators, recorded.index)
        if not torch.allclose(again.sample, recorded.sample, rtol=0, atol=0, equal_nan=True):
            raise RuntimeError(
                f"a {type(pipe).__name__} changes the latents it starts from: its steps cannot be replayed"
            )
        done.append(again)
        return result

    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.callback(restore, scheduler, snapshot(scheduler))
        stack.enter_context(_own_attributes_kept(pipe))
        start = stack.enter_context(_started_at(pipe, recorded.sample.detach()))
        stack.enter_context(patched(scheduler, "set_timesteps", set_one))
        stack.enter_context(patched(scheduler, "step", recorded_step))
        stack.enter_context(_without_gradient_killers(pipe))
        undecorated(pipe)(**{**rollout.arguments, **start}, output_type="latent", generator=generators)
    return done[0]


def undecorated(pipe: Any) -> Callable[..., Any]:
    """The pipeline's `__call__` without torch's `no_grad` around it, bound to the pipeline."""
    call = type(pipe).__call__
    return functools.partial(getattr(call, "__wrapped__", call), pipe)


def _per_image(arguments: dict[str, Any], count: int) -> dict[str, Any]:
    """The pipeline arguments with every prompt repeated or checked to be one per image; a system prompt is for all."""
    if count == 0:
        raise ValueError("seeds is empty: give one seed per image")
    for name, reason in RESERVED.items():
        if name in arguments:
            raise ValueError(f"rollout takes no {name}: {reason}")
    result = dict(arguments)
    for name, value in arguments.items():
        if "prompt" not in name or name.startswith("system") or value is None:
            continue
        if isinstance(value, str):
            result[name] = [value] * count
        elif isinstance(value, list | torch.Tensor) and len(value) != count:
            raise ValueError(f"{name} has {len(value)} rows for {count} seeds: give one per seed, or a single string")
    return result


def _check_gradient(pipe: Any, last_steps: int) -> None:
    if last_steps < 0:
        raise ValueError(f"last_steps is a number of scheduler steps >= 0, not {last_steps}")
    if last_steps and any(hasattr(component, "_hf_hook") for component in pipe.components.values()):
        raise ValueError("gradient does not survive model offloading: move the pipeline to one device with pipe.to()")


def _with_generators(step: Callable[..., Any], kwargs: dict[str, Any], generators: list[torch.Generator]) -> dict:
    """The scheduler's arguments with per-image generators, where it takes some and the pipeline gave none."""
    if kwargs.get("generator") is None and "generator" in inspect.signature(step).parameters:
        return {**kwargs, "generator": generators}
    return kwargs


def _recorded(
    scheduler: Any, step: Callable[..., Any], args: tuple, kwargs: dict, generators: list[torch.Generator], index: int
) -> tuple[Any, Step]:
    """Take one scheduler step and write it down."""
    given = inspect.signature(step).bind(*args, **kwargs).arguments
    state, noise = snapshot(scheduler), [generator.get_state() for generator in generators]
    result = step(*args, **kwargs)
    after = result[0] if isinstance(result, tuple) else result.prev_sample
    timestep, sample, prediction = (given.pop(name) for name in ("timestep", "sample", "model_output"))
    options = {name: value for name, value in given.items() if name not in ("generator", "return_dict")}
    return result, Step(index, timestep, sample, prediction, after, state, noise, options)


@contextmanager
def _without_gradient_killers(pipe: Any) -> Iterator[None]:
    """Switch off the safety checker and the watermark, which leave torch and black out or alter images."""
    with ExitStack() as stack:
        for name in ("safety_checker", "watermark"):
            if getattr(pipe, name, None) is not None:
                logger.info(f"the {name} of this {type(pipe).__name__} is off during the rollout")
                stack.enter_context(patched(pipe, name, None))
        yield


@contextmanager
def _own_attributes_kept(pipe: Any) -> Iterator[None]:
    """Undo what a call notes down on the pipeline itself, such as the number of its timesteps."""
    before = dict(vars(pipe))
    try:
        yield
    finally:
        vars(pipe).clear()
        vars(pipe).update(before)


@contextmanager
def _started_at(pipe: Any, sample: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Make the pipeline start from exactly these latents, in its own layout; gives the arguments to call it with.

    What diffusers' pipelines take as `latents` has another layout in some, and is scaled in others. So the result of
    their `prepare_latents` is replaced. A pipeline without it is given the latents and an initial sigma of 1.
    """
    if hasattr(pipe, "prepare_latents"):
        prepare = pipe.prepare_latents

        @functools.wraps(prepare)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            return (sample, *made[1:]) if isinstance(made, tuple) else sample

        with patched(pipe, "prepare_latents", prepared):
            yield {}
        return
    scheduler = pipe.scheduler
    cls = type(scheduler)
    one = property(lambda self: 1.0, lambda self, value: None)
    scheduler.__class__ = type(cls.__name__, (cls,), {"init_noise_sigma": one, "__module__": cls.__module__})
    try:
        yield {"latents": sample}
    finally:
        scheduler.__class__ = cls
