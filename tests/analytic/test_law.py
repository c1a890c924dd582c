"""The real pipeline, hook and scheduler against the closed form, to 1e-10 in float64."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.analytic import (
    affine_steps,
    analytic_pipeline,
    double_precision,
    gaussian,
    gaussian_aig,
    gaussian_kl,
    trajectory_kl,
)
from sfumato.pipelines.adapters import base_weights, lora_scale
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from tests.analytic.bed import MEAN_B, MEAN_R, VAR_B, VAR_R, WORLDS, affine_law, run, scheduler, tuned_pipeline

STEPS = 12
SCHEDULES = [
    {"schedule": "base"},
    {"schedule": "tuned"},
    {"schedule": "linear"},
    {"schedule": "power", "p": 2},
    {"schedule": "power", "p": 4, "cap": 0.5, "clock": "nemo"},
    {"schedule": "step", "f": 0.6},
    {"schedule": "constant", "w": 1.5},
    {"schedule": lambda u: 1 - u},
]
V_PREDICTION = {"prediction_type": "v_prediction"}
FIRST_ORDER = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {**V_PREDICTION, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ("DDIMScheduler", {"prediction_type": "sample", "steps_offset": 1, "set_alpha_to_one": False}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {**V_PREDICTION, "timestep_spacing": "leading"}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
]
WITH_MEMORY = [
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    ("HeunDiscreteScheduler", {}),
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("UniPCMultistepScheduler", {}),
]
STOCHASTIC = [
    ("DDIMScheduler", {}, {"eta": 1.0}),
    ("DDIMScheduler", V_PREDICTION, {"eta": 0.5}),
    ("DDPMScheduler", {}, {}),
    ("DDPMScheduler", {"variance_type": "fixed_large", "steps_offset": 1}, {}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, {}),
]


def close(law, closed_form, tolerance=1e-10):
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(law, closed_form, strict=True))


@pytest.mark.parametrize(("name", "config"), FIRST_ORDER)
def test_every_schedule_on_every_first_order_scheduler(name, config):
    pipe = tuned_pipeline(name, **config)
    with double_precision(pipe.scheduler):
        for schedule in SCHEDULES:
            with annealed_guidance(pipe, **schedule):
                law = affine_law(pipe, STEPS)
            assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, **schedule)), schedule


@pytest.mark.parametrize(("name", "config"), FIRST_ORDER)
def test_base_tuned_and_scaled_lora_without_guidance(name, config):
    pipe = tuned_pipeline(name, **config)
    with double_precision(pipe.scheduler):
        tuned = affine_law(pipe, STEPS)
        with base_weights(pipe):
            base = affine_law(pipe, STEPS)
        assert close(tuned, gaussian_aig(*WORLDS, pipe.scheduler, "tuned"))
        assert close(base, gaussian_aig(*WORLDS, pipe.scheduler, "base"))
        for scale in (0.25, 0.5, 1.5):
            with lora_scale(pipe, scale):
                law = affine_law(pipe, STEPS)
            mean, variance = MEAN_B + scale * (MEAN_R - MEAN_B), VAR_B ** (1 - scale) * VAR_R**scale
            assert close(law, gaussian_aig(mean, variance, 0, 1, pipe.scheduler, "base"))
            assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, "constant", w=scale, blend="weights"))


@pytest.mark.parametrize(("name", "config"), FIRST_ORDER[:1] + FIRST_ORDER[3:4] + FIRST_ORDER[5:])
def test_annealed_weights_and_a_second_model_as_base(name, config):
    pipe = tuned_pipeline(name, **config)
    tuned = analytic_pipeline(gaussian(MEAN_R, VAR_R), pipe.scheduler)
    base = analytic_pipeline(gaussian(MEAN_B, VAR_B), pipe.scheduler)
    with double_precision(pipe.scheduler):
        with annealed_guidance(pipe, "power", p=2, blend="weights"):
            law = affine_law(pipe, STEPS)
        assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, "power", p=2, blend="weights"))
        with annealed_guidance(tuned, "power", p=2, base=base):
            law = affine_law(tuned, STEPS)
        assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, "power", p=2))


@pytest.mark.parametrize(("name", "config"), WITH_MEMORY)
def test_schedulers_with_memory(name, config):
    pipe = tuned_pipeline(name, **config)
    with double_precision(pipe.scheduler):
        for schedule in SCHEDULES[2:5]:
            with annealed_guidance(pipe, **schedule):
                law = affine_law(pipe, STEPS)
            assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, **schedule)), schedule


@pytest.mark.parametrize(("name", "config", "arguments"), STOCHASTIC)
def test_stochastic_schedulers_by_the_gain_of_every_step_s_noise(name, config, arguments, monkeypatch):
    pipe = tuned_pipeline(name, **config)
    calls = iter(range(STEPS))

    def unit_noise(shape, *_, **__):
        noise = torch.zeros(shape, dtype=torch.float64)
        noise[2 + next(calls)] = 1.0
        return noise

    monkeypatch.setattr(sys.modules[type(pipe.scheduler).__module__], "randn_tensor", unit_noise)
    with double_precision(pipe.scheduler):
        with annealed_guidance(pipe, "power", p=2):
            ends = run(pipe, [0.0, 1.0, *[0.0] * STEPS], STEPS, **arguments)
        closed_form = gaussian_aig(*WORLDS, pipe.scheduler, "power", p=2, **arguments)
    gains = ends[1:] - ends[0]
    assert int((gains[1:] != 0).any(1).sum()) >= STEPS - 1
    assert close((ends[0], (gains**2).sum(0)), closed_form)


def test_in_float32_the_law_holds_to_rounding():
    pipe = tuned_pipeline("EulerDiscreteScheduler")
    with annealed_guidance(pipe, "linear"):
        law = affine_law(pipe, STEPS)
    assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, "linear"), 1e-5)
    assert pipe.scheduler.sigmas.dtype == torch.float32


@given(
    mean=st.floats(-3, 3),
    variance=st.floats(0.05, 5),
    weight=st.floats(-1, 2),
    name=st.sampled_from(["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]),
)
@settings(max_examples=30, deadline=None)
def test_blending_a_model_with_itself_changes_nothing(mean, variance, weight, name):
    grid = scheduler(name)
    base = gaussian_aig(mean, variance, 0.0, 1.0, grid, "base", num_inference_steps=10)
    blend = gaussian_aig(mean, variance, mean, variance, grid, "constant", w=weight, num_inference_steps=10)
    assert blend == pytest.approx(base, rel=1e-12)


def test_numbers_give_floats_and_the_scheduler_is_left_alone():
    grid = scheduler("DDIMScheduler")
    mean, variance = gaussian_aig(0, 1, 0.5, 0.25, grid, "linear", num_inference_steps=20)
    assert isinstance(mean, float) and isinstance(variance, float)
    assert grid.num_inference_steps is None
    grid.set_timesteps(20)
    assert (mean, variance) == gaussian_aig(0, 1, 0.5, 0.25, grid, "linear")


@pytest.mark.parametrize(
    ("grid", "arguments", "message"),
    [
        (scheduler("DDIMScheduler"), {}, "set_timesteps"),
        (scheduler("DDIMScheduler"), {"num_inference_steps": 5, "blend": "both"}, "blend"),
        (scheduler("EulerDiscreteScheduler"), {"num_inference_steps": 5, "eta": 1.0}, "eta"),
        (scheduler("PNDMScheduler"), {"num_inference_steps": 5, "eta": 1.0}, "eta"),
        (scheduler("DDPMScheduler", variance_type="learned"), {"num_inference_steps": 5}, "variance_type"),
        (scheduler("IPNDMScheduler"), {"num_inference_steps": 5}, "noise levels"),
        (scheduler("KDPM2AncestralDiscreteScheduler"), {"num_inference_steps": 5}, "draws noise"),
        (scheduler("DPMSolverMultistepScheduler", thresholding=True), {"num_inference_steps": 5}, "clips"),
    ],
)
def test_what_has_no_closed_form_is_refused(grid, arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_aig(0.0, 1.0, 0.0, 0.5, grid, "linear", **arguments)


def test_clipping_and_bad_variances_are_refused():
    grid = type(scheduler("DDIMScheduler"))()
    with pytest.raises(ValueError, match="clip_sample=False"):
        gaussian_aig(0, 1, 0, 1, grid, "base", num_inference_steps=5)
    with pytest.raises(ValueError, match="positive"):
        gaussian_aig(0, 1, 0, 0, scheduler("DDIMScheduler"), "base", num_inference_steps=5)


def test_trajectory_kl_is_that_of_the_real_steps():
    """With equal variances the two models' steps differ by the same amount everywhere: one image is enough."""
    pipe = analytic_pipeline(gaussian(MEAN_R, VAR_B), scheduler("DDIMScheduler"))
    base = analytic_pipeline(gaussian(MEAN_B, VAR_B), pipe.scheduler)
    with double_precision(pipe.scheduler):
        rows = trajectory_kl(MEAN_B, VAR_B, MEAN_R, VAR_B, pipe.scheduler, num_inference_steps=STEPS, eta=1.0)
        recorded = rollout(pipe, prompt="", seeds=[3], num_inference_steps=STEPS, eta=1.0, record=True)
        noises = [step.noise for step in affine_steps(pipe.scheduler, eta=1.0)]
        assert len(rows) == STEPS - 1 and noises[-1] == 0.0
        for index, row in enumerate(rows):
            tuned, other = recorded.steps[index].next_sample, replay(base, recorded, index).next_sample
            assert torch.allclose(((tuned - other).flatten() / noises[index]) ** 2 / 2, row, rtol=0, atol=1e-10)


