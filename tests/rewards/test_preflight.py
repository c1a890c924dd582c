"""What is refused of a reward before a training starts, and what is let through."""

import warnings

import pytest
import torch

from sfumato.rewards import RewardError, as_reward
from sfumato.rewards.preflight import try_reward

PROMPTS = ["a", "b", "c"]


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def brightness(images, prompts):
    return images.mean((1, 2, 3))


def made(function, **attributes):
    for name, value in attributes.items():
        setattr(function, name, value)
    return as_reward(function, "mine")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sound_reward_passes_without_a_word(images, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try_reward(made(brightness), images.to(dtype), PROMPTS, gradient=True)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_reward_of_half_precision_is_not_blamed_for_its_rounding(images, share):
    """A model in bfloat16 may round by another half bit in another batch."""

    def rounded(images, prompts):
        return 20 + share * images.mean((1, 2, 3)) + 0.05 * (len(images) == 1)

    try_reward(made(rounded), images, PROMPTS, gradient=True)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images, prompts: images.mean((1, 2, 3)) * torch.nan, "returned nan for the prompt 'a'"),
        (lambda images, prompts: images.mean(), r"tensor \(3,\) is needed"),
        (lambda images, prompts: images.mean((1, 2, 3)) - images.mean(), "for an image alone"),
        (lambda images, prompts: images.mean((1, 2, 3)) / (images - images[-1]).abs().sum(), "returned inf"),
    ],
)
@pytest.mark.parametrize("gradient", [True, False])
def test_what_cannot_be_trained_on_is_refused(images, function, message, gradient):
    with pytest.raises(RewardError, match=message):
        try_reward(made(function), images, PROMPTS, gradient)


def test_scores_outside_the_declared_range_are_refused(images):
    reward = made(lambda images, prompts: 2 + images.mean((1, 2, 3)), range=(0.0, 1.0))
    with pytest.raises(RewardError, match=r"outside its declared range \[0, 1\]"):
        try_reward(reward, images, PROMPTS, gradient=False)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images, prompts: images.detach().mean((1, 2, 3)), "carry no gradient"),
        (lambda images, prompts: (images * 255).round().mean((1, 2, 3)), "zero .* although its scores change"),
        (lambda images, prompts: (images.mean((1, 2, 3)) - images.mean((1, 2, 3))).sqrt(), "not finite"),
    ],
)
def test_a_gradient_that_does_not_arrive_is_refused_where_one_is_needed(images, function, message):
    with pytest.raises(RewardError, match=message):
        try_reward(made(function), images, PROMPTS, gradient=True)
    try_reward(made(function), images, PROMPTS, gradient=False)


def test_a_flat_reward_is_warned_of(images):
    """As a penalty is that none of the base model's images incurs."""
    penalty = made(lambda images, prompts: -(images.amax((1, 2, 3)) - 2).clamp(min=0))
    with pytest.warns(UserWarning, match="flat around the base model's images"):
        try_reward(penalty, images, PROMPTS, gradient=True)


def test_a_reward_with_noise_is_warned_of(images):
    noisy = made(lambda images, prompts: images.mean((1, 2, 3)) + torch.rand(len(images)))
    with pytest.warns(UserWarning, match="and then .* for the same images"):
        try_reward(noisy, images, PROMPTS, gradient=True)


def test_the_images_are_left_as_they_are(images):
    before = images.clone()
    try_reward(made(brightness), images, PROMPTS, gradient=True)
    assert torch.equal(images, before) and not images.requires_grad


def test_a_reward_that_has_no_gradient_is_refused_where_one_is_needed(images):
    blind = made(lambda images, prompts: images.detach().mean((1, 2, 3)), differentiable=False)
    try_reward(blind, images, PROMPTS, gradient=False)
    with pytest.raises(RewardError, match="'mine' has no gradient: choose another one"):
        try_reward(blind, images, PROMPTS, gradient=True)
