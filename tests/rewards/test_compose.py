import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.rewards import (
    Colourfulness,
    Constrained,
    Ensemble,
    JPEGCompressibility,
    JPEGIncompressibility,
    Minimum,
    Product,
    RewardError,
    WeightedSum,
    as_reward,
    check_prompts,
    score,
)
from sfumato.rewards.base import UNBOUNDED, FunctionReward
from tests.rewards_of_users import OnlyFor

PROMPTS = ["a", "b"]
SHARE, SIGNED = (0.0, 1.0), (-1.0, 1.0)


def red(images, prompts):
    return images[:, 0].mean((1, 2))


def green(images, prompts):
    return images[:, 1].mean((1, 2))


def shares(*functions, bounds=SHARE):
    return [FunctionReward(function, function.__name__, bounds) for function in functions]


def painted(*colours):
    """Images (B,3,2,2) of one colour each, with gradient."""
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 2, 2).clone().requires_grad_()


def gradients(reward, images):
    """Of the sum of scores, by red and green, (B,2)."""
    score(reward, images, PROMPTS[: len(images)]).sum().backward()
    return images.grad.sum((2, 3))[:, :2]


def test_it_is_the_weighted_sum_with_the_range_that_follows():
    images = torch.rand(2, 3, 16, 16)
    colour, size = Colourfulness(), JPEGCompressibility()
    both = WeightedSum([colour, size], [-0.5, 2])
    assert torch.equal(score(both, images, PROMPTS), -0.5 * colour(images, PROMPTS) + 2 * size(images, PROMPTS))
    assert both.name == "-0.5 colourfulness + 2 jpeg_compressibility"
    assert both.range == (-math.inf, 0.0) and not both.differentiable
    assert WeightedSum([colour], [2]).differentiable
    assert WeightedSum([colour, size], [1, 0]).range == Colourfulness.range


