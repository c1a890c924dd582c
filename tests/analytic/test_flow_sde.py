"""The flow SDE against its closed form in Gaussian worlds, and how fast that reaches the marginals of the ODE."""

from itertools import pairwise

import pytest
import torch

from sfumato.analytic import analytic_pipeline, double_precision, gaussian
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.sde import flow_sde
from sfumato.pipelines.stochastic import step_mean, step_std, stochastic_steps
from tests.analytic.bed import MEAN_R, VAR_R, scheduler
from tests.analytic.policy_bed import sde_steps

KIND = "FlowMatchEulerDiscreteScheduler"


def seen_law(steps, noise_level, window=None):
    """Mean and variance of what the real pipeline makes of N(0, 1), from its own steps read off as affine maps."""
    pipe = analytic_pipeline(gaussian(MEAN_R, VAR_R), scheduler(KIND))
    ends = torch.tensor([0.0, 1.0]).double().reshape(2, 1, 1, 1).expand(2, 3, 1, 1)
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    with double_precision(pipe.scheduler), flow_sde(pipe, noise_level, window):
        result = rollout(pipe, prompt="", seeds=[1, 2], latents=ends, record=True, num_inference_steps=steps)
        assert stochastic_steps(pipe, result) == list(range(*(window or (0, steps - 1))))
        for step in result.steps:
            x, after = step.sample.flatten(1), step_mean(pipe, step, step.prediction).flatten(1)
            gain = (after[1] - after[0]) / (x[1] - x[0])
            mean, variance = gain * (mean - x[0]) + after[0], gain**2 * variance + step_std(pipe, step) ** 2
    return mean, variance


def law(steps, noise_level, begin=0.0, end=1.0):
    """The same in closed form, for a window in parts of all steps, which leaves out the last one."""
    grid = scheduler(KIND)
    with double_precision(grid):
        grid.set_timesteps(steps)
        stochastic, ode = sde_steps(grid, noise_level), sde_steps(grid, 0.0)
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    for index in range(steps):
        step = stochastic[index] if begin <= index / steps < end else ode[index]
        total = step.alpha**2 * VAR_R + step.sigma**2
        gain = step.keep + step.follow * step.alpha * VAR_R / total
        mean, variance = gain * mean + step.follow * MEAN_R * step.sigma**2 / total, gain**2 * variance + step.noise**2
    return mean, variance


def error(steps, noise_level, begin=0.0, end=1.0):
    """Of the variance, relative, at most; the mean is exact at any number of steps."""
    mean, variance = law(steps, noise_level, begin, end)
    torch.testing.assert_close(mean, MEAN_R, rtol=0, atol=1e-9)
    return float((variance / VAR_R - 1).abs().max())


@pytest.mark.parametrize(("noise_level", "window"), [(0.7, None), (1.2, (0, 12)), (0.7, (3, 9))])
def test_the_pipelines_steps_are_those_of_the_closed_form(noise_level, window):
    begin, end = (0, 1) if window is None else (place / 15 for place in window)
    for seen, expected in zip(seen_law(15, noise_level, window), law(15, noise_level, begin, end), strict=True):
        torch.testing.assert_close(seen, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("window", [(0.2, 0.8), (0.1, 0.5)])
def test_a_window_away_from_pure_noise_keeps_the_marginals_to_order_1_over_n(window):
    errors = [error(steps, 0.7, *window) for steps in (100, 200, 400)]
    assert errors[0] < 0.025
    assert all(1.9 < before / after < 2.1 for before, after in pairwise(errors)), errors


def test_steps_at_pure_noise_keep_them_to_order_n_to_the_power_of_minus_a_squared():
    """Where s is infinite in the limit, the first steps err by a number that is forgotten at this rate only."""
    assert max(error(steps, 0.7) for steps in (100, 200, 400)) < 0.011
    assert error(3200, 0.7) < error(400, 0.7) / 2
    assert error(3200, 0.7) > 3 * error(3200, 0.0)
    assert error(1600, 1.0) < 0.0012
