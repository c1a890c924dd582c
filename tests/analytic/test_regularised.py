"""Training with the exact KL divergence of steps beside the reward: where it ends, and how far from the tilt."""

import pytest
import torch
from scipy.optimize import root

from sfumato.analytic import (
    QuadraticReward,
    affine_steps,
    analytic_pipeline,
    gaussian,
    gaussian_aig,
    tilt,
    trajectory_kl,
)
from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.training import Draft, Trainer
from tests.analytic.bed import scheduler
from tests.training.common import EXACT

STEPS, BETA = 6, 1.0
MEAN, VARIANCE = 0.5, 0.08**2
BASE = gaussian([MEAN] * 3, VARIANCE)
REWARD = QuadraticReward(linear=141.875, curvature=243.75)
"""With β = 1 the tilt is N(0.55, 0.05²)."""


def ddim():
    """A noise schedule whose log-SNR falls evenly, so that few steps resolve a narrow world."""
    signal = torch.sigmoid(torch.linspace(10.6, -5.0, 1000, dtype=torch.float64))
    betas = 1 - signal / torch.cat([torch.ones(1).double(), signal[:-1]])
    return scheduler("DDIMScheduler", trained_betas=betas.tolist(), timestep_spacing="trailing")


def steps_of(count):
    grid = ddim()
    grid.set_timesteps(count)
    return affine_steps(grid, eta=1.0)


def posterior(step, mean, variance):
    """Slope and offset of E[x0 | x]."""
    total = step.alpha**2 * variance + step.sigma**2
    return step.alpha * variance / total, step.sigma**2 * mean / total


def world(parameters):
    """Mean and variance, from coordinates in which the base is the origin."""
    return MEAN + VARIANCE**0.5 * parameters[0], VARIANCE * parameters[1].exp()


def objective(parameters, count):
    """E r - β KL of whole trajectories, of which `tilt` is the best if N is infinite."""
    numbers = MEAN, VARIANCE, *world(parameters)
    options = {"num_inference_steps": count, "eta": 1.0}
    mean, variance = gaussian_aig(*numbers, ddim(), "tuned", **options)
    reward = REWARD.linear * mean - REWARD.curvature * (variance + mean**2) / 2
    return reward - BETA * trajectory_kl(*numbers, ddim(), **options).sum()


def balance(function, count):
    """The world at which the gradient vanishes: mean and standard deviation."""

    def gradient(values):
        parameters = torch.tensor(values, requires_grad=True)
        return torch.autograd.grad(function(parameters, count), parameters)[0].numpy()

    found = root(gradient, [0.0, 0.0])
    assert found.success
    mean, variance = world(torch.tensor(found.x))
    return mean.item(), variance.item() ** 0.5


def test_the_best_for_reward_and_kl_of_trajectories_is_the_tilt_to_first_order():
    best = tilt(BASE, REWARD, BETA).world
    assert (best.mean[0].item(), best.variance[0].item() ** 0.5) == pytest.approx((0.55, 0.05))
    errors = []
    for count in (10, 20, 40):
        mean, spread = balance(objective, count)
        errors.append([0.55 - mean, spread - 0.05])
    coarse, middle, fine = torch.tensor(errors)
    assert bool((fine > 0).all())
    assert torch.allclose((coarse / middle).log2(), torch.ones(2), atol=0.2)
    assert torch.allclose((middle / fine).log2(), torch.ones(2), atol=0.2)


def test_draft_through_all_steps_with_their_exact_kl_ends_at_the_best(tmp_path):
    pipe = analytic_pipeline(BASE, ddim())
    settings = {"steps": 60, "batch_size": 64, "lr": 0.015, "lr_schedule": "cosine", "max_grad_norm": 1e3}
    lora = {"rank": 1, "targets": ["mean", "log_variance"]}
    penalty = {"kl": {"coefficient": BETA, "form": "gaussian"}}
    never = {"monitor_every": None, "checkpoint_every": 1000}
    config = TrainingConfig.model_validate(
        {**settings, **never, "lora": lora, "regularizers": penalty, "prefix": EXACT}
    )
    sampling = SamplingConfig(num_inference_steps=STEPS, guidance_scale=1.0, arguments={"eta": 1.0})
    Trainer(pipe, Draft(STEPS), REWARD, [""], config, sampling, tmp_path).run()
    mean, spread = balance(objective, STEPS)
    assert MEAN + 0.02 < mean < REWARD.linear / REWARD.curvature - 0.02
    assert pipe.world().mean.tolist() == pytest.approx([mean] * 3, abs=0.005)
    assert pipe.world().variance.sqrt().tolist() == pytest.approx([spread] * 3, abs=0.003)
