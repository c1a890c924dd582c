import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sfumato.preferences import Pair, PreferenceAccuracy, bradley_terry_loss, evaluate_preference, wilson_interval
from sfumato.rewards import as_reward


@given(st.integers(1, 300), st.floats(0, 1))
def test_wilson_interval_is_scipys(count, share):
    successes = round(share * count)
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_loss_is_the_formula_and_a_tie_pulls_the_margin_to_zero():
    margins = torch.tensor([0.3, -1.2, 2.0], requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.5])
    by_hand = [-math.log(1 / (1 + math.exp(-0.3))), -math.log(1 / (1 + math.exp(-1.2)))]
    by_hand.append(-0.5 * math.log(1 / (1 + math.exp(-2.0))) - 0.5 * math.log(1 / (1 + math.exp(2.0))))
    loss = bradley_terry_loss(margins, labels)
    assert loss.item() == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    loss.backward()
    assert margins.grad[0] < 0 < margins.grad[1] and margins.grad[2] > 0


def test_accuracy_counts_decided_pairs_and_half_of_undecided_margins():
    margins, labels = torch.tensor([1.0, -1.0, 1.0, 0.0, 5.0]), torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5])
    result = PreferenceAccuracy.from_margins(margins, labels)
    assert (result.accuracy, result.decided) == (2.5 / 4, 4)
    assert result.low < result.accuracy < result.high


def test_any_reward_is_evaluated_on_pairs_of_different_sizes():
    shades = {"dark": torch.full((3, 4, 4), 0.2), "light": torch.full((3, 6, 5), 0.9)}
    brightness = as_reward(lambda images, prompts: images.mean((1, 2, 3)))
    pairs = [Pair("x", "light", "dark", 1), Pair("x", "dark", "light", 0), Pair("x", "dark", "light", 1)]
    result = evaluate_preference(brightness, pairs, shades.__getitem__)
    assert (result.accuracy, result.decided) == (pytest.approx(2 / 3), 3)
    with pytest.raises(ValueError, match="no pairs"):
        evaluate_preference(brightness, [])
