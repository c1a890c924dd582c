"""The law of a scheduler's step, read off the scheduler itself, against formulas; and which schedulers have one."""

import math
from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from sfumato.analytic import affine_steps
from sfumato.pipelines.rollout import replay, rollout
from sfumato.pipelines.stochastic import (
    log_prob,
    noise_of,
    planned_stochastic_steps,
    step_mean,
    step_std,
    stochastic_steps,
    transition_kl,
)
from tests import tiny

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNCLIPPED = {**BETAS, "clip_sample": False}
UP_TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
SDE = {**BETAS, "algorithm_type": "sde-dpmsolver++", "solver_order": 1}
FIRST_PASSES = [
    ("sd", "ddim-eta-1"),
    ("sdxl", "euler-ancestral"),
    ("sd3", "flow-stochastic"),
    ("flux", "flow-stochastic"),
]


def recorded(scheduler, family="sd", **arguments):
    """A recorded rollout of two images with any scheduler, or with one of the tiny ones by name."""
    if isinstance(scheduler, str):
        pipe = tiny.shared(family, lora=True, scheduler=scheduler)
        arguments = {**tiny.SCHEDULERS[scheduler][2], **arguments}
    else:
        pipe = tiny.pipeline(family)
        pipe.scheduler = scheduler
    return pipe, rollout(pipe, seeds=[7, 8], record=True, **tiny.call(family, steps=4), **arguments)


def laws(pipe, result):
    """(step, its mean, its standard deviation) of every stochastic step."""
    steps = [result.steps[place] for place in stochastic_steps(pipe, result)]
    return [(step, step_mean(pipe, step, step.prediction), step_std(pipe, step)) for step in steps]


