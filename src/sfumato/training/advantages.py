"""How much better each image is than others: what a policy gradient multiplies log-probabilities with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch

Baseline = Literal["prompt", "update", "leave_one_out", "none"]
Spread = Literal["prompt", "update"]
EPSILON = 1e-6
"""Added to standard deviations, as in DDPO's code; Flow-GRPO's has 1e-4."""


def advantages(
    rewards: torch.Tensor,
    prompts: Sequence[str],
    baseline: Baseline,
    normalize: Spread | None = None,
    clip: float | None = None,
) -> torch.Tensor:
    """(r - baseline) / std of each image.

    Images with the same prompt make a group. A group whose rewards are all equal has advantages of exactly 0, but for
    the baselines "update" and "none".

    Args:
        rewards: (N,), of all images of an update.
        prompts: one per image.
        baseline: the mean reward of the image's group ("prompt"; DDPO, and GRPO's group mean), of all images
            ("update"), or of the other images of its group ("leave_one_out"); "none" is 0. The first two include the
            image's own reward, so that the gradient is biased; see docs/training.md.
        normalize: divide by the standard deviation of the group's rewards, or of all; None leaves it.
        clip: largest absolute value, None for no bound.

    Returns:
        (N,), float64 on the CPU.
    """
    values = rewards.detach().cpu().double()
    names = list(dict.fromkeys(prompts))
    group = torch.tensor([names.index(prompt) for prompt in prompts])
    members = torch.nn.functional.one_hot(group).double()
    sizes = members.sum(0)
    means = members.T @ values / sizes
    centred = values - means[group]
    references = {
        "prompt": means[group],
        "update": values.mean().expand_as(values),
        "leave_one_out": means[group] - centred / (sizes[group] - 1),
        "none": torch.zeros_like(values),
    }
    found = values - references[baseline]
    if normalize == "prompt":
        found = found / ((members.T @ centred.square() / sizes).sqrt()[group] + EPSILON)
    elif normalize == "update":
        found = found / (values.std(correction=0) + EPSILON)
    return found if clip is None else found.clamp(-clip, clip)


def check_groups(prompts: Sequence[str], baseline: Baseline, normalize: Spread | None) -> None:
    """Raise ValueError if an image of an update with these prompts has no other image to be compared with."""
    sizes = Counter(prompts)
    alone = min(sizes, key=lambda prompt: sizes[prompt])
    if sizes[alone] == 1 and (baseline in ("prompt", "leave_one_out") or normalize == "prompt"):
        raise ValueError(
            f"advantages compare the images of one prompt, but an update has one image alone of {alone!r}: set "
            "training.images_per_prompt to 2 or more, or training.objective.baseline and normalize to update"
        )
    if len(prompts) == 1 and "update" in (baseline, normalize):
        raise ValueError("advantages compare the images of an update, which has only one: raise training.batch_size")
