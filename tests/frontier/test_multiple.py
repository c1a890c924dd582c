import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.frontier.multiple import Difference, simultaneous
from sfumato.frontier.statistics import paired_difference


def holm(p: np.ndarray) -> np.ndarray:
    """Holm 1979, written down from its definition."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def family(m: int, effects: list[float], seed: int = 0) -> np.ndarray:
    return np.array(effects) + np.random.default_rng(seed).normal(size=(m, len(effects)))


def test_one_difference_is_a_t_test() -> None:
    values = family(24, [0.4])
    (found,) = simultaneous(values)
    expected = scipy.stats.ttest_1samp(values[:, 0], 0)
    low, high = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.p == found.p_adjusted == pytest.approx(expected.pvalue, abs=0.01)


def test_independent_differences_are_adjusted_as_by_holm() -> None:
    values = family(40, [0.0, 0.35, 0.5, 0.3, 0.9, 0.05], seed=1)
    found = simultaneous(values, repetitions=20_000)
    expected = holm(scipy.stats.ttest_1samp(values, 0, axis=0).pvalue)
    for difference, p in zip(found, expected, strict=True):
        assert p - 0.25 * p - 0.01 <= difference.p_adjusted <= p + 0.01  # Bonferroni's sum is above the true union


def test_copies_of_one_difference_cost_nothing() -> None:
    values = family(24, [0.5])
    (alone,) = simultaneous(values)
    many = simultaneous(np.repeat(values, 50, axis=1))
    assert {d.p_adjusted for d in many} == {alone.p}
    assert many[0].high == pytest.approx(alone.high)
    assert holm(np.full(50, alone.p)).min() > 10 * alone.p  # which is why it is not Holm's


def test_the_family_is_wrong_as_seldom_as_it_says() -> None:
    """20 operating points that are all the same: 190 pairs, none different."""
    first, second = np.triu_indices(20, 1)
    random = np.random.default_rng(0)
    wrong = missed = 0
    for seed in range(200):
        points = random.normal(size=(24, 20))
        found = simultaneous(points[:, second] - points[:, first], repetitions=400, seed=seed)
        wrong += min(d.p_adjusted for d in found) < 0.05
        missed += any(not d.low <= 0 <= d.high for d in found)
    assert 0.01 <= wrong / 200 <= 0.1
    assert 0.01 <= missed / 200 <= 0.1


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 1000))
def test_adjusting_never_sharpens_and_intervals_agree(m: int, k: int, seed: int) -> None:
    values = family(m, [0.5] * k, seed)
    for d in simultaneous(values, repetitions=200, seed=seed):
        assert 0 < d.p <= d.p_adjusted <= 1
        assert d.low <= d.mean <= d.high
        if not d.low <= 0 <= d.high:
            assert d.p_adjusted <= 0.06  # step-down is at least as sharp as the intervals
    assert [d.mean for d in simultaneous(values, repetitions=50)] == pytest.approx(values.mean(axis=0).tolist())


def test_wider_than_one_at_a_time() -> None:
    values = family(24, [0.0] * 30)
    alone, together = paired_difference(values[:, 3], np.zeros(24)), simultaneous(values)[3]
    assert together.low < alone.low and alone.high < together.high


def test_differences_without_spread() -> None:
    values = np.stack([np.zeros(12), np.full(12, 0.1), np.arange(12) - 1.0], axis=1)
    same, constant, varying = simultaneous(values, repetitions=999)
    assert same == Difference(0.0, 0.0, 0.0, 1.0, 1.0)
    assert (constant.low, constant.high, constant.p) == (constant.mean, constant.mean, 0.001)
    assert varying == simultaneous(values[:, 2:], repetitions=999)[0]
    assert simultaneous(np.zeros((5, 0))) == []


@pytest.mark.parametrize(("prompts", "p"), [(2, 0.5), (3, 0.25), (6, 2 / 64), (20, 0.001)])
def test_a_constant_difference_is_no_surer_than_its_prompts_can_be(prompts: int, p: float) -> None:
    (found,) = simultaneous(np.full((prompts, 1), 0.1), repetitions=999)
    assert found.p == found.p_adjusted == p


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"shape \(prompts, differences\), not \(3,\)"):
        simultaneous([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least 2 prompts, not 1"):
        simultaneous([[1.0, 2.0]])
    with pytest.raises(ValueError, match="difference 1 of prompt 2 is NaN"):
        simultaneous([[1.0, 2.0], [3.0, 1.0], [1.0, float("nan")]])
