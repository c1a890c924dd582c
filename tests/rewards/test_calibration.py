import pytest
import torch

from sfumato.rewards import Minimum, Normalized, RewardError, WeightedSum, as_reward, build_reward, calibrate, score
from sfumato.rewards.base import UNBOUNDED, FunctionReward
from sfumato.rewards.calibration import recall, remember, unmeasured


def brightness(images, prompts):
    return images.mean((1, 2, 3))


def reward():
    return FunctionReward(brightness, "brightness", (0.0, 1.0))


def batches(*sizes):
    random = torch.Generator().manual_seed(0)
    return [(torch.rand(size, 3, 4, 4, generator=random), [""] * size) for size in sizes]


def test_it_has_mean_zero_and_deviation_one_where_it_was_measured():
    normalized = Normalized(reward())
    calibrate([normalized], batches(3, 5, 2))
    scores = torch.cat([score(normalized, images, prompts) for images, prompts in batches(3, 5, 2)])
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_range_name_and_gradient_follow():
    normalized = Normalized(reward(), 0.5, 0.25)
    assert normalized.range == (-2.0, 2.0)
    assert normalized.name == "(brightness - 0.5) / 0.25"
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    score(normalized, images, [""]).backward()
    torch.testing.assert_close(images.grad.sum(), torch.tensor(4.0))
    assert Normalized(reward()).range == UNBOUNDED


def test_before_it_is_measured_it_says_so():
    with pytest.raises(RewardError, match="deviation of 'brightness' are not measured: a run does so before"):
        score(Normalized(reward()), *batches(1)[0])


def test_what_lies_within_another_is_measured_first():
    inner, other = Normalized(reward()), Normalized(as_reward(brightness, "other"))
    outer = Normalized(Minimum([inner, other]))
    rewards = [WeightedSum([outer, reward()], [1, 1])]
    assert unmeasured(rewards) == [inner, other]
    calibrate(unmeasured(rewards), batches(4))
    assert unmeasured(rewards) == [outer]
    calibrate(unmeasured(rewards), batches(4))
    assert unmeasured(rewards) == []


def test_a_reward_that_does_not_vary_cannot_be_normalised():
    constant = Normalized(as_reward(lambda images, prompts: images.new_full((len(images),), 0.7), "constant"))
    with pytest.raises(RewardError, match=r"'constant' is 0.7 on all 4 images of the base model.*write normalize"):
        calibrate([constant], batches(4))
    assert unmeasured([constant]) == [constant]


def test_a_file_remembers_it_for_the_same_configuration_only(tmp_path):
    path = tmp_path / "normalization.json"
    colour = {"name": "colourfulness", "normalize": "base", "weight": 2}
    own = {"name": "tests.rewards_of_users:brightness", "normalize": "base"}
    before = build_reward([colour, own])
    calibrate(unmeasured([before]), batches(6))
    remember(before.rewards[:1], path)
    remember(before.rewards[1:], path)
    after = build_reward([own, colour])
    recall([after], path)
    assert [(part.mean, part.std) for part in after.rewards] == [
        (part.mean, part.std) for part in reversed(before.rewards)
    ]
    other = build_reward({"name": "jpeg_incompressibility", "normalize": "base"})
    recall([other], path)
    assert unmeasured([other]) == [other]
    recall([other], tmp_path / "there-is-none.json")


def test_given_numbers_are_taken():
    built = build_reward({"name": "colourfulness", "normalize": {"mean": 30, "std": 10}, "weight": -1})
    images, prompts = batches(2)[0]
    expected = -(score(build_reward("colourfulness"), images, prompts) - 30) / 10
    torch.testing.assert_close(score(built, images, prompts), expected)


@pytest.mark.parametrize("how", ["bas", True, {"mean": 1}, {"mean": 1, "std": 1, "n": 2}, {"mean": 1, "std": 0}])
def test_other_words_are_refused(how):
    with pytest.raises(ValueError, match=r"normalize of 'colourfulness' is `base`|positive std"):
        build_reward({"name": "colourfulness", "normalize": how})
