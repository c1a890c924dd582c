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
