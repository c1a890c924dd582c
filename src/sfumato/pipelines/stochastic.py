"""The law of a recorded scheduler step: its mean, its standard deviation, and the log-probability of what it gave.

A stochastic step of a diffusers scheduler is x' = μ(x, prediction) + std · z with standard normal z. μ and std are read
off the scheduler's own `step`, run from the recorded state with other numbers in place of z. No scheduler needs code of
its own, and whatever does not have this form is refused by name.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sfumato.pipelines.clocks import denoised_timesteps
from sfumato.pipelines.patching import patched
from sfumato.pipelines.recording import recorded, with_generators
from sfumato.pipelines.rollout import Rollout, Step, rollout
from sfumato.pipelines.state import restore, snapshot

ADVICE = "choose DDPMScheduler or EulerAncestralDiscreteScheduler, or for a flow model sample within flow_sde(pipe)"
LEAST = 1e-6
"""Less noise than this, which latents in single precision cannot hold, is none: DDPM has 1e-10 in its last step."""


def step_mean(pipe: Any, step: Step, prediction: torch.Tensor) -> torch.Tensor:
    """μ of a step, were this its prediction.

    Args:
        pipe: the pipeline that took the step, within the same contexts (such as `flow_sde`) as then.
        step: recorded by `rollout` or `replay`.
        prediction: (B, ...), such as `replay(..., grad=True).prediction`, whose gradient passes through.

    Returns:
        (B, ...), in float32 at least.
    """
    return _take(pipe.scheduler, step, Normal(0.0), _precise(step.sample.detach()), _precise(prediction))


def step_std(pipe: Any, step: Step) -> torch.Tensor:
    """The standard deviation of a step, 0-d and exact: that of a step from zeros with z = 1. 0 if there is no noise."""
    return _deviations(pipe.scheduler, step).flatten()[0]


def noise_of(pipe: Any, step: Step) -> torch.Tensor:
    """z, drawn again from the recorded states of the images' generators, (B, ...); zeros if the step draws none.

    Raises:
        ValueError: the scheduler draws more than one number for each of x'.
    """
    return _noise(pipe.scheduler, step)


def log_prob(
    next_sample: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, average: bool = False
) -> torch.Tensor:
    """log N(x'; μ, std²) of each image, in float64 where the device has it.

    Args:
        next_sample: x', (B, ...), the sample whose density is asked, that of the recording and not of a replay with
            other weights; no gradient passes to it. In half precision it is rounded, which adds to its noise: let the
            latents be float32 where std is small.
        mean: μ, (B, ...).
        std: 0-d, positive.
        average: divide by the number of dimensions, as the code of DDPO (arXiv 2305.13301) and Flow-GRPO (arXiv
            2505.05470) does. The gradient of an expected reward needs the sum.

    Returns:
        (B,).

    Raises:
        ValueError: std is 0.
    """
    x, mean, std = _wide(next_sample.detach()), _wide(mean), _wide(std)
    if not std > 0:
        raise ValueError("a step without noise has no density: leave it out, see stochastic_steps(pipe, rollout)")
    densities = -((x - mean) / std).square() / 2 - std.log() - math.log(2 * math.pi) / 2
    return densities.flatten(1).mean(1) if average else densities.flatten(1).sum(1)


def transition_kl(mean: torch.Tensor, other: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """KL(N(μ, std²) || N(μ', std²)) = Σ (μ - μ')² / (2 std²) of each image, (B,); exact, as both have one variance.

    Args:
        mean: μ, (B, ...).
        other: μ', (B, ...).
        std: 0-d, positive.
    """
    return ((_wide(mean) - _wide(other)) / _wide(std)).square().flatten(1).sum(1) / 2


def stochastic_steps(pipe: Any, rollout: Rollout) -> list[int]:
    """The recorded steps that have a density, by their place in `rollout.steps`: those whose std exceeds `LEAST`.

    What the weights do in the others, such as DDIM's last one, no log-probability tells.

    Raises:
        ValueError: the rollout has no recording, or a step is no Gaussian with a mean that x_t and the prediction alone
            decide.
    """
    if not rollout.steps:
        raise ValueError("this rollout was not recorded: pass record=True to rollout(...)")
    return _with_density(pipe.scheduler, rollout.steps)


def planned_stochastic_steps(pipe: Any, **arguments: Any) -> list[int]:
    """The steps with a density that a rollout would take, found out before anything is sampled.

    It costs one pass through the denoiser on one image.

    Args:
        pipe: any text-to-image pipeline of diffusers.
        **arguments: of its call, with one prompt.

    Raises:
        ValueError: there are none (the message says what to choose instead), or as in `stochastic_steps`.
    """
    scheduler = pipe.scheduler
    before = snapshot(scheduler)
    try:
        steps = _steps_alone(scheduler, *_first_step(pipe, arguments))
        found = _with_density(scheduler, steps)
    finally:
        restore(scheduler, before)
    if not found:
        eta = "pass eta=1.0 (in a recipe: sampling.arguments.eta), or " if "eta" in steps[0].options else ""
        name = type(scheduler).__name__
        raise ValueError(f"{name} draws no noise here, so its steps have no log-probabilities: {eta}{ADVICE}")
    return found


class Normal(TorchFunctionMode):
    """Puts a number in place of every normal random number, or with `None` lets them be, and keeps what was drawn."""

    def __init__(self, value: float | None):
        super().__init__()
        self.value = value
        self.drawn: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.randn, torch.randn_like):
            return func(*args, **kwargs)
        if self.value is None:
            noise = func(*args, **kwargs)
        else:
            plain = torch.zeros if func is torch.randn else torch.zeros_like
            noise = plain(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
            noise.fill_(self.value)
        self.drawn.append(noise)
        return noise


def _take(
    scheduler: Any,
    step: Step,
    noise: Normal,
    sample: torch.Tensor,
    prediction: torch.Tensor,
    *,
    state: dict[str, Any] | None = None,
    generators: Sequence[torch.Generator] = (),
) -> torch.Tensor:
    """x' of the scheduler's own step from the recorded state, or another; the scheduler is left as it was."""
    given = {"model_output": prediction, "timestep": step.timestep, "sample": sample, **step.options}
    if generators:
        given = with_generators(scheduler.step, given, list(generators))
    before = snapshot(scheduler)
    restore(scheduler, step.state if state is None else state)
    try:
        with noise:
            return scheduler.step(**given, return_dict=False)[0]
    finally:
        restore(scheduler, before)


@torch.no_grad()
def _deviations(scheduler: Any, step: Step) -> torch.Tensor:
    """What z = 1 adds to a step from zeros, (B, ...)."""
    zeros = torch.zeros_like(_precise(step.sample)), torch.zeros_like(_precise(step.prediction))
    return _take(scheduler, step, Normal(1.0), *zeros) - _take(scheduler, step, Normal(0.0), *zeros)


@torch.no_grad()
def _noise(scheduler: Any, step: Step) -> torch.Tensor:
    generators = [torch.Generator("cpu").set_state(state) for state in step.noise]
    noise = Normal(None)
    _take(scheduler, step, noise, step.sample, step.prediction, generators=generators)
    if not noise.drawn:
        return torch.zeros_like(step.sample)
    if sum(part.numel() for part in noise.drawn) != step.sample.numel():
        name = type(scheduler).__name__
        raise ValueError(f"{name} draws noise more than once in a step, so its steps have no known density: {ADVICE}")
    return torch.cat(noise.drawn).view_as(step.sample).to(step.sample.device)


def _with_density(scheduler: Any, steps: Sequence[Step]) -> list[int]:
    for step in steps:
        _check_law(scheduler, step)
    return [place for place, step in enumerate(steps) if _deviations(scheduler, step).abs().max() > LEAST]


@torch.no_grad()
def _check_law(scheduler: Any, step: Step) -> None:
    """Refuse a step whose law is neither N(μ(x_t, prediction), std²) nor the point μ."""
    name, sample, prediction = type(scheduler).__name__, _precise(step.sample), _precise(step.prediction)
    if prediction.shape != sample.shape:
        raise ValueError(f"{name} takes its variances from the denoiser: choose another variance_type, or {ADVICE}")
    unknown = f"{name} does not step to mean + std · z, so its steps have no known density: {ADVICE}"
    mean, deviations = _take(scheduler, step, Normal(0.0), sample, prediction), _deviations(scheduler, step)
    error = (mean + deviations * _noise(scheduler, step) - step.next_sample).abs().max()
    scale = torch.stack([value.abs().max() for value in (sample, prediction, mean)]).max()
    if not error <= 16 * scale * max(torch.finfo(dtype).eps for dtype in (step.next_sample.dtype, torch.float32)):
        raise ValueError(unknown)
    if not deviations.abs().max() > LEAST:
        return
    forged = _with_other_history(step.state, sample.shape)
    if not torch.equal(_take(scheduler, step, Normal(0.0), sample, prediction, state=forged), mean):
        raise ValueError(
            f"the steps of {name} depend on the predictions of earlier steps as well, so the density of one is not "
            f"known from its own prediction: set solver_order=1 where it can be set, or {ADVICE}"
        )
    if (deviations != deviations.flatten()[0]).any():
        raise ValueError(unknown)


def _with_other_history(value: Any, shape: torch.Size) -> Any:
    """A scheduler's state in which whatever has the shape of latents is something else."""
    if isinstance(value, dict):
        return {name: _with_other_history(item, shape) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_other_history(item, shape) for item in value]
    return value + 1 if isinstance(value, torch.Tensor) and value.shape == shape else value


class _Left(Exception):
    """Carries the scheduler's state and the arguments of its first step out of a pipeline call."""


def _first_step(pipe: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    scheduler = pipe.scheduler
    step = scheduler.step

    @functools.wraps(step)
    def leave(*args: Any, **kwargs: Any) -> None:
        raise _Left(snapshot(scheduler), inspect.signature(step).bind(*args, **kwargs).arguments)

    with patched(scheduler, "step", leave):
        try:
            rollout(pipe, seeds=[0], **arguments)
        except _Left as left:
            return left.args[0], left.args[1]
    raise ValueError(f"{type(pipe).__name__} took no scheduler step: sfumato works with pipelines that denoise")


def _steps_alone(scheduler: Any, state: dict[str, Any], given: dict[str, Any]) -> list[Step]:
    """The steps that follow from the first one's arguments, were every prediction 0."""
    restore(scheduler, state)
    sample, steps = given["sample"], []
    for index, timestep in enumerate(scheduler.timesteps[: len(denoised_timesteps(scheduler))]):
        zeros = {"model_output": torch.zeros_like(given["model_output"]), "timestep": timestep, "sample": sample}
        _, step = recorded(scheduler, scheduler.step, (), {**given, **zeros}, given.get("generator", []), index)
        steps.append(step)
        sample = step.next_sample
    return steps


def _precise(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.float32 if value.device.type == "mps" else torch.float64)
