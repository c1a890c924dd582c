"""Worlds in which everything is known: mixtures of Gaussians, their noised marginals, scores and exact denoisers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
"""What a denoiser may predict, in diffusers' words: noise, image, v = alpha · ε - sigma · x0, velocity = ε - x0."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians with diagonal covariances in D dimensions; K = 1 is a single Gaussian.

    Leading dimensions, written ..., are a batch of worlds and broadcast against the batch of points.

    Attributes:
        log_weights: (..., K), normalised.
        means: (..., K, D).
        variances: (..., K, D), positive.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @property
    def mean(self) -> Tensor:
        """E x, (..., D)."""
        return (self.log_weights.exp()[..., None] * self.means).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each dimension, within and between components, (..., D)."""
        second = (self.log_weights.exp()[..., None] * (self.variances + self.means**2)).sum(-2)
        return second - self.mean**2

    def noised(self, alpha: Tensor | float, sigma: Tensor | float) -> Mixture:
        """The marginal law of x_t = alpha · x0 + sigma · ε, again a mixture.

        Args:
            alpha: a number or (..., 1).
            sigma: like `alpha`.
        """
        alpha, sigma = (torch.as_tensor(value, dtype=self.means.dtype)[..., None] for value in (alpha, sigma))
        return Mixture(self.log_weights, alpha * self.means, alpha**2 * self.variances + sigma**2)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density at x (..., D), as (...)."""
        return torch.logsumexp(self._joint(x), -1)

    def score(self, x: Tensor) -> Tensor:
        """∇ log p at x (..., D), as (..., D)."""
        pull = (self.means - x[..., None, :]) / self.variances
        return (self._responsibilities(x)[..., None] * pull).sum(-2)

    def predict(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float, prediction: str) -> Tensor:
        """What the exact denoiser says at x_t = alpha · x0 + sigma · ε.

        Args:
            x: (..., D).
            alpha: a number or (..., 1).
            sigma: like `alpha`.
            prediction: one of `PREDICTIONS`.

        Returns:
            E[ε | x], E[x0 | x] or the matching velocity, (..., D).
        """
        noised = self.noised(alpha, sigma)
        alpha, sigma = (torch.as_tensor(value, dtype=x.dtype) for value in (alpha, sigma))
        residual = (x[..., None, :] - noised.means) / noised.variances
        responsibilities = noised._responsibilities(x)[..., None]
        noise = sigma * (responsibilities * residual).sum(-2)
        image = (responsibilities * (self.means + alpha[..., None] * self.variances * residual)).sum(-2)
        return as_prediction(prediction, image, noise, alpha, sigma)

    def posterior(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of x0 given x = alpha · x0 + sigma · ε, (..., D) each.

        The mean's derivative by x is alpha / sigma² times the covariance of x0, so the variance in one dimension.

        Args:
            x: (..., D).
            alpha: a number or (..., 1).
            sigma: like `alpha`.
        """
        noised = self.noised(alpha, sigma)
        responsibilities = noised._responsibilities(x)[..., None]
        share = self.variances / noised.variances
        alpha, sigma = (torch.as_tensor(value, dtype=x.dtype)[..., None] for value in (alpha, sigma))
        means = self.means + alpha * share * (x[..., None, :] - noised.means)
        mean = (responsibilities * means).sum(-2)
        spread = sigma**2 * share + (means - mean[..., None, :]) ** 2
        return mean, (responsibilities * spread).sum(-2)

    def toward(self, other: Mixture, share: float) -> Mixture:
        """The world of the LoRA that leads to `other`, scaled by `share`: straight lines in all that is learned.

        Those are the means, the logarithms of the variances and, up to normalisation, of the weights; see
        `AnalyticDenoiser`. Other shares than 0 to 1 extrapolate.
        """
        return Mixture(
            torch.log_softmax((1 - share) * self.log_weights + share * other.log_weights, -1),
            (1 - share) * self.means + share * other.means,
            self.variances ** (1 - share) * other.variances**share,
        )

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `count` points of an unbatched world, (count, D)."""
        device = generator.device if generator is not None else None
        component = torch.multinomial(self.log_weights.exp().to(device), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[-1], dtype=self.means.dtype, device=device, generator=generator)
        component, noise = component.to(self.means.device), noise.to(self.means.device)
        return self.means[component] + self.variances[component].sqrt() * noise

    def _joint(self, x: Tensor) -> Tensor:
        """log p(x, component), (..., K)."""
        exponent = (x[..., None, :] - self.means) ** 2 / self.variances + self.variances.log() + math.log(2 * math.pi)
        return self.log_weights - exponent.sum(-1) / 2

    def _responsibilities(self, x: Tensor) -> Tensor:
        return torch.softmax(self._joint(x), -1)


def as_prediction(prediction: str, image: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] and E[ε | x] as one of `PREDICTIONS`.

    Raises:
        ValueError: an unknown kind of prediction.
    """
    match prediction:
        case "epsilon":
            return noise
        case "sample":
            return image
        case "v_prediction":
            return alpha * noise - sigma * image
        case "flow_prediction":
            return noise - image
    raise ValueError(f"unknown prediction type {prediction!r}: choose one of {', '.join(PREDICTIONS)}")


def gaussian(mean: Tensor | Sequence[float] | float, variance: Tensor | Sequence[float] | float) -> Mixture:
    """A single Gaussian with independent dimensions.

    Args:
        mean: (D,) or a number.
        variance: (D,) or a number, positive.
    """
    return mixture([1.0], _rows(mean), _rows(variance))


def mixture(
    weights: Tensor | Sequence[float], means: Tensor | Sequence, variances: Tensor | Sequence | float
) -> Mixture:
    """A mixture of Gaussians in float64.

    Args:
        weights: (K,), positive; they are normalised.
        means: (K, D).
        variances: (K, D) or anything that broadcasts to it, positive.

    Raises:
        ValueError: shapes that do not fit, weights or variances that are not positive, anything not finite.
    """
    w, m, v = (torch.as_tensor(value, dtype=torch.float64) for value in (weights, means, variances))
    if w.ndim != 1 or m.ndim != 2 or len(w) != len(m):
        raise ValueError(f"a mixture takes weights (K,) and means (K, D), not {(*w.shape,)} and {(*m.shape,)}")
    m, v = torch.broadcast_tensors(m, v)
    if not all(bool(value.isfinite().all()) for value in (w, m, v)):
        raise ValueError("the weights, means and variances of a mixture must be finite")
    if not (bool((w > 0).all()) and bool((v > 0).all())):
        raise ValueError("the weights and variances of a mixture must be positive")
    return Mixture((w / w.sum()).log(), m.contiguous(), v.contiguous())


def _rows(value: Tensor | Sequence[float] | float) -> Tensor:
    """A number or (D,) as (1, D)."""
    return torch.as_tensor(value, dtype=torch.float64).reshape(1, -1)
