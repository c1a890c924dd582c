import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.analytic import gaussian, mixture
from sfumato.analytic.worlds import PREDICTIONS

WORLD = mixture([0.2, 0.5, 0.3], [[0.0, 1.0], [2.0, -1.0], [-1.5, 0.5]], [[1.0, 0.3], [0.2, 2.0], [0.5, 0.5]])
level = st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 3.0))


def gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def test_a_single_gaussian_has_the_textbook_density_and_posterior():
    world = gaussian([1.0, -2.0], [0.5, 3.0])
    x = torch.tensor([[0.3, 0.7]]).double()
    reference = torch.distributions.Normal(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double().sqrt())
    assert torch.allclose(world.log_prob(x), reference.log_prob(x).sum(-1), rtol=1e-14)
    posterior = world.predict(x, 0.8, 0.6, "sample")
    mean, variance = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    expected = mean + 0.8 * variance / (0.64 * variance + 0.36) * (x - 0.8 * mean)
    assert torch.allclose(posterior, expected, rtol=1e-14)


@given(level)
@settings(max_examples=25, deadline=None)
def test_score_and_noise_prediction_are_the_gradient_of_the_noised_log_density(level):
    alpha, sigma = level
    noised = WORLD.noised(alpha, sigma)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    score = gradient(noised.log_prob, x)
    assert torch.allclose(noised.score(x), score, rtol=1e-10, atol=1e-12)
    assert torch.allclose(WORLD.predict(x, alpha, sigma, "epsilon"), -sigma * score, rtol=1e-10, atol=1e-12)


@given(level)
@settings(max_examples=25, deadline=None)
def test_all_predictions_say_the_same(level):
    alpha, sigma = level
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noise, image, v, velocity = (WORLD.predict(x, alpha, sigma, kind) for kind in PREDICTIONS)
    assert torch.allclose(alpha * image + sigma * noise, x, rtol=1e-12, atol=1e-12)
    assert torch.allclose(v, alpha * noise - sigma * image, rtol=1e-12)
    assert torch.allclose(velocity, noise - image, rtol=1e-12)


def test_the_denoiser_is_the_conditional_mean():
    generator = torch.Generator().manual_seed(3)
    x0 = WORLD.sample(200_000, generator)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    x = 0.8 * x0 + 0.6 * noise
    error = x0 - WORLD.predict(x, 0.8, 0.6, "sample")
    for feature in (torch.ones_like(x), x, x.sin()):
        assert (error * feature).mean(0).abs().max() < 0.01


def test_moments_are_those_of_samples():
    x = WORLD.sample(200_000, torch.Generator().manual_seed(4))
    assert torch.allclose(x.mean(0), WORLD.mean, atol=0.02)
    assert torch.allclose(x.var(0), WORLD.variance, rtol=0.02)


def test_noise_levels_may_differ_within_a_batch():
    x = torch.tensor([[0.5, 0.1], [0.2, -0.4]]).double()
    alpha, sigma = torch.tensor([[0.9], [0.4]]).double(), torch.tensor([[0.2], [0.8]]).double()
    both = WORLD.predict(x, alpha, sigma, "epsilon")
    for row in range(2):
        one = WORLD.predict(x[row], float(alpha[row]), float(sigma[row]), "epsilon")
        assert torch.allclose(both[row], one, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 1.0], [[0.0]], 1.0), "weights"),
        (([1.0], [[0.0]], 0.0), "positive"),
        (([0.0], [[0.0]], 1.0), "positive"),
        (([1.0], [[float("nan")]], 1.0), "finite"),
    ],
)
def test_bad_worlds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture(*arguments)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="choose one of"):
        WORLD.predict(torch.zeros(2).double(), 1.0, 1.0, "score")
