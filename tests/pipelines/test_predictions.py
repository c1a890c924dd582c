"""x0, noise and noised latents from a recorded step: against the schedulers' own, and in closed form."""

from dataclasses import replace

import diffusers
import pytest
import torch

from sfumato.analytic import affine_steps, analytic_pipeline, double_precision, gaussian
from sfumato.pipelines.predictions import KINDS, noise_like, noised, predicted_original, prediction_type, target
from sfumato.pipelines.recording import recorded
from sfumato.pipelines.rollout import rollout
from tests.analytic.bed import MEAN_B, VAR_B, scheduler

VARIANCE_PRESERVING = ["DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler", "PNDMScheduler"]
SCALED = ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"]
BETWEEN_LEVELS = ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"]
SOLVERS = ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"]
FLOW = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"]
KINDS_OF = {
    **dict.fromkeys(["DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler"], KINDS[:3]),
    **dict.fromkeys(["EulerDiscreteScheduler"], KINDS[:3]),
    **dict.fromkeys(["PNDMScheduler", *SCALED[1:], *BETWEEN_LEVELS], ("epsilon", "v_prediction")),
    **dict.fromkeys(SOLVERS, KINDS),
    **dict.fromkeys(FLOW, ("flow_prediction",)),
}
"""Scheduler -> the predictions that it takes."""
UNCLIPPED = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler")


def cases(names):
    return [(name, kind) for name in names for kind in KINDS_OF[name]]


def made(name, kind=None):
    options = {"clip_sample": False} if name in UNCLIPPED else {}
    if name == "HeunDiscreteScheduler":
        options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    if kind is not None and name not in FLOW:
        options["prediction_type"] = kind
    if kind == "flow_prediction" and name not in FLOW:
        options["use_flow_sigmas"] = True
    return getattr(diffusers, name)(**options)


def steps(scheduler, count=4):
    """Steps of random samples and predictions, with what each returned."""
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(count)
    for index, timestep in enumerate(scheduler.timesteps):
        sample, prediction = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
        getattr(scheduler, "scale_model_input", lambda *_: None)(sample, timestep)
        given = {"timestep": timestep, "sample": sample, "model_output": prediction}
        yield recorded(scheduler, scheduler.step, (), given, [], index)


@pytest.mark.parametrize(("name", "kind"), cases(["DDIMScheduler", "DDPMScheduler", *SCALED, *BETWEEN_LEVELS]))
def test_the_original_is_the_one_that_the_scheduler_works_with(name, kind):
    grid = made(name, kind)
    for result, step in steps(grid):
        assert torch.allclose(predicted_original(grid, step), result.pred_original_sample, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), cases(SOLVERS))
def test_the_original_is_what_a_solver_converts_its_model_output_to(name, kind):
    grid = made(name, kind)
    for _, step in steps(grid):
        assert torch.allclose(predicted_original(grid, step), grid.model_outputs[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FLOW)
def test_the_original_of_a_velocity(name):
    grid = made(name)
    for _, step in steps(grid):
        expected = step.sample - float(grid.sigmas[step.index]) * step.prediction
        assert torch.allclose(predicted_original(grid, step), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), cases([*VARIANCE_PRESERVING, *SCALED, *SOLVERS, *FLOW]))
def test_a_perfect_prediction_leads_back_to_the_original(name, kind):
    grid, original = made(name, kind), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    noise = noise_like(original, [5, 6])
    for _, step in list(steps(grid)):
        sample = noised(grid, step, original, noise)
        perfect = target(grid, step, original, noise)
        again = predicted_original(grid, replace(step, sample=sample, prediction=perfect))
        assert torch.allclose(again, original, rtol=1e-3, atol=1e-3)
        assert step.index or (sample - original).abs().max() > 0.1


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_noised_and_target_are_the_schedulers_own(name):
    grid, fresh = made(name, "v_prediction"), made(name)
    fresh.set_timesteps(4)
    original, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    for _, step in list(steps(grid)):
        at = step.timestep.expand(2)
        add = fresh.scale_noise if name.startswith("Flow") else fresh.add_noise
        expected = add(original, noise=noise, **{"timestep" if name.startswith("Flow") else "timesteps": at})
        assert torch.allclose(noised(grid, step, original, noise), expected, rtol=1e-5, atol=1e-5)
        if hasattr(fresh, "get_velocity"):
            velocity = made("DDIMScheduler").get_velocity(original, noise, at.long())  # Euler's own looks up the index
            assert torch.allclose(target(grid, step, original, noise), velocity, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_the_exact_denoisers_original_is_the_posterior_mean(name):
    pipe = analytic_pipeline(gaussian(MEAN_B, VAR_B), scheduler(name))
    with double_precision(pipe.scheduler):
        result = rollout(pipe, prompt="", seeds=[1, 2], num_inference_steps=6, record=True)
        for step, affine in zip(result.steps, affine_steps(pipe.scheduler), strict=True):
            gain = affine.alpha * VAR_B / (affine.alpha**2 * VAR_B + affine.sigma**2)
            expected = MEAN_B + gain * (step.sample.flatten(1) - affine.alpha * MEAN_B)
            assert torch.allclose(predicted_original(pipe.scheduler, step).flatten(1), expected, rtol=0, atol=1e-8)


def test_the_gradient_reaches_sample_and_prediction():
    grid = made("DDIMScheduler", "epsilon")
    _, step = list(steps(grid))[1]
    sample, prediction = (x.clone().requires_grad_() for x in (step.sample, step.prediction))
    predicted_original(grid, replace(step, sample=sample, prediction=prediction)).sum().backward()
    alpha = float(grid.alphas_cumprod[step.timestep]) ** 0.5
    assert torch.allclose(sample.grad, torch.full_like(sample, 1 / alpha))
    assert torch.allclose(prediction.grad, torch.full_like(sample, -((1 - alpha**2) ** 0.5) / alpha))


def test_half_precision_is_computed_in_single():
    grid = made("DDIMScheduler", "epsilon")
    _, step = next(steps(grid))
    half = replace(step, sample=step.sample.bfloat16(), prediction=step.prediction.bfloat16())
    exact = replace(half, sample=half.sample.double(), prediction=half.prediction.double())
    found = predicted_original(grid, half)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, predicted_original(grid, exact).bfloat16())


def test_noise_depends_on_the_seed_alone():
    latents = torch.zeros(2, 5, 4, dtype=torch.float64)
    noise = noise_like(latents, [3, 4])
    assert torch.equal(noise.flip(0), noise_like(latents, [4, 3])) and noise.dtype == latents.dtype
    assert torch.equal(noise[0].float(), torch.randn(5, 4, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(ValueError, match="2 latents need as many seeds, not 1"):
        noise_like(latents, [3])


@pytest.mark.parametrize(
    ("grid", "kind"),
    [
        (lambda: diffusers.EDMEulerScheduler(), "epsilon"),
        (lambda: diffusers.SCMScheduler(), "trigflow"),
        (lambda: diffusers.DDIMScheduler(prediction_type="curl"), "curl"),
    ],
)
def test_unknown_predictions_are_refused_by_name(grid, kind):
    with pytest.raises(ValueError, match=f"{type(grid()).__name__} with prediction_type '{kind}'"):
        prediction_type(grid())