def test_trajectory_kl_averages_over_the_tuned_model_s_own_trajectories():
    pipe = tuned_pipeline("DDIMScheduler")
    recorded = rollout(pipe, prompt="", seeds=range(1500), num_inference_steps=4, eta=1.0, record=True)
    rows = trajectory_kl(*WORLDS, pipe.scheduler, eta=1.0)
    with base_weights(pipe):
        steps = [(replay(pipe, recorded, i).next_sample, recorded.steps[i].next_sample) for i in range(3)]
    noises = [step.noise for step in affine_steps(pipe.scheduler, eta=1.0)]
    for (base, tuned), row, noise in zip(steps, rows, noises, strict=False):
        sampled = ((base - tuned).flatten(1) ** 2).mean(0) / (2 * noise**2)
        assert torch.allclose(sampled, row, rtol=0.15)


def test_trajectory_kl_bounds_the_images_kl_and_reaches_it():
    """Both reverse processes belong to one forward process, so that in the limit no information is lost on the way."""
    grid = scheduler("DDPMScheduler")
    totals = [trajectory_kl(*WORLDS, grid, num_inference_steps=n).sum(0) for n in (50, 200, 1000)]
    for n, total in zip((50, 200, 1000), totals, strict=True):
        images = [gaussian_aig(*WORLDS, grid, g, num_inference_steps=n) for g in ("tuned", "base")]
        assert bool((gaussian_kl(*images[0], *images[1]) <= total + 1e-3).all())
    exact = gaussian_kl(MEAN_R, VAR_R, MEAN_B, VAR_B)
    assert torch.allclose(totals[-1], exact, rtol=0.03, atol=1e-3)
    assert bool(((totals[-1] - exact).abs() <= (totals[0] - exact).abs()).all())


def test_deterministic_steps_have_no_kl():
    with pytest.raises(ValueError, match="deterministic"):
        trajectory_kl(*WORLDS, scheduler("DDIMScheduler"), num_inference_steps=5)
