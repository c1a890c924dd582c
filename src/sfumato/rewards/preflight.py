"""Try a reward on a few images before hours of work depend on it."""

from __future__ import annotations

import warnings

import torch

from sfumato.rewards.base import Reward, RewardError, score

NOISE = 1e-2
"""Share of the largest score that may come from computing in half precision or in another batch."""
NUDGE = 0.02
"""Five of 255 levels: a score that counts whole levels changes, one that is flat does not."""


def try_reward(reward: Reward, images: torch.Tensor, prompts: list[str], gradient: bool) -> None:
    """Raise RewardError if a training on this reward cannot go well; what `score` refuses is refused here too.

    A reward that gives other scores for the same images, as one with random crops does, can be trained on, so it is
    only warned of, as is one that is flat on these images.

    Args:
        images: floats (B,3,H,W) in [0, 1], B of 2 or more, from the model that is to be trained.
        prompts: B texts.
        gradient: whether the training needs one.
    """
    images = images.detach()
    with torch.no_grad():
        scores, again = (score(reward, images, prompts) for _ in range(2))
    if _differ(scores, again):
        warnings.warn(
            f"reward {reward.name!r} gives {scores.tolist()} and then {again.tolist()} for the same images: its noise "
            "will be in every figure, and a run that is interrupted will not continue exactly",
            stacklevel=2,
        )
    else:
        with torch.no_grad():
            alone = score(reward, images[:1], prompts[:1])
        if _differ(scores[:1], alone):
            raise RewardError(
                f"reward {reward.name!r} gives {alone.item():.4g} for an image alone and {scores[0].item():.4g} for "
                "the same image among others: score each image by itself, since training and evaluation batch otherwise"
            )
    if gradient:
        _try_gradient(reward, images, prompts)


def _try_gradient(reward: Reward, images: torch.Tensor, prompts: list[str]) -> None:
    if not reward.differentiable:
        raise RewardError(f"reward {reward.name!r} has no gradient: choose another one, or a method that needs none")
    images = images.float().requires_grad_()
    scores = score(reward, images, prompts)
    (found,) = torch.autograd.grad(scores.sum(), images, allow_unused=True)
    if found is not None and not found.isfinite().all():
        raise RewardError(
            f"the gradient of reward {reward.name!r} is not finite though its scores are: look for square roots, "
            "norms and divisions at 0"
        )
    if found is not None and found.any():
        return
    random = torch.Generator().manual_seed(0)
    step = NUDGE * torch.randint(-1, 2, images.shape, generator=random).to(images)
    with torch.no_grad():
        moved = score(reward, (images + step).clamp(0, 1), prompts)
    if (moved != scores).any():
        raise RewardError(
            f"the gradient of reward {reward.name!r} is zero on the base model's images although its scores change "
            "with them: rounding, a comparison, argmax or detach() inside it cuts the gradient"
        )
    warnings.warn(
        f"reward {reward.name!r} is flat around the base model's images ({scores.tolist()}): there is no gradient to "
        "learn from until an image leaves that plateau",
        stacklevel=3,
    )


def _differ(scores: torch.Tensor, others: torch.Tensor) -> bool:
    """By more than rounding."""
    return bool((scores - others).abs().max() > NOISE * scores.abs().max())
