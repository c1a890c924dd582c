"""Distances between two sets of features by their means and covariances."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sfumato.metrics.checks import as_feature_pair


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance between the Gaussians with the two sets' moments, at least 0.

    |m_r - m_f|² + tr(S_r + S_f - 2 (S_r S_f)^(1/2)), covariances over N - 1. Dowson & Landau 1982; on Inception
    features it is the FID of Heusel et al. 2017 (arXiv 1706.08500), equation 6.

    Args:
        real: (N, D), N at least 2, any float dtype.
        fake: (M, D), M at least 2.

    Raises:
        ValueError: bad features.
    """
    real, fake = as_feature_pair(real, fake, at_least=2)
    means = (real.mean(dim=0) - fake.mean(dim=0)).square().sum()
    a, b = _factor(real), _factor(fake)
    overlap = torch.linalg.svdvals(a @ b.T).sum()  # tr (AᵀA BᵀB)^(1/2) is the nuclear norm of A Bᵀ
    return max(0.0, float(means + a.square().sum() + b.square().sum() - 2 * overlap))


def spectral_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Distance between the spreads of two sets, wherever they lie and however they are turned, at least 0.

    (sum_i (s_i - t_i)²)^(1/2), s and t the standard deviations along the principal axes (roots of the eigenvalues of
    the covariances over N - 1) in falling order, padded with zeros. This is the smallest Fréchet distance (not
    squared) that a shift and a rotation of `fake` can reach: a set that moved but kept its variety is at 0, one that
    collapsed to a point is at the root of the real set's total variance. A metric on spectra, in units of the
    features. Ours; it is not claimed to be the "spectral distance" of Jena et al. (arXiv 2409.06493).

    Args:
        real: (N, D), N at least 2, any float dtype.
        fake: (M, D), M at least 2.

    Raises:
        ValueError: bad features.
    """
    real, fake = as_feature_pair(real, fake, at_least=2)
    s, t = torch.linalg.svdvals(_factor(real)), torch.linalg.svdvals(_factor(fake))
    width = max(len(s), len(t))
    return float(torch.linalg.vector_norm(F.pad(s, (0, width - len(s))) - F.pad(t, (0, width - len(t)))))


def _factor(x: torch.Tensor) -> torch.Tensor:
    """A matrix A of at most D rows with AᵀA the covariance of the rows of `x`."""
    centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred
