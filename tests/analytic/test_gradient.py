"""The gradient that a rollout carries through its last K steps against the derivative worked out by hand."""

import contextlib

import pytest
import torch

from sfumato.analytic import QuadraticReward, affine_steps, double_precision
from sfumato.pipelines.adapters import trainable
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.schedules import schedule
from tests.analytic.bed import MEAN_B, MEAN_R, VAR_B, VAR_R, run, tuned_pipeline

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
        expected = by_hand(pipe.scheduler, [g.at(i, STEPS) for i in range(STEPS)], last_steps)
    for head, derivative in zip((pipe.unet.mean, pipe.unet.log_variance), expected, strict=True):
        a, b = head.lora_A["default"].weight, head.lora_B["default"].weight
        assert torch.allclose(b.grad, derivative[:, None] @ a.detach().T, rtol=0, atol=1e-8)
        assert torch.allclose(a.grad, b.detach().T @ derivative[:, None], rtol=0, atol=1e-8)


def test_gradient_reaches_every_lora_matrix_and_ascent_finds_the_reward_s_maximum():
    """DRaFT without a KL penalty, on a reward with a maximum at 1: the collapse that theory foretells, step by step."""
    pipe = tuned_pipeline("DDIMScheduler")
    reward = QuadraticReward(linear=1.0, curvature=1.0)
    parameters = [p for name, p in pipe.unet.named_parameters() if "lora_B" in name and "log_weight" not in name]
    assert set(map(id, parameters)) < set(map(id, trainable(pipe.unet)))
    optimizer = torch.optim.Adam(parameters, lr=0.3)
    for _ in range(40):
        optimizer.zero_grad()
        (-reward(run(pipe, [1.0, -1.0], STEPS, last_steps=2)).mean()).backward()
        optimizer.step()
    assert torch.allclose(pipe.world().mean, torch.ones(3).double(), atol=0.1)
    assert bool((pipe.world().variance < 0.2 * VAR_R).all())
