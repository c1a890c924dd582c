"""Diversity held by feedback: the penalties' strength goes where a share of the base's diversity is kept."""

import math

import pytest

from sfumato.config import FloorConfig
from sfumato.training import Draft
from sfumato.training.feedback import strength
from tests.training.common import make_trainer, sample


def test_strength_follows_its_definition():
    """Three looks after 0.9, coming from 1, diversity is at 0.6. After 0.6 it is gone; after 0.8, from 0.9, at 0.65."""
    floor = FloorConfig(keep=0.8, gain=2.0, dead_zone=0.1)
    assert strength([1.0], floor) == 1.0
    assert strength([0.75, 0.75], floor) == strength([0.85, 0.85], floor) == 1.0  # too near to tell from noise
    assert strength([1.0, 0.9], floor) == pytest.approx(math.exp(2 * 0.1))
    assert strength([1.0, 0.9, 0.6], floor) == pytest.approx(math.exp(2 * (0.1 + 0.7)))
    assert strength([1.0, 0.9, 0.6, 0.8], floor) == pytest.approx(math.exp(2 * (0.1 + 0.7 + 0.05)))
    assert strength([0.9, 0.95], floor) == pytest.approx(math.exp(-2 * 0.1))  # no more counts than the base's


def test_bounds_hold_and_are_left_at_once():
    floor = FloorConfig(keep=0.8, gain=100.0, dead_zone=0.0, bounds=(0.5, 4.0))
    assert strength([1.0] * 50, floor) == pytest.approx(0.5)
    assert strength([0.1] * 50, floor) == pytest.approx(4.0)
    assert strength([*[0.1] * 50, 1.0], floor) == pytest.approx(0.5)


def held(coefficient, floor, looks=20, every=5):
    """Diversity kept by a model at distance D from its base, exp(-D), which a reward pushes away and a penalty pulls
    back: the two are equal at D = 1 / (coefficient · strength)."""
    distance, weight, kept = 0.0, 1.0, [1.0]
    for _ in range(looks):
        for _ in range(every):
            distance += 0.03 * math.tanh(2 * (1 - coefficient * weight * distance))
        kept.append(math.exp(-distance))
        weight = strength(kept, floor) if floor else 1.0
    return kept


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_the_share_is_held_whatever_the_coefficient(factor):
    right = 1 / -math.log(0.8)
    found = held(factor * right, FloorConfig(keep=0.8))
    assert found[-5:] == pytest.approx([0.8] * 5, abs=0.05)
    alone = held(factor * right, None)
    assert abs(alone[-1] - 0.8) > 0.15 or factor == 1


class Moved:
    """A monitor that takes for lost diversity how far images moved from the base's."""

    def __init__(self):
        self.prompts, self.images, self.rewards, self.base = ["red"], 4, {}, None

    def identity(self):
        return {}

    def __call__(self, pipe, update):
        images = sample(pipe)
        self.base = images if self.base is None else self.base
        moved = (images - self.base).square().mean().sqrt().item()
        return {"eval/vendi": 1 + math.exp(-20 * moved), "eval/scores": {}}


def shares_at_the_end(folder, coefficient, floor):
    settings = {"steps": 40, "monitor_every": 2, "floor": floor, "regularizers": {"kl": {"coefficient": coefficient}}}
    records = make_trainer(folder, objective=Draft(2), monitor=Moved(), **settings).run()
    return [record["eval/kept"] for record in records if "eval/kept" in record][-5:]


@pytest.mark.parametrize("coefficient", [0.003, 0.3], ids=["10 times too small", "10 times too large"])
def test_a_training_ends_nearer_to_the_floor_than_without_it(coefficient, tmp_path):
    """With coefficient 0.03 it would end at about 0.7."""
    free = shares_at_the_end(tmp_path / "free", coefficient, None)
    held = shares_at_the_end(tmp_path / "held", coefficient, {"keep": 0.7})
    off, without = (max(abs(share - 0.7) for share in shares) for shares in (held, free))
    assert without > 0.2
    assert off < 0.15 and off < 0.6 * without
