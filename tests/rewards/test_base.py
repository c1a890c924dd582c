import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.rewards import Reward, RewardError, as_reward, score
from sfumato.rewards.base import FunctionReward


def brightness(images, prompts):
    return images.mean((1, 2, 3))


PROMPTS = ["a cat", "a dog"]


def test_any_callable_becomes_a_reward_and_a_reward_stays_itself():
    reward = as_reward(brightness)
    assert isinstance(reward, Reward)
    assert (reward.name, reward.differentiable, reward.range) == ("brightness", True, (-float("inf"), float("inf")))
    assert as_reward(reward) is reward
    assert as_reward(reward, "light").name == "light"
    with pytest.raises(TypeError, match="cannot be called"):
        as_reward(3)  # type: ignore[arg-type]


def test_attributes_of_the_callable_are_kept():
    def darkness(images, prompts):
        return -brightness(images, prompts)

    darkness.range, darkness.differentiable = (-1.0, 0.0), False
    reward = as_reward(darkness)
    assert reward.range == (-1.0, 0.0) and not reward.differentiable


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), st.integers(1, 4))
def test_scores_come_back_in_full_precision(dtype, count):
    scores = score(as_reward(brightness), torch.full((count, 3, 4, 4), 0.5, dtype=dtype), ["x"] * count)
    assert scores.dtype == torch.float32 and torch.equal(scores, torch.full((count,), 0.5))


def test_rewards_see_half_precision_images_in_full():
    """As a pipeline in bfloat16 gives them: 255 levels of colour do not fit into its 8 bits."""
    seen = []
    reward = as_reward(lambda images, prompts: seen.append(images.dtype) or brightness(images, prompts), "seer")
    images = torch.rand(1, 3, 64, 64, dtype=torch.bfloat16, requires_grad=True)
    score(reward, images, ["x"]).sum().backward()
    assert images.grad is not None and images.grad.dtype == torch.bfloat16
    score(reward, images.double(), ["x"])
    assert seen == [torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        (torch.rand(2, 1, 8, 8), PROMPTS, r"shape \(B,3,H,W\)"),
        (torch.rand(0, 3, 8, 8), [], "B > 0"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), PROMPTS, "divide 8-bit images by 255"),
        (torch.rand(2, 3, 8, 8) * 2 - 1, PROMPTS, r"map \[-1, 1\]"),
        (torch.full((2, 3, 8, 8), float("nan")), PROMPTS, "overflowed"),
        (torch.rand(2, 3, 8, 8), ["a cat"], "1 prompts for 2 images"),
        (torch.rand(2, 3, 8, 8), "ab", "one string for 2 images"),
    ],
)
def test_bad_input_is_refused_by_name(images, prompts, message):
    with pytest.raises(ValueError, match=message):
        score(as_reward(brightness), images, prompts)


def test_a_nan_reward_names_itself_and_the_prompt():
    def broken(images, prompts):
        return torch.tensor([1.0, float("nan")])

    with pytest.raises(RewardError, match=r"reward 'broken' returned nan for the prompt 'a dog'.*float32"):
        score(as_reward(broken), torch.rand(2, 3, 8, 8), PROMPTS)


@pytest.mark.parametrize("value", [torch.zeros(2, 1), torch.zeros(()), [0.0, 0.0]])
def test_a_wrong_shape_is_refused(value):
    with pytest.raises(RewardError, match=r"tensor \(2,\) is needed"):
        score(as_reward(lambda images, prompts: value, "odd"), torch.rand(2, 3, 8, 8), PROMPTS)


def test_a_missing_gradient_is_refused_unless_it_was_declared():
    def detached(images, prompts):
        return brightness(images, prompts).detach()

    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    with pytest.raises(RewardError, match="carry no gradient"):
        score(as_reward(detached), images, PROMPTS)
    detached.differentiable = False
    assert score(as_reward(detached), images, PROMPTS).shape == (2,)
    with torch.no_grad():
        assert score(as_reward(brightness), images, PROMPTS).shape == (2,)


@pytest.mark.parametrize(
    ("bounds", "value", "fine"),
    [
        ((0.0, 1.0), 1.0005, True),  # what half precision overshoots by
        ((0.0, 1.0), 1.01, False),
        ((0.0, 1.0), -0.01, False),
        ((0.0, 1000.0), 1000.5, True),
        ((0.0, 1000.0), 1002.0, False),
        ((0.0, float("inf")), 1e9, True),
        ((0.0, float("inf")), -0.01, False),
        ((-float("inf"), 0.0), 0.01, False),
        ((5.0, 5.0), 5.0, True),
    ],
)
def test_scores_outside_the_declared_range_are_refused(bounds, value, fine):
    reward = FunctionReward(lambda images, prompts: torch.tensor([value]), "ranged", bounds)
    if fine:
        assert score(reward, torch.rand(1, 3, 8, 8), ["a"]).item() == pytest.approx(value)
    else:
        with pytest.raises(
            RewardError, match=r"'ranged' returned .* outside its declared range .*: correct the reward"
        ):
            score(reward, torch.rand(1, 3, 8, 8), ["a"])


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(bounds):
    with pytest.raises(RewardError, match=r"declares the range .*: it is \(lowest, highest\)"):
        score(FunctionReward(brightness, "odd", bounds), torch.rand(1, 3, 8, 8), ["a"])
