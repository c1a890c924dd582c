"""Measures by means and covariances: FID and spectral distance of two sets, the truncated entropy of one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sfumato.metrics.checks import as_feature_pair, as_features, rounding


def fid(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance between the Gaussians with the two sets' moments, at least 0.

    |m_r - m_f|² + tr(S_r + S_f - 2 (S_r S_f)^(1/2)), covariances over N - 1. Dowson & Landau 1982; on Inception's pool
    features it is the FID of Heusel et al. 2017 (arXiv 1706.08500), equation 6. It is biased upwards at small N.

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


def truncated_entropy(X: torch.Tensor, components: int = 20) -> float:
    """Entropy in nats of the Gaussian with the set's covariance, along its largest principal axes only.

    components / 2 log(2 pi e) + 1/2 sum_i log l_i, l the largest eigenvalues of the covariance over N - 1. On CLIP's
    image embeddings (not scaled to length 1) it is the truncated CLIP entropy (TCE) of Ibarrola & Grace 2024 (arXiv
    2403.13826), on Inception's features their TIE; 20 components as in their code. It depends on the features' scale
    and may be negative.

    Args:
        X: features (N, D), any float dtype, N greater than `components`, D at least as much.
        components: how many axes.

    Returns:
        Minus infinity where the set has no extent, up to rounding, along that many axes.

    Raises:
        ValueError: bad features, or `components` not from 1 to the smaller of N - 1 and D.
    """
    features = as_features(X)
    most = min(len(features) - 1, features.shape[1])
    if not 1 <= components <= most:
        raise ValueError(
            f"components={components} with features of shape {tuple(features.shape)}: "
            f"take from 1 to min(N - 1, D) = {most}, or more samples"
        )
    variances = torch.linalg.svdvals(_factor(features)).square()[:components]
    if variances[-1] <= rounding(X) * max(features.shape) * features.square().mean(dim=0).sum():
        return -math.inf
    return 0.5 * (components * math.log(2 * math.pi * math.e) + float(variances.log().sum()))


def _factor(x: torch.Tensor) -> torch.Tensor:
    """A matrix A of at most D rows with AᵀA the covariance of the rows of `x`."""
    centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred
