import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from sfumato.preferences import (
    bradley_terry_loss,
    calibration_error,
    describe_calibration,
    fit_temperature,
    interval_by_prompt,
    reliability,
    wilson_interval,
)


def raters(count, temperature, seed=0):
    """Margins, and labels of raters whose certainty they are too large for by a factor."""
    generator = torch.Generator().manual_seed(seed)
    margins = 2 * torch.randn(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < torch.sigmoid(margins)
    return temperature * margins, chosen.float()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_temperature_is_the_one_with_the_least_loss(temperature):
    margins, labels = raters(20_000, temperature)
    labels[:100] = 0.5
    found, smooth = fit_temperature(margins, labels), (20_000 * labels.double() + 1) / 20_002
    best = minimize_scalar(
        lambda log: bradley_terry_loss(margins.double() / np.exp(log), smooth).item(), bounds=(-4, 4), method="bounded"
    )
    assert found == pytest.approx(np.exp(best.x), rel=1e-3) and found == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(3 * margins, labels) == pytest.approx(3 * found, rel=1e-6)


def test_pairs_that_are_all_right_or_all_wrong_make_no_reward_certain():
    margins, right = torch.full((30,), 0.2), torch.ones(30)
    assert torch.sigmoid(margins / fit_temperature(margins, right))[0] == pytest.approx(31 / 32)
    assert fit_temperature(margins, 1 - right) == pytest.approx(100)


def test_bins_and_error_by_hand():
    logits = torch.logit(torch.tensor([0.62, 0.64, 0.38, 0.97]))  # confidences 0.62, 0.64, 0.62, 0.97
    bins = reliability(logits, torch.tensor([1.0, 0.0, 0.0, 0.5]))
    assert [(each.count, each.right) for each in bins] == [(3, pytest.approx(2 / 3)), (1, 0.5)]
    assert [each.confidence for each in bins] == pytest.approx([1.88 / 3, 0.97], abs=1e-6)
    assert (bins[0].low, bins[0].high) == wilson_interval(2, 3)
    assert calibration_error(bins) == pytest.approx((3 * (2 / 3 - 1.88 / 3) + 0.47) / 4, abs=1e-6)


def test_a_calibrated_reward_errs_by_chance_alone_and_a_boastful_one_by_more():
    margins, labels = raters(3000, 1.0)
    found, boastful = describe_calibration(margins, labels), describe_calibration(4 * margins, labels)
    assert 0.5 < found["ece"] / found["ece_by_chance"] < 2
    assert boastful["ece"] > 5 * boastful["ece_by_chance"] and boastful["ece"] > 0.1
    assert sum(each["count"] for each in found["bins"]) == 3000


def test_the_interval_over_prompts_is_wilsons_for_single_pairs_and_not_narrower_for_copies():
    margins, labels = raters(400, 1.0)
    prompts = [str(i) for i in range(400)]
    right = ((margins > 0) == (labels > 0.5)).sum().item()
    single = interval_by_prompt(margins, labels, prompts)
    assert single == pytest.approx(wilson_interval(right, 400), abs=0.01)
    copied = interval_by_prompt(margins.repeat(9), labels.repeat(9), prompts * 9)
    assert copied == pytest.approx(single, abs=1e-9)
    assert interval_by_prompt(margins, torch.full((400,), 0.5), prompts) == (0, 1)
