"""Entropy over kinds: how evenly the samples spread over styles, subcategories or modes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

import torch


def entropy(labels_or_probabilities: Iterable[Hashable] | torch.Tensor) -> float:
    """Entropy in nats, in [0, log of the number of kinds], after Shannon 1948.

    Args:
        labels_or_probabilities: either labels, one per sample (strings, or integers in a list or a tensor), whose
            frequencies are used; or a floating-point tensor of probabilities, (C,) or one row per sample (N, C), whose
            mean row is used, so that a classifier's doubt counts as spread. The frequencies of N labels underestimate
            the entropy by about (kinds - 1) / 2N.

    Raises:
        ValueError: nothing given, or probabilities that are negative, not finite or do not sum to 1.
    """
    values = labels_or_probabilities
    if isinstance(values, torch.Tensor) and values.is_floating_point():
        shares = check_probabilities(values).mean(dim=0)
    else:
        labels = values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else list(values)
        if not labels:
            raise ValueError("the entropy of no labels is undefined: give at least one")
        shares = torch.tensor(list(Counter(labels).values()), dtype=torch.float64) / len(labels)
    return max(0.0, float(torch.special.entr(shares).sum()))


def check_probabilities(values: torch.Tensor) -> torch.Tensor:
    """Probabilities (C,) or (N, C) as rows (N, C) that sum to 1, float64, on the CPU.

    Raises:
        ValueError: another shape, negative, not finite, or sums that are not 1.
    """
    if values.ndim not in (1, 2) or values.numel() == 0:
        raise ValueError(f"probabilities must have shape (C,) or (N, C) and not be empty, not {tuple(values.shape)}")
    rows = values.detach().cpu().double().reshape(-1, values.shape[-1])
    if not (torch.isfinite(rows).all() and (rows >= 0).all()):
        raise ValueError("probabilities must be finite and not negative: apply softmax to logits first")
    sums = rows.sum(dim=1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        raise ValueError(f"probabilities must sum to 1 in every row, not {float(sums[(sums - 1).abs().argmax()]):.4g}")
    return rows / sums[:, None]