@pytest.mark.parametrize(
    ("scheduler", "eta"),
    [
        (diffusers.DDPMScheduler(**UNCLIPPED), 0.0),
        (diffusers.DDPMScheduler(**UNCLIPPED, variance_type="fixed_large"), 0.0),
        (diffusers.DDIMScheduler(**UNCLIPPED, steps_offset=1), 1.0),
        (diffusers.DDIMScheduler(**UNCLIPPED), 0.3),
        (diffusers.EulerAncestralDiscreteScheduler(**BETAS), 0.0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else f"eta {value}",
)
def test_mean_and_deviation_are_those_of_the_formulas(scheduler, eta):
    pipe, result = recorded(scheduler, eta=eta)
    formulas = affine_steps(pipe.scheduler, eta)
    found = laws(pipe, result)
    assert [step.index for step, _, _ in found] == [0, 1, 2] and formulas[3].noise == 0
    for step, mean, std in found:
        formula = formulas[step.index]
        image = (step.sample - formula.sigma * step.prediction) / formula.alpha
        torch.testing.assert_close(mean, formula.keep * step.sample + formula.follow * image, rtol=1e-5, atol=1e-5)
        assert std.shape == () and float(std) == pytest.approx(formula.noise, rel=1e-5)


def test_first_order_sde_solver_and_lcm_have_the_laws_of_their_papers():
    """DPM-Solver++, arXiv 2211.01095, the SDE of first order; LCM, arXiv 2310.04378, algorithm 3."""
    pipe, result = recorded(diffusers.DPMSolverMultistepScheduler(**SDE))
    sigmas = pipe.scheduler.sigmas.double()
    for step, mean, std in laws(pipe, result):
        (alpha, sigma), (alpha_next, sigma_next) = (
            (1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()) for s in sigmas[step.index : step.index + 2]
        )
        h = (alpha_next / sigma_next).log() - (alpha / sigma).log()
        image = (step.sample - sigma * step.prediction) / alpha
        expected = sigma_next / sigma * (-h).exp() * step.sample + alpha_next * (1 - (-2 * h).exp()) * image
        torch.testing.assert_close(mean, expected.float(), rtol=1e-4, atol=1e-5)
        assert float(std) == pytest.approx(float(sigma_next * (1 - (-2 * h).exp()).sqrt()), rel=1e-4)

    pipe, result = recorded(diffusers.LCMScheduler(**UNCLIPPED, timestep_scaling=1e4))  # c_skip = 0, c_out = 1
    found = laws(pipe, result)
    assert [step.index for step, _, _ in found] == [0, 1, 2]
    table = pipe.scheduler.alphas_cumprod
    for step, mean, std in found:
        now, after = table[step.timestep], table[pipe.scheduler.timesteps[step.index + 1]]
        image = (step.sample - (1 - now).sqrt() * step.prediction) / now.sqrt()
        torch.testing.assert_close(mean, after.sqrt() * image, rtol=1e-4, atol=1e-4)
        assert float(std) == pytest.approx(math.sqrt(1 - after), rel=1e-6)


def test_what_ddpm_has_in_place_of_no_noise_counts_as_none():
    """Its last step has a variance of 1e-20 if it does not start from timestep 0."""
    pipe, result = recorded(diffusers.DDPMScheduler(**UNCLIPPED, steps_offset=1))
    assert float(step_std(pipe, result.steps[3])) == pytest.approx(1e-10)
    assert stochastic_steps(pipe, result) == [0, 1, 2]


@pytest.mark.parametrize(("family", "scheduler"), FIRST_PASSES)
def test_on_the_first_pass_the_ratio_is_exactly_one(family, scheduler):
    pipe, result = recorded(scheduler, family)
    places = stochastic_steps(pipe, result)
    assert places == [0, 1, 2]
    for place in reversed(places):
        step, again = result.steps[place], replay(pipe, result, place, grad=True)
        std = step_std(pipe, step)
        old = log_prob(step.next_sample, step_mean(pipe, step, step.prediction), std)
        new = log_prob(step.next_sample, step_mean(pipe, step, again.prediction), std)
        assert torch.equal((new - old).exp(), torch.ones(2).double())
        assert new.requires_grad and not old.requires_grad


def test_the_recorded_sample_is_mean_plus_noise_and_other_predictions_have_other_means():
    pipe, result = recorded("ddim-eta-1")
    for step, mean, std in laws(pipe, result):
        z = noise_of(pipe, step)
        assert abs(float(z.mean())) < 0.2 and float(z.std()) == pytest.approx(1, abs=0.15)
        torch.testing.assert_close(mean + std * z, step.next_sample, rtol=0, atol=1e-5)
    other = step_mean(pipe, step, step.prediction + 0.1)
    assert (other - mean).abs().min() > 0
    assert not noise_of(pipe, result.steps[-1]).equal(z)


def test_the_gradient_of_a_log_probability_by_the_prediction():
    """(x' - μ) / std² times dμ / dprediction, the same number for all elements of a step."""
    pipe, result = recorded("euler-ancestral")
    step = result.steps[1]
    formula, std = affine_steps(pipe.scheduler)[1], step_std(pipe, step)
    prediction = step.prediction.clone().requires_grad_()
    mean = step_mean(pipe, step, prediction)
    log_prob(step.next_sample, mean, std).sum().backward()
    expected = (step.next_sample - mean.detach()) / std**2 * (-formula.follow * formula.sigma / formula.alpha)
    torch.testing.assert_close(prediction.grad, expected, rtol=1e-3, atol=1e-3)


def test_half_precision_has_its_law_in_single():
    pipe = tiny.pipeline("sd", scheduler="ddim-eta-1").to(torch.bfloat16)
    result = rollout(pipe, seeds=[7, 8], record=True, eta=1.0, **tiny.call("sd", steps=4))
    found = laws(pipe, result)
    assert len(found) == 3
    for step, mean, std in found:
        assert step.next_sample.dtype == torch.bfloat16 and mean.dtype == torch.float32
        assert (mean - mean.bfloat16()).any()
        assert log_prob(step.next_sample, mean, std).dtype == torch.float64


def test_log_probabilities_are_densities():
    """Against torch's own normal law, and by integration."""
    generator = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 3, 4, 5, generator=generator).double()
    std = torch.tensor(0.3)
    expected = torch.distributions.Normal(mean, std.double()).log_prob(x)
    torch.testing.assert_close(log_prob(x, mean, std), expected.flatten(1).sum(1))
    torch.testing.assert_close(log_prob(x, mean, std, average=True), expected.flatten(1).mean(1))
    grid = torch.linspace(-4, 6, 20_001).double()
    density = log_prob(grid[:, None], torch.full((20_001, 1), 1.2), std).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9)
    with pytest.raises(ValueError, match="no density"):
        log_prob(x, mean, torch.tensor(0.0))


def test_the_kl_of_two_steps_is_that_of_two_normal_laws():
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 3, 4, 5, generator=generator)
    one, two = (torch.distributions.Normal(value.double(), 0.3) for value in (mean, other))
    expected = torch.distributions.kl_divergence(one, two).flatten(1).sum(1)
    torch.testing.assert_close(transition_kl(mean, other, torch.tensor(0.3).double()), expected)