def test_the_minimum_and_its_gradient_are_those_of_the_lowest_part():
    images = painted([0.2, 0.6, 0.0], [0.9, 0.3, 0.0])
    reward = Minimum(shares(red, green))
    assert score(reward, images, PROMPTS).tolist() == pytest.approx([0.2, 0.3])
    assert reward.name == "min(red, green)"
    torch.testing.assert_close(gradients(reward, images), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(gradients(reward, painted([0.5, 0.5, 0.0])), torch.tensor([[0.5, 0.5]]))


def test_the_product_and_its_gradient():
    images = painted([0.2, 0.6, 0.0], [0.0, 0.3, 0.0])
    reward = Product(shares(red, green))
    assert score(reward, images, PROMPTS).tolist() == pytest.approx([0.12, 0.0])
    torch.testing.assert_close(gradients(reward, images), torch.tensor([[0.6, 0.2], [0.3, 0.0]]))


@pytest.mark.parametrize("bounds", [SIGNED, UNBOUNDED, (-1e-9, 1.0)])
def test_a_product_refuses_what_can_be_negative(bounds):
    with pytest.raises(ValueError, match=r"never negative, but 'green' has the range .*minimum or a weighted sum"):
        Product([*shares(red), *shares(green, bounds=bounds)])


def test_a_product_of_unbounded_parts_is_unbounded_unless_one_is_always_zero():
    size, (share,) = JPEGIncompressibility(), shares(red)
    assert Product([size, share]).range == (0.0, math.inf)
    assert Product([size, *shares(green, bounds=(0.0, 0.0))]).range == (0.0, 0.0)
    assert Product(shares(red, green, bounds=(2.0, 3.0))).range == (4.0, 9.0)


def test_a_constraint_costs_nothing_where_it_holds_and_pulls_where_it_does_not():
    images = painted([0.2, 0.6, 0.0], [0.9, 0.3, 0.0])
    reward = Constrained(*shares(red, green), at_least=0.5, strength=4)
    assert score(reward, images, PROMPTS).tolist() == pytest.approx([0.2, 0.9 - 4 * 0.2])
    torch.testing.assert_close(gradients(reward, images), torch.tensor([[1.0, 0.0], [1.0, 4.0]]))
    assert reward.name == "red - 4 max(0, 0.5 - green)"
    assert reward.range == (0 - 4 * 0.5, 1.0)
    assert Constrained(*shares(red), JPEGCompressibility(), -5, 1).range == (-math.inf, 1.0)


@pytest.mark.parametrize(("strength", "best"), [(0.5, 1.0), (2.0, 0.4)])
def test_the_penalty_is_exact_from_a_finite_strength_on(strength, best):
    """Red is to be large and green at least 0.6, in images whose red and green add up to 1: a unit costs a unit."""
    levels = torch.linspace(0, 1, 101)
    images = torch.stack([levels, 1 - levels, 0 * levels], 1)[:, :, None, None].expand(-1, -1, 2, 2)
    scores = score(Constrained(*shares(red, green), at_least=0.6, strength=strength), images, [""] * 101)
    assert levels[scores.argmax()].item() == pytest.approx(best)


@pytest.mark.parametrize(("at_least", "strength"), [(1.1, 1), (0.5, 0), (0.5, -1), (0.5, math.inf), (math.nan, 1)])
def test_a_constraint_that_cannot_work_is_refused(at_least, strength):
    with pytest.raises(ValueError, match=r"cannot reach|positive number"):
        Constrained(*shares(red, green), at_least, strength)


def test_an_ensemble_is_the_mean_minus_the_deviation():
    images = painted([0.2, 0.6, 0.0], [0.5, 0.5, 0.0])
    reward = Ensemble(shares(red, green), penalty=0.5)
    assert score(reward, images, PROMPTS).tolist() == pytest.approx([0.4 - 0.5 * 0.2, 0.5], abs=1e-5)
    torch.testing.assert_close(gradients(reward, images), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    assert reward.name == "mean(red, green) - 0.5 std"
    plain = Ensemble(shares(red, green), penalty=0)
    assert score(plain, images, PROMPTS).tolist() == pytest.approx([0.4, 0.5]) and plain.range == SHARE
    with pytest.raises(ValueError, match="at least two"):
        Ensemble(shares(red))
    with pytest.raises(ValueError, match="penalty"):
        Ensemble(shares(red, green), -1)


numbers = st.floats(-3, 3, width=32)


@given(
    members=st.lists(st.tuples(numbers, numbers, st.floats(0, 1, width=32)), min_size=2, max_size=5),
    penalty=st.floats(0, 4),
)
def test_no_ensemble_minimum_or_constraint_leaves_its_range(members, penalty):
    def constant(value):
        return lambda images, prompts: images.new_full((len(images),), value)

    parts = []
    for one, other, share in members:
        low, high = sorted((one, other))
        parts.append(FunctionReward(constant(low + share * (high - low)), "part", (low, high)))
    images = torch.zeros(1, 3, 1, 1)
    least = parts[1].range[1]
    for reward in (Ensemble(parts, penalty), Minimum(parts), Constrained(*parts[:2], least, penalty + 1)):
        low, high = reward.range
        assert low - 1e-4 <= reward(images, [""]).item() <= high + 1e-4


def test_the_range_of_an_ensemble_is_reached():
    def extreme(value):
        return FunctionReward(lambda images, prompts: images.new_full((len(images),), value), "part", SHARE)

    reward = Ensemble([extreme(0.0), extreme(0.0), extreme(0.0), extreme(1.0)], penalty=math.sqrt(3))
    assert reward(torch.zeros(1, 3, 1, 1), [""]).item() == pytest.approx(reward.range[0], abs=1e-6)
    assert Ensemble([extreme(0.0), JPEGIncompressibility()], 1).range == UNBOUNDED


def test_composites_nest_and_their_gradient_is_that_of_finite_differences():
    inner = Ensemble(shares(red, green), 0.5)
    reward = Constrained(
        WeightedSum([Minimum(shares(red, green)), inner], [2, -1]), Product(shares(red, green)), 0.9, 3
    )
    images = torch.rand(2, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reward(x, PROMPTS), images)


@pytest.mark.parametrize("make", [Minimum, Ensemble, lambda parts: WeightedSum(parts, [1, 1]), Product])
def test_the_part_that_fails_is_named(make):
    bad = FunctionReward(lambda images, prompts: torch.full((len(prompts),), math.nan), "bad", SHARE)
    with pytest.raises(RewardError, match="'bad' returned nan"):
        make([Colourfulness(), bad])(torch.rand(1, 3, 8, 8), ["x"])


@pytest.mark.parametrize("make", [Minimum, Ensemble, lambda parts: WeightedSum(parts, [1, 1]), Product])
def test_every_part_is_asked_whether_it_knows_the_prompts(make):
    both = make([Colourfulness(), OnlyFor()])
    check_prompts(both, ["a", "b"])
    with pytest.raises(ValueError, match="no word on 'z'"):
        check_prompts(both, ["a", "z"])


def test_a_composite_has_a_gradient_if_all_parts_have():
    blind = as_reward(JPEGIncompressibility())
    assert Minimum(shares(red, green)).differentiable
    assert not Minimum([*shares(red), blind]).differentiable
    assert not Product([*shares(red), blind]).differentiable


def test_weights_must_match():
    with pytest.raises(ValueError, match="1 rewards, 2 weights"):
        WeightedSum([Colourfulness()], [1, 2])
    with pytest.raises(ValueError, match="0 rewards"):
        WeightedSum([], [])
    with pytest.raises(ValueError, match="0 rewards"):
        Minimum([])
