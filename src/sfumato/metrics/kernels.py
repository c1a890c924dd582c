"""Maximum mean discrepancy: KID with a cubic kernel, CMMD with a Gaussian one. Features need no Gaussian shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from sfumato.metrics.checks import as_feature_pair, unit_rows
from sfumato.metrics.distances import square_blocks

Kernel = Callable[[torch.Tensor], torch.Tensor]
"""From inner products to kernel values, elementwise."""

BANDWIDTH, SCALE = 10.0, 1000.0  # CMMD's sigma and factor


class KIDEstimate(NamedTuple):
    """Mean and standard deviation (over N, not N - 1) of KID over random subsets."""

    mean: float
    std: float


def kid(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Kernel Inception distance of all samples: the unbiased estimate of MMD² under ((x·y) / D + 1)³.

    Bińkowski et al. 2018 (arXiv 1801.01403). Its expected value is 0 for equal distributions
    at any N, so it may be slightly negative. Costs two matrix products of N² D in float64.

    Args:
        real: (N, D), N at least 2, any float dtype; Inception's pool features for the KID of the literature.
        fake: (M, D), M at least 2.

    Raises:
        ValueError: bad features.
    """
    real, fake = as_feature_pair(real, fake, at_least=2)
    return _unbiased(real, fake)


def kid_subsets(
    real: torch.Tensor, fake: torch.Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> KIDEstimate:
    """KID as it is usually reported: mean and standard deviation over random subsets of both sets.

    The defaults, and the subsets for a seed, are those of torch-fidelity. The standard deviation is that of a subset's
    value, not the error of the mean. `kid` uses all pairs and varies less.

    Args:
        real: (N, D), any float dtype.
        fake: (M, D).
        subsets: how many.
        subset_size: samples per set and subset, from 2 to the smaller of N and M, drawn without replacement.
        seed: of numpy's RandomState, which never changes; the fakes of a subset are drawn first.

    Raises:
        ValueError: bad features, no subsets, or subsets larger than a set or smaller than 2.
    """
    real, fake = as_feature_pair(real, fake, at_least=2)
    if subsets < 1:
        raise ValueError(f"subsets={subsets}: KID needs at least one")
    if not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"subset_size={subset_size} with {len(real)} real and {len(fake)} fake samples: "
            "take at least 2, and no more than the smaller set holds"
        )
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        some_fake, some_real = (
            x[torch.from_numpy(random.choice(len(x), subset_size, replace=False)).to(x.device)] for x in (fake, real)
        )
        values.append(_unbiased(some_real, some_fake))
    return KIDEstimate(float(np.mean(values)), float(np.std(values)))


def cmmd(real: torch.Tensor, fake: torch.Tensor) -> float:
    """CLIP maximum mean discrepancy: 1000 MMD² under exp(-|x - y|² / (2 · 10²)) of rows scaled to length 1, at least 0.

    Jayasumana et al. 2024 (arXiv 2401.09603), with the constants of the authors' code and, as there, the V-statistic: a
    sample's kernel with itself counts, so the expected value of equal distributions is not 0 but falls as 1 / N. At
    most 39.6. Costs two matrix products of N² D in float64.

    Args:
        real: (N, D), any float dtype; embeddings of CLIP ViT-L/14 at 336 pixels for the CMMD of the literature.
        fake: (M, D).

    Raises:
        ValueError: bad features, or an all-zero row.
    """
    real, fake = as_feature_pair(real, fake)
    real, fake = unit_rows(real, "real features"), unit_rows(fake, "fake features")

    def kernel(products: torch.Tensor) -> torch.Tensor:
        return torch.expm1((products - 1) / BANDWIDTH**2)  # less 1, which cancels, to keep the digits of small values

    def mean(x: torch.Tensor, y: torch.Tensor) -> float:
        return _total(x, y, kernel) / (len(x) * len(y))

    return max(0.0, SCALE * (mean(real, real) + mean(fake, fake) - 2 * mean(real, fake)))


def _unbiased(x: torch.Tensor, y: torch.Tensor) -> float:
    """The U-statistic of MMD² under the cubic kernel."""

    def kernel(products: torch.Tensor) -> torch.Tensor:
        return (products / x.shape[1] + 1) ** 3

    def within(x: torch.Tensor) -> float:
        own = kernel(x.square().sum(dim=1))
        return (_total(x, x, kernel) - float(own.sum())) / (len(x) * (len(x) - 1))

    return within(x) + within(y) - 2 * _total(x, y, kernel) / (len(x) * len(y))


def _total(x: torch.Tensor, y: torch.Tensor, kernel: Kernel) -> float:
    """Sum of the kernel over all pairs of rows, in blocks; within one set each pair of blocks is computed once."""
    total = 0.0
    for rows, columns in square_blocks(x, y):
        value = float(kernel(x[rows] @ y[columns].T).sum())
        total += value if y is not x or rows == columns else 2 * value
    return total
