"""Mixtures and bridges as laws on the line, against closed forms and a plain sum on a fine grid."""

import math

import pytest
import torch

from sfumato.analytic import QuadraticReward, bridge, gaussian, gaussian_entropy, gaussian_kl, law_of, mixture, tilt
from tests.analytic.mixture_bed import BASE, TUNED, VALLEY

GRID = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
REWARD = QuadraticReward(linear=0.7, curvature=0.4, constant=-0.3)


def integral(values):
    return torch.trapezoid(values, GRID[:, 0]).item()


def test_a_single_gaussian_has_its_closed_forms():
    law = law_of(gaussian(0.3, 0.5))
    assert (law.mean, law.variance) == pytest.approx((0.3, 0.5), abs=1e-12)
    assert law.entropy == pytest.approx(gaussian_entropy(0.5).item(), abs=1e-11)
    assert law.kl(gaussian(-1.0, 2.0)) == pytest.approx(gaussian_kl(0.3, 0.5, -1.0, 2.0).item(), abs=1e-11)
    assert law.expectation(REWARD) == pytest.approx(REWARD.expectation(gaussian(0.3, 0.5)).item(), abs=1e-11)


def test_a_mixture_s_entropy_kl_and_modes_are_those_of_a_fine_grid():
    law, log_p = law_of(BASE, cuts=[VALLEY]), BASE.log_prob(GRID)
    p = log_p.exp()
    assert law.entropy == pytest.approx(-integral(p * log_p), abs=1e-9)
    assert law.kl(TUNED) == pytest.approx(integral(p * (log_p - TUNED.log_prob(GRID))), abs=1e-7)
    left = torch.special.ndtr(torch.tensor([(VALLEY + 1.5) / 0.5, (VALLEY - 1.5) / 0.4]).double())
    low, high = law.modes()
    assert low.weight == pytest.approx((0.6 * left[0] + 0.4 * left[1]).item(), abs=1e-10)
    assert low.weight + high.weight == pytest.approx(1.0, abs=1e-10)
    assert low.weight * low.mean + high.weight * high.mean == pytest.approx(BASE.mean.item(), abs=1e-10)
    between = sum(m.weight * (m.variance + (m.mean - law.mean) ** 2) for m in (low, high))
    assert between == pytest.approx(BASE.variance.item(), abs=1e-10)


def test_the_tilted_optimum_of_a_mixture_has_the_kl_of_its_formula():
    tilted = tilt(BASE, REWARD, 0.5)
    law = law_of(tilted.world)
    assert law.kl(BASE) == pytest.approx(tilted.kl.item(), abs=1e-9)
    assert law.expectation(REWARD) == pytest.approx(tilted.reward.item(), abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.4])
def test_the_bridge_between_gaussians_is_the_gaussian_of_mixed_precisions(weight):
    found = bridge(gaussian(0.0, 1.0), gaussian(1.0, 0.25), weight, 0.8, 0.6)
    noised = 0.64 * 1.0 + 0.36, 0.64 * 0.25 + 0.36
    precision = (1 - weight) / noised[0] + weight / noised[1]
    law = found.law()
    assert law.variance == pytest.approx(1 / precision, abs=1e-10)
    assert law.mean == pytest.approx(weight * 0.8 / noised[1] / precision, abs=1e-10)
    assert law.entropy == pytest.approx(gaussian_entropy(1 / precision).item(), abs=1e-10)


@pytest.mark.parametrize("weight", [0.5, -0.2])
def test_the_bridge_between_mixtures_is_normalised(weight):
    found = bridge(BASE, TUNED, weight, 0.9, 0.436)
    base, tuned = BASE.noised(0.9, 0.436), TUNED.noised(0.9, 0.436)
    raw = (1 - weight) * base.log_prob(GRID) + weight * tuned.log_prob(GRID)
    assert found.log_normalizer == pytest.approx(math.log(integral(raw.exp())), abs=1e-9)
    assert integral(found.log_prob(GRID).exp()) == pytest.approx(1.0, abs=1e-9)
    assert float(found.law(cuts=[VALLEY]).masses.sum()) == pytest.approx(1.0, abs=1e-9)


def test_the_bridge_of_a_world_with_itself_is_the_world():
    assert bridge(BASE, BASE, 0.4).law().kl(BASE) == pytest.approx(0.0, abs=1e-10)


def test_a_bridge_without_limit_and_worlds_of_more_dimensions_are_refused():
    with pytest.raises(ValueError, match="without limit"):
        bridge(gaussian(0.0, 1.0), gaussian(0.0, 0.25), -1.0)
    with pytest.raises(ValueError, match="one dimension"):
        law_of(mixture([1.0], [[0.0, 1.0]], 1.0))