ACCEPTED = {
    "DDPM, clipping": ("DDPMScheduler", BETAS, {}),
    "DDPM, v": ("DDPMScheduler", {**UNCLIPPED, "prediction_type": "v_prediction"}, {}),
    "DDPM, parallel": ("DDPMParallelScheduler", UNCLIPPED, {}),
    "DDIM, thresholding": ("DDIMScheduler", {**UNCLIPPED, "thresholding": True}, {"eta": 1.0}),
    "DDIM, parallel": ("DDIMParallelScheduler", UNCLIPPED, {"eta": 1.0}),
    "Euler, ancestral, v": ("EulerAncestralDiscreteScheduler", {**BETAS, "prediction_type": "v_prediction"}, {}),
    "LCM": ("LCMScheduler", BETAS, {}),
    "TCD": ("TCDScheduler", UNCLIPPED, {"eta": 0.3}),
    "SDE-DPM": ("DPMSolverMultistepScheduler", {**SDE, "algorithm_type": "sde-dpmsolver", **UP_TO_SIGMA_MIN}, {}),
    "singlestep SDE-DPM++": ("DPMSolverSinglestepScheduler", {**SDE, **UP_TO_SIGMA_MIN}, {}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_scheduler_with_gaussian_steps_is_accepted(name):
    scheduler, config, arguments = ACCEPTED[name]
    pipe, result = recorded(getattr(diffusers, scheduler)(**config), **arguments)
    places = stochastic_steps(pipe, result)
    assert places[:3] == [0, 1, 2]
    assert planned_stochastic_steps(pipe, **{**tiny.call("sd", count=1, steps=4), **arguments}) == places


class Noisy(diffusers.DDIMScheduler):
    """Deterministic DDIM, then disturbed."""

    def step(self, model_output, timestep, sample, eta=0.0, generator=None, return_dict=True):
        after, *rest = super().step(model_output, timestep, sample, return_dict=False)
        return (self.disturbed(after, generator), *rest)


class Twice(Noisy):
    def disturbed(self, sample, generator):
        return sample + randn_tensor(sample.shape, generator) + randn_tensor(sample.shape, generator)


class Multiplied(Noisy):
    def disturbed(self, sample, generator):
        return sample * (1 + 0.1 * randn_tensor(sample.shape, generator))


class Uneven(Noisy):
    def disturbed(self, sample, generator):
        return sample + torch.linspace(0, 1, sample.shape[-1]) * randn_tensor(sample.shape, generator)


class Elsewhere(Noisy):
    source = torch.Generator().manual_seed(0)

    def disturbed(self, sample, generator):
        return sample + torch.empty_like(sample).normal_(generator=self.source)


REFUSED = {
    "DDIM": (diffusers.DDIMScheduler, UNCLIPPED, r"DDIMScheduler draws no noise here.*eta=1\.0.*DDPMScheduler"),
    "Euler": (diffusers.EulerDiscreteScheduler, BETAS, "EulerDiscreteScheduler draws no noise here.*choose DDPM"),
    "DPM++": (diffusers.DPMSolverMultistepScheduler, BETAS, "draws no noise"),
    "UniPC": (diffusers.UniPCMultistepScheduler, BETAS, "draws no noise"),
    "SDE-DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {**SDE, "solver_order": 2}, "earlier.*solver_order=1"),
    "SA": (diffusers.SASolverScheduler, BETAS, "SASolverScheduler depend on the predictions of earlier steps"),
    "KDPM2 ancestral": (diffusers.KDPM2AncestralDiscreteScheduler, BETAS, "KDPM2.* earlier steps"),
    "uneven": (Uneven, UNCLIPPED, "Uneven does not step to mean"),
    "twice": (Twice, UNCLIPPED, "Twice draws noise more than once"),
    "multiplied": (Multiplied, UNCLIPPED, "Multiplied does not step to mean"),
    "elsewhere": (Elsewhere, UNCLIPPED, "Elsewhere does not step to mean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_scheduler_is_refused_by_name_before_anything_is_sampled(name):
    scheduler, config, message = REFUSED[name]
    pipe = tiny.pipeline("sd")
    pipe.scheduler = scheduler(**config)
    before, sizes = tiny.footprint(pipe), tiny.counted(pipe.unet)
    with pytest.raises(ValueError, match=message):
        planned_stochastic_steps(pipe, **tiny.call("sd", count=1, steps=4))
    assert len(sizes) == 1
    after = tiny.footprint(pipe)
    unimportant = {"pipe": None, "denoiser": None}
    assert {**after, **unimportant} == {**before, **unimportant}


def test_a_denoiser_that_predicts_variances_too_is_refused():
    pipe, result = recorded("ddim-eta-1")
    step = replace(result.steps[0], prediction=result.steps[0].prediction.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match="variance_type"):
        stochastic_steps(pipe, replace(result, steps=[step]))


def test_a_deterministic_rollout_has_no_stochastic_steps():
    pipe, result = recorded("ddim")
    assert stochastic_steps(pipe, result) == []
    with pytest.raises(ValueError, match="record=True"):
        stochastic_steps(pipe, rollout(pipe, seeds=[1], **tiny.call("sd", count=1)))


def test_asking_for_the_law_of_a_step_leaves_nothing_behind():
    pipe, result = recorded("euler-ancestral")
    before, state = tiny.footprint(pipe), dict(vars(pipe.scheduler))
    laws(pipe, result)
    noise_of(pipe, result.steps[0])
    assert tiny.footprint(pipe) == before
    assert state["_step_index"] == pipe.scheduler._step_index
    assert torch.equal(state["timesteps"], pipe.scheduler.timesteps)
