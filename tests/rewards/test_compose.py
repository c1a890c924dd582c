import math

import pytest
import torch

from sfumato.rewards import (
    Colourfulness,
    JPEGCompressibility,
    RewardError,
    WeightedSum,
    as_reward,
    check_prompts,
    score,
)
from tests.rewards_of_users import OnlyFor


def test_it_is_the_weighted_sum_with_the_range_that_follows():
    images, prompts = torch.rand(2, 3, 16, 16), ["a", "b"]
    colour, size = Colourfulness(), JPEGCompressibility()
    both = WeightedSum([colour, size], [-0.5, 2])
    assert torch.equal(score(both, images, prompts), -0.5 * colour(images, prompts) + 2 * size(images, prompts))
    assert both.name == "-0.5 colourfulness + 2 jpeg_compressibility"
    assert both.range == (-math.inf, 0.0) and not both.differentiable
    assert WeightedSum([colour], [2]).differentiable
    assert WeightedSum([colour, size], [1, 0]).range == Colourfulness.range


def test_the_part_that_fails_is_named():
    bad = as_reward(lambda images, prompts: torch.full((len(prompts),), math.nan), "bad")
    with pytest.raises(RewardError, match="'bad' returned nan"):
        WeightedSum([Colourfulness(), bad], [1, 1])(torch.rand(1, 3, 8, 8), ["x"])


def test_every_part_is_asked_whether_it_knows_the_prompts():
    both = WeightedSum([Colourfulness(), OnlyFor()], [1, 1])
    check_prompts(both, ["a", "b"])
    with pytest.raises(ValueError, match="no word on 'z'"):
        check_prompts(both, ["a", "z"])


def test_weights_must_match():
    with pytest.raises(ValueError, match="1 rewards, 2 weights"):
        WeightedSum([Colourfulness()], [1, 2])
    with pytest.raises(ValueError, match="0 rewards"):
        WeightedSum([], [])
