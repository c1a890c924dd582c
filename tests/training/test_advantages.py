"""Advantages against their formulas, and what they do not depend on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.training.advantages import EPSILON, advantages, check_groups

PROMPTS = ["a", "a", "a", "b", "b", "b", "b"]
REWARDS = torch.tensor([1.0, 2.0, 6.0, -1.0, 0.0, 0.0, 5.0])
A, B = REWARDS[:3].double(), REWARDS[3:].double()


@pytest.mark.parametrize(
    ("baseline", "normalize", "expected"),
    [
        ("none", None, [A, B]),
        ("prompt", None, [A - 3, B - 1]),
        ("update", None, [A - 13 / 7, B - 13 / 7]),
        ("leave_one_out", None, [(A - 3) * 3 / 2, (B - 1) * 4 / 3]),
        ("prompt", "prompt", [(A - 3) / ((14 / 3) ** 0.5 + EPSILON), (B - 1) / (5.5**0.5 + EPSILON)]),
        ("prompt", "update", [(x - x.mean()) / (REWARDS.double().std(correction=0) + EPSILON) for x in (A, B)]),
    ],
)
def test_they_are_those_of_the_formulas(baseline, normalize, expected):
    torch.testing.assert_close(advantages(REWARDS, PROMPTS, baseline, normalize), torch.cat(expected))


@pytest.mark.parametrize("normalize", ["prompt", "update"])
def test_the_default_bound_is_out_of_reach_of_few_images(normalize):
    """That of n images in units of their standard deviation is the square root of n - 1."""
    found = {n: float(advantages(torch.eye(n)[0], ["a"] * n, "prompt", normalize).max()) for n in (4, 26, 27)}
    assert found == pytest.approx({4: 3**0.5, 26: 5.0, 27: 26**0.5}, abs=1e-4)


def test_large_ones_are_clipped():
    assert advantages(REWARDS, PROMPTS, "prompt", clip=2.5).tolist() == [-2.0, -1.0, 2.5, -2.0, -1.0, -1.0, 2.5]


values = st.floats(-1e3, 1e3, width=32)


@given(reward=values, size=st.integers(2, 9), others=st.lists(values, min_size=2, max_size=5), normalize=st.booleans())
def test_equal_rewards_have_none_at_all(reward, size, others, normalize):
    """Exactly 0: rounding, divided by a standard deviation of 0, would be noise."""
    prompts = ["same"] * size + ["other"] * len(others)
    for baseline in ("prompt", "leave_one_out"):
        found = advantages(
            torch.tensor([reward] * size + others), prompts, baseline, "prompt" if normalize else "update"
        )
        assert not found[:size].any()


@given(rewards=st.lists(values, min_size=6, max_size=6), order=st.permutations(range(6)))
def test_the_order_of_images_plays_no_role(rewards, order):
    prompts = ["a", "a", "b", "b", "b", "a"]
    found = advantages(torch.tensor(rewards), prompts, "leave_one_out", "prompt")
    mixed = advantages(
        torch.tensor([rewards[i] for i in order]), [prompts[i] for i in order], "leave_one_out", "prompt"
    )
    torch.testing.assert_close(mixed, found[list(order)], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("prompts", "baseline", "normalize", "message"),
    [
        (["a", "a", "b"], "prompt", None, "one image alone of 'b': set training.images_per_prompt to 2"),
        (["a", "b"], "leave_one_out", None, "images_per_prompt"),
        (["a", "b"], "none", "prompt", "images_per_prompt"),
        (["a"], "update", None, "raise training.batch_size"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(prompts, baseline, normalize, message):
    with pytest.raises(ValueError, match=message):
        check_groups(prompts, baseline, normalize)


def test_images_that_can_be_compared_are_not():
    check_groups(["a", "a", "b", "b"], "leave_one_out", "prompt")
    check_groups(["a", "b"], "update", "update")
    check_groups(["a"], "none", None)
