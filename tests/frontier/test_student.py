import numpy as np
import pytest
import scipy.stats

from sfumato.frontier.student import quantile, upper_tail

FREEDOM = [1, 2, 5, 23, 400]


@pytest.mark.parametrize("freedom", FREEDOM)
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.5, 2.0, 8.0])
def test_tails_agree_with_scipy(t: float, freedom: int) -> None:
    assert upper_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), abs=1e-10)
    for shift in (-2.0, 1.0, 3.5):
        assert upper_tail(t, freedom, shift) == pytest.approx(scipy.stats.nct.sf(t, freedom, shift), abs=1e-10)


@pytest.mark.parametrize("freedom", FREEDOM)
def test_quantiles_agree_with_scipy(freedom: int) -> None:
    for probability in (0.005, 0.025, 0.5, 0.6, 0.975, 0.999):
        expected = scipy.stats.t.ppf(probability, freedom)
        assert quantile(probability, freedom) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_the_shifted_tail_is_the_power_of_a_t_test() -> None:
    random = np.random.default_rng(0)
    drawn = 0.5 + random.normal(size=(20_000, 12))
    t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * np.sqrt(12)
    assert (t > 2).mean() == pytest.approx(upper_tail(2, 11, 0.5 * np.sqrt(12)), abs=0.01)
