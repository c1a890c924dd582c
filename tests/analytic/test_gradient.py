"""The gradient that a rollout carries through its last K steps against the derivative worked out by hand."""

import contextlib

import pytest
import torch

from sfumato.analytic import (
    QuadraticReward,
    affine_steps,
    analytic_pipeline,
    double_precision,
    gaussian,
    gaussian_aig,
)
from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.grids import Grid
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.schedules import schedule
from sfumato.training import Draft, Trainer
from tests.analytic.bed import MEAN_B, MEAN_R, VAR_B, VAR_R, run, scheduler, tuned_pipeline
from tests.training.common import EXACT

STEPS, REWARD = 8, QuadraticReward(linear=torch.tensor([0.5, -1.0, 2.0]), curvature=torch.tensor([1.0, 0.0, 0.3]))


def by_hand(grid, weights, last_steps):
    """d E[r] / d mean and d log-variance of the tuned world, which the last K steps alone depend on.

    The samples are M + G · ξ with ξ ~ N(0, 1); forward-mode derivatives of M and G by both parameters.
    """
    mean, gain = torch.zeros(3).double(), torch.full((3,), float(getattr(grid, "init_noise_sigma", 1.0))).double()
    d_mean, d_gain = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for index, (step, g) in enumerate(zip(affine_steps(grid), weights, strict=True)):
        totals = [step.alpha**2 * v + step.sigma**2 for v in (VAR_B, VAR_R)]
        slopes = [step.alpha * v / total for v, total in zip((VAR_B, VAR_R), totals, strict=True)]
        offsets = [m * step.sigma**2 / total for m, total in zip((MEAN_B, MEAN_R), totals, strict=True)]
        slope, offset = ((1 - g) * b + g * r for b, r in (slopes, offsets))
        by_variance = VAR_R * step.sigma**2 / totals[1] ** 2
        d_slope = torch.stack([torch.zeros(3).double(), step.alpha * by_variance])
        d_offset = torch.stack([step.sigma**2 / totals[1], -MEAN_R * step.alpha**2 * by_variance])
        factor = step.keep + step.follow * slope
        push = step.follow * g if index >= STEPS - last_steps else 0.0
        d_mean, d_gain = factor * d_mean + push * (d_slope * mean + d_offset), factor * d_gain + push * d_slope * gain
        mean, gain = factor * mean + step.follow * offset, factor * gain
    linear, curvature = REWARD.terms(mean)
    return (linear - curvature * mean) * d_mean - curvature * gain * d_gain


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
@pytest.mark.parametrize("last_steps", [1, 3, STEPS])
@pytest.mark.parametrize("guided", [False, True], ids=["tuned", "AIG"])
def test_gradient_of_the_expected_reward(name, last_steps, guided):
    pipe = tuned_pipeline(name)
    g = schedule("power", p=2) if guided else schedule("tuned")
    with double_precision(pipe.scheduler), annealed_guidance(pipe, g) if guided else contextlib.nullcontext():
        images = run(pipe, [1.0, -1.0], STEPS, last_steps=last_steps)  # has the two moments of N(0, 1) exactly
        REWARD(images).mean().backward()
        expected = by_hand(pipe.scheduler, g.weights(Grid(STEPS, {})), last_steps)
    for head, derivative in zip((pipe.unet.mean, pipe.unet.log_variance), expected, strict=True):
        a, b = head.lora_A["default"].weight, head.lora_B["default"].weight
        assert torch.allclose(b.grad, derivative[:, None] @ a.detach().T, rtol=0, atol=1e-8)
        assert torch.allclose(a.grad, b.detach().T @ derivative[:, None], rtol=0, atol=1e-8)


def test_the_law_itself_is_differentiable():
    grid = scheduler("DDIMScheduler")
    grid.set_timesteps(STEPS)
    mean, log_variance = MEAN_R.clone().requires_grad_(), VAR_R.log().requires_grad_()
    law = gaussian_aig(MEAN_B, VAR_B, mean, log_variance.exp(), grid, "linear")
    REWARD.expectation(gaussian(*law)).backward()
    expected = by_hand(grid, [i / (STEPS - 1) for i in range(STEPS)], STEPS)
    assert torch.allclose(torch.stack([mean.grad, log_variance.grad]), expected, rtol=1e-10)


def trained(folder, kl):
    """The worlds (mean, variance) that DRaFT makes of N(m, 0.05²), with a reward that is greatest at 0.7.

    The trainer's rewards want images in [0, 1], which these worlds leave at ten standard deviations only.
    """
    pipe = analytic_pipeline(gaussian([0.4, 0.5, 0.6], 0.05**2), scheduler("DDIMScheduler"))
    settings = {"steps": 60, "batch_size": 16, "lr": 0.03, "checkpoint_every": 60, "monitor_every": None}
    parts = {"lora": {"rank": 1, "targets": ["mean", "log_variance"]}, "regularizers": {"kl": kl}}
    config = TrainingConfig.model_validate({**settings, "prefix": EXACT, **parts})
    sampling = SamplingConfig(num_inference_steps=STEPS, guidance_scale=1.0)
    reward = QuadraticReward(linear=70.0, curvature=100.0)
    records = Trainer(pipe, Draft(last_steps=2), reward, [""], config, sampling, folder).run()
    return records, pipe.world().mean.detach(), pipe.world().variance.detach()


def test_training_collapses_onto_the_best_image_and_the_kl_penalty_holds_it(tmp_path):
    """The inevitability argument, run with the real trainer: a point mass at argmax r, unless something holds it."""
    records, mean, variance = trained(tmp_path / "free", kl=None)
    _, held_mean, held_variance = trained(tmp_path / "held", kl={"coefficient": 10.0})
    assert records[-1]["reward"] > records[0]["reward"]
    assert torch.allclose(mean, torch.full((3,), 0.7).double(), atol=0.02)
    assert bool((variance < 0.1 * 0.05**2).all())
    assert bool((held_variance > 5 * variance).all())
    assert bool((held_mean < mean).all())
