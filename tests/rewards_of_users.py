"""Rewards as a user would write them, for recipes that name them by import path."""

import torch

broken_from: list[int] = []
"""While this holds a number n, `brittle` gives NaN from its n-th call on."""
_calls = 0


def brightness(images, prompts):
    return images.mean(dim=(1, 2, 3))


def brittle(images, prompts):
    """Brightness that breaks when a test says so."""
    global _calls
    _calls = _calls + 1 if broken_from else 0
    scores = images.mean(dim=(1, 2, 3))
    return scores * torch.nan if broken_from and _calls >= broken_from[0] else scores


class OnlyFor:
    """A reward that knows a few prompts."""

    name, range, differentiable = "only", (0.0, 1.0), True

    def check_prompts(self, prompts):
        for prompt in prompts:
            if prompt not in "abcd":
                raise ValueError(f"no word on {prompt!r}")

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3))


def nan(images, prompts):
    return images.mean(dim=(1, 2, 3)) * torch.nan
