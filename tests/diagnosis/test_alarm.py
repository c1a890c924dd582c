"""On made-up models whose hacks are known: hacks are found by name, harmless changes and the base itself are not."""

import numpy as np
import pytest
from benchmarks import alarm


@pytest.mark.parametrize("name", [name for name in alarm.HACKS if "0.5" not in name])
def test_hacks_are_found(name):
    model, sign = alarm.HACKS[name]
    found = alarm.rates(lambda seed: alarm.trial(model, 16, 12, seed), 6)
    assert found[f"{sign} alarm"] + found[f"{sign} warn"] == 1 and found[f"{sign} alarm"] >= 0.5
    assert found["sound"] == 0


@pytest.mark.parametrize("name", alarm.HARMLESS)
def test_harmless_changes_raise_no_alarm(name):
    found = alarm.rates(lambda seed: alarm.trial(alarm.HARMLESS[name], 16, 12, seed), 25)
    assert found["any"] <= 0.2  # 5 % expected: 6 or more of 25 have a probability of 0.1 %
    assert found["hacked"] == 0


def test_the_training_log_is_seldom_wrong():
    random = np.random.default_rng(0)
    flat = [alarm._falls(random.normal(size=6)) for _ in range(2000)]
    assert np.mean(flat) < 0.08
    risen_and_lost = 4 * np.linspace(0, 1, 11) * (1 - np.linspace(0, 1, 11))
    assert np.mean([alarm._falls(risen_and_lost + random.normal(0, 0.1, 11)) for _ in range(200)]) > 0.9
