"""The Vendi score: how many different samples there are, in effect."""

from __future__ import annotations

import math

import torch

from sfumato.metrics.checks import as_features, rounding, unit_rows


def vendi_score(X: torch.Tensor, q: float = 1.0) -> float:
    """Effective number of different rows under cosine similarity, in [1, min(N, D)].

    The exponential of the Rényi entropy of order q of the eigenvalues l of K / N, K the Gram matrix of the rows scaled
    to length 1: exp(-sum l log l) for q = 1, else (sum l^q)^(1 / (1 - q)). Friedman & Dieng 2023 (arXiv 2210.02410),
    definition 3.1; other orders: Pasarkar & Dieng 2023 (arXiv 2310.12952). Small q counts rare kinds as much as common
    ones (q = 0 is the rank), large q sees the common ones only (q = inf is 1 / max l).

    Args:
        X: features (N, D), any float dtype. K, or the covariance where D < N, is decomposed in float64.
        q: order, from 0 to infinity.

    Raises:
        ValueError: bad features, an all-zero row, or q negative or NaN.
    """
    if not q >= 0:
        raise ValueError(f"the order q must be at least 0, not {q}")
    rows = unit_rows(as_features(X))
    eigenvalues = torch.linalg.eigvalsh(rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows)
    share = eigenvalues[eigenvalues > rounding(X) * max(rows.shape) * eigenvalues[-1]]
    share = share / share.sum()
    if q == 1:
        return math.exp(-float((share * share.log()).sum()))
    if q == math.inf:
        return 1 / float(share[-1])
    return math.exp(float(torch.logsumexp(q * share.log(), dim=0)) / (1 - q))
