"""What tuning changed is read from frontier.json, whichever way round and however much of it is there."""

import pytest

from sfumato.change import tuning_change, unchanged_axes, within_noise
from tests.frontier.measured_bed import make_frontier


def world(**versus):
    entries = {metric: dict(zip(("mean", "low", "high"), values, strict=True)) for metric, values in versus.items()}
    points = [{"name": "tuned", "versus_tuned": {}}, {"name": "base", "versus_tuned": entries}]
    return {"axes": {"reward": "reward", "diversity": "vendi"}, "points": points}


def test_it_is_tuned_minus_base_in_pairs():
    frontier = make_frontier(noise=2.0)
    values = {point["name"]: point["per_prompt"]["reward"] for point in frontier["points"]}
    pairs = [tuned - base for base, tuned in zip(values["base"], values["tuned"], strict=True)]
    mean, low, high = tuning_change(frontier, "reward")
    assert mean == pytest.approx(sum(pairs) / len(pairs))
    assert min(pairs) < low < mean < high < max(pairs)


def test_noise_is_an_interval_that_holds_zero():
    found = world(reward=(-2.0, -3.0, -1.0), vendi=(0.5, -0.25, 1.0), gold=(0.0, 0.0, 0.0))
    assert tuning_change(found, "reward") == (2, 1, 3)
    assert [within_noise(found, metric) for metric in ("reward", "vendi", "gold")] == [False, True, True]
    assert unchanged_axes(found) == {"vendi": (-0.5, -1.0, 0.25)}
    assert str(tuning_change(found, "gold")) == "(0.0, 0.0, 0.0)"


@pytest.mark.parametrize(
    "found",
    [world(), world(vendi=(None, None, None)), world(vendi=(0.1, None, None)), world() | {"points": []}],
    ids=["unmeasured", "not finite", "no limits", "no base"],
)
def test_what_was_not_measured_is_not_called_noise(found):
    assert tuning_change(found, "vendi") is None
    assert not within_noise(found, "vendi") and unchanged_axes(found) == {}
