import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.analytic import QuadraticReward, gaussian, gaussian_entropy, gaussian_kl, mixture, tilt

REWARD = QuadraticReward(linear=[0.7], curvature=[0.4], constant=-0.3)
MIXTURE = mixture([0.3, 0.7], [[-1.0], [2.0]], [[0.5], [1.5]])
GRID = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]


def integral(values):
    return torch.trapezoid(values, GRID[:, 0])


@pytest.mark.parametrize("world", [gaussian(0.5, 2.0), MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_the_tilted_optimum_by_quadrature(world, beta):
    tilted = tilt(world, REWARD, beta)
    exponent = world.log_prob(GRID) + REWARD(GRID) / beta
    log_z = integral(exponent.exp()).log()
    density = (exponent - log_z).exp()
    assert tilted.log_normalizer.item() == pytest.approx(log_z.item(), abs=1e-10)
    assert torch.allclose(tilted.world.log_prob(GRID).exp(), density, atol=1e-10)
    kl = integral(density * (exponent - log_z - world.log_prob(GRID)))
    assert tilted.kl.item() == pytest.approx(kl.item(), abs=1e-10)
    assert tilted.reward.item() == pytest.approx(integral(density * REWARD(GRID)).item(), abs=1e-10)


@given(
    mean=st.floats(-2, 2),
    variance=st.floats(0.1, 3),
    shift=st.floats(-1, 1),
    stretch=st.floats(0.3, 3),
    beta=st.floats(0.1, 5),
)
@settings(max_examples=50, deadline=None)
def test_no_other_gaussian_is_better(mean, variance, shift, stretch, beta):
    base = gaussian(mean, variance)
    best = tilt(base, REWARD, beta)
    other = gaussian(best.world.mean + shift, best.world.variance * stretch)

    def objective(world):
        return REWARD.expectation(world) - beta * gaussian_kl(world.mean, world.variance, mean, variance).sum()

    assert objective(other) <= objective(best.world) + 1e-9
    assert objective(best.world).item() == pytest.approx(beta * best.log_normalizer.item(), abs=1e-8)


def test_collapse_is_inevitable_as_the_penalty_vanishes():
    """The optimum becomes a point mass on argmax r: reward to its maximum, entropy to -∞, KL to ∞."""
    base, argmax = mixture([0.5, 0.5], [[-3.0], [3.0]], [[1.0], [1.0]]), 0.7 / 0.4
    best = [tilt(base, REWARD, beta) for beta in (1.0, 1e-2, 1e-4, 1e-6)]
    variances = [t.world.variance.item() for t in best]
    assert variances == sorted(variances, reverse=True)
    assert variances[-1] == pytest.approx(1e-6 / 0.4, rel=1e-3)
    assert best[-1].world.mean.item() == pytest.approx(argmax, abs=1e-4)
    assert best[-1].reward.item() == pytest.approx(REWARD.range[1], abs=1e-5)
    kls = [t.kl.item() for t in best]
    assert kls[-1] - kls[-2] == pytest.approx(math.log(100) / 2, abs=0.01)
    entropies = [gaussian_entropy(v).item() for v in variances]
    assert entropies[-2] - entropies[-1] == pytest.approx(math.log(100) / 2, abs=0.01)


def test_gaussian_kl_and_entropy_by_quadrature():
    p, q = gaussian(0.3, 0.5), gaussian(-1.0, 2.0)
    log_p = p.log_prob(GRID)
    kl = integral(log_p.exp() * (log_p - q.log_prob(GRID)))
    assert gaussian_kl(0.3, 0.5, -1.0, 2.0).item() == pytest.approx(kl.item(), abs=1e-10)
    assert gaussian_entropy(0.5).item() == pytest.approx(-integral(log_p.exp() * log_p).item(), abs=1e-10)


def test_the_reward_takes_images_and_prompts():
    reward = QuadraticReward(linear=torch.tensor([1.0, 0.0, 2.0]), curvature=2.0, constant=0.5)
    images = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]).reshape(2, 3, 1, 1)
    assert reward(images, ["a", "b"]).tolist() == [0.5 + 7 - 14, 0.5]
    assert (reward.differentiable and reward.range == (-math.inf, math.inf)) or reward.range[1] < math.inf


def test_an_optimum_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="raise beta"):
        tilt(gaussian(0.0, 1.0), QuadraticReward(linear=0.0, curvature=-1.0), beta=0.9)
    assert tilt(gaussian(0.0, 1.0), QuadraticReward(linear=0.0, curvature=-1.0), beta=2.0).world.variance.item() == 2.0
    with pytest.raises(ValueError, match="point mass"):
        tilt(gaussian(0.0, 1.0), REWARD, beta=0.0)
