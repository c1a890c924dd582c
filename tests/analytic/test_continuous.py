"""The law in the limit of infinitely many steps, and how samplers approach it."""

import math
from itertools import pairwise

import diffusers
import numpy
import pytest
import torch

from sfumato.analytic import (
    QuadraticReward,
    continuous_aig,
    continuous_law,
    gaussian,
    gaussian_aig,
    law_of,
    mixture_aig,
    tilt,
)
from tests.analytic.bed import WORLDS
from tests.analytic.mixture_bed import BASE, TUNED, VALLEY

SIGMA_MAX = 10.0


def euler(steps: int):
    """Euler on a uniform grid of σ from 10 to 0, so that u = 1 - σ / 10 in the limit."""
    grid = diffusers.EulerDiscreteScheduler()
    grid.set_timesteps(sigmas=numpy.linspace(SIGMA_MAX, 0, steps + 1).tolist())
    return grid


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.5])
def test_constant_weights_have_the_elementary_law(weight):
    _, v, _, w = WORLDS
    _, variance = continuous_law(*WORLDS, SIGMA_MAX, lambda sigma: weight)
    s = SIGMA_MAX**2
    assert torch.allclose(variance, s * (v / (v + s)) ** (1 - weight) * (w / (w + s)) ** weight, rtol=1e-10)


def test_one_model_keeps_its_own_marginals():
    """From N(0, σ²) the base model ends at the law that has noised variance σ² at σ_max."""
    mean_b, var_b, mean_r, var_r = WORLDS
    mean, variance = continuous_law(mean_b, var_b, mean_r, var_r, SIGMA_MAX, lambda sigma: 0.0)
    shrink = (var_b / (var_b + SIGMA_MAX**2)).sqrt()
    assert torch.allclose(mean, mean_b * (1 - shrink), atol=1e-10)
    assert torch.allclose(variance, (SIGMA_MAX * shrink) ** 2, rtol=1e-10)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_euler_converges_at_first_order(p):
    limit = torch.stack(continuous_law(*WORLDS, SIGMA_MAX, lambda sigma: (1 - sigma / SIGMA_MAX) ** p))
    errors = []
    for steps in (64, 128, 256, 512):
        law = torch.stack(gaussian_aig(*WORLDS, euler(steps), "power", p=p))
        errors.append(float((law - limit).abs().max()))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([1.0, 1.0, 1.0], abs=0.15)
    assert errors[-1] < 0.03


def test_a_constant_blend_is_not_another_kl_coefficient():
    """The counter-example to RLG's claim: half the weight is not twice β when the covariances differ."""
    base, reward = gaussian(0.0, 1.0), QuadraticReward(linear=0.0, curvature=3.0)
    assert tilt(base, reward, beta=1.0).world.variance.item() == pytest.approx(0.25, abs=1e-12)
    assert tilt(base, reward, beta=2.0).world.variance.item() == pytest.approx(0.4, abs=1e-12)
    _, blended = continuous_law(0.0, 1.0, 0.0, 0.25, 1e4, lambda sigma: 0.5)
    assert blended.item() == pytest.approx(0.5, abs=1e-6)


def test_for_equal_covariances_a_constant_blend_is_another_kl_coefficient():
    base, reward = gaussian(0.0, 1.0), QuadraticReward(linear=0.8)
    tuned, half = (tilt(base, reward, beta).world for beta in (1.0, 2.0))
    assert tuned.mean.item() == pytest.approx(0.8) and half.mean.item() == pytest.approx(0.4)
    mean, variance = continuous_law(0.0, 1.0, tuned.mean, 1.0, 1e5, lambda sigma: 0.5)
    assert mean.item() == pytest.approx(0.4, abs=1e-4)
    assert variance.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("weight", [lambda sigma: 0.3, lambda sigma: (1 - sigma / SIGMA_MAX) ** 2])
def test_with_one_component_mixtures_have_the_same_limit(weight):
    numbers = 0.5, 0.7, 1.5, 0.1
    mean, variance = continuous_law(*numbers, SIGMA_MAX, weight)
    law = continuous_aig(gaussian(*numbers[:2]), gaussian(*numbers[2:]), SIGMA_MAX, weight, steps=200)
    assert (law.mean, law.variance) == pytest.approx((mean.item(), variance.item()), abs=1e-7)


def test_one_mixture_keeps_its_own_marginals():
    """From N(0, σ²) rather than its noised marginal: the difference vanishes as σ_max grows."""
    far = [continuous_aig(BASE, TUNED, sigma, lambda _: 0.0, cuts=[VALLEY], steps=100) for sigma in (10.0, 100.0)]
    gaps = [law.kl(BASE) for law in far]
    assert 0 <= gaps[1] < gaps[0] / 20 < 1e-3
    assert far[1].modes()[0].weight == pytest.approx(law_of(BASE, cuts=[VALLEY]).modes()[0].weight, abs=1e-2)


def test_euler_reaches_the_limit_between_mixtures_at_first_order():
    limit = continuous_aig(BASE, TUNED, SIGMA_MAX, lambda sigma: (1 - sigma / SIGMA_MAX) ** 2, cuts=[VALLEY], steps=150)
    errors = []
    for steps in (64, 128, 256):
        law = mixture_aig(BASE, TUNED, euler(steps), "power", p=2, cuts=[VALLEY], accuracy=1e-5)
        gaps = law.mean - limit.mean, law.variance - limit.variance, law.entropy - limit.entropy
        errors.append([*gaps, law.kl(BASE) - limit.kl(BASE), law.modes()[0].weight - limit.modes()[0].weight])
    for coarse, fine in pairwise(torch.tensor(errors).abs().log2()):
        assert torch.allclose(coarse - fine, torch.ones(5), atol=0.25)
