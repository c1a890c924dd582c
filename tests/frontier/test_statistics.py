from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from sfumato.frontier import Interval, bootstrap, paired_difference
from sfumato.frontier.statistics import resampling_weights

SKEWED = np.random.default_rng(3).exponential(size=23)


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_agrees_with_scipy_on_the_same_resamples(method, level: float) -> None:
    means = resampling_weights(23, 2000, seed=7) @ SKEWED
    expected = scipy.stats.bootstrap(
        (SKEWED,),
        np.mean,
        method=method,
        confidence_level=level,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=means),
    ).confidence_interval
    found = bootstrap(SKEWED, method, level, repetitions=2000, seed=7)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert found.mean == pytest.approx(SKEWED.mean())


def test_agrees_with_scipy_on_its_own_resamples() -> None:
    expected = scipy.stats.bootstrap((SKEWED,), np.mean, method="BCa", n_resamples=20_000, rng=0).confidence_interval
    found = bootstrap(SKEWED, "bca", repetitions=20_000)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=0.02)


@pytest.mark.parametrize("method", ["expanded", "bca", "percentile"])
def test_covers_the_mean_as_often_as_it_says(method) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = bootstrap(random.normal(loc=3, size=60), method, repetitions=1000, seed=seed)
        covered += found.low <= 3 <= found.high
    assert 0.91 <= covered / 200 <= 0.99


def test_with_few_prompts_only_the_expanded_interval_covers_what_it_says() -> None:
    random = np.random.default_rng(0)
    covered = {"expanded": 0, "bca": 0}
    for seed in range(400):
        values = random.normal(size=8)
        for method in covered:
            found = bootstrap(values, method, repetitions=500, seed=seed % 5)
            covered[method] += found.low <= 0 <= found.high
    assert covered["expanded"] / 400 > 0.92 > covered["bca"] / 400


def test_expanding_is_that_of_students_t() -> None:
    symmetric = np.concatenate([SKEWED, -SKEWED])  # neither bias nor acceleration to speak of
    found = bootstrap(symmetric, repetitions=20_000)
    expected = scipy.stats.t.ppf(0.975, 45) * symmetric.std(ddof=1) / np.sqrt(46)
    assert (found.low, found.high) == pytest.approx((-expected, expected), rel=0.03)


def test_resamples_are_prompts_drawn_with_replacement() -> None:
    weights = resampling_weights(5, 20_000, seed=1)
    counts = weights * 5
    assert np.array_equal(counts, counts.round())
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(counts.mean(axis=0), 1, atol=0.03)
    assert np.allclose(counts.var(axis=0), 0.8, atol=0.05)  # multinomial: 1 - 1 / 5


def test_a_seed_repeats_it() -> None:
    assert bootstrap(SKEWED, seed=1) == bootstrap(SKEWED, seed=1)
    assert bootstrap(SKEWED, seed=1) != bootstrap(SKEWED, seed=2)


def test_pairing_removes_what_prompts_share() -> None:
    random = np.random.default_rng(0)
    difficulty = 10 * random.normal(size=20)
    a, b = difficulty + 1 + 0.1 * random.normal(size=20), difficulty
    found = paired_difference(a, b)
    assert 0.9 < found.low < 1 < found.high < 1.1
    assert paired_difference(b, a).high == pytest.approx(-found.low, abs=0.01)
    assert bootstrap(a).low < bootstrap(b).mean  # not seen without pairing


def test_shift_and_scale_pass_through() -> None:
    plain, moved = bootstrap(SKEWED), bootstrap(3 * SKEWED - 2)
    assert (moved.mean, moved.low, moved.high) == pytest.approx(
        (3 * plain.mean - 2, 3 * plain.low - 2, 3 * plain.high - 2)
    )


def test_constant_values_have_no_spread() -> None:
    assert bootstrap([0.5] * 6) == Interval(0.5, 0.5, 0.5)
    assert paired_difference([0.1, 0.7], [0.1, 0.7]) == Interval(0.0, 0.0, 0.0)
    assert bootstrap([1e-110, 2e-110, 4e-110]).low < 2e-110  # where the third power of the spread underflows


def test_refuses() -> None:
    with pytest.raises(ValueError, match="at least 2 prompts, not 1"):
        bootstrap([1.0])
    with pytest.raises(ValueError, match="prompt 2 is NaN"):
        bootstrap([1.0, 2.0, float("nan")])
    with pytest.raises(ValueError, match=r"shape \(prompts,\)"):
        bootstrap(np.ones((3, 2)))
    with pytest.raises(ValueError, match="not 3 and 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="percentile"):
        bootstrap([1.0, 2.0], "basic")  # type: ignore[arg-type]
