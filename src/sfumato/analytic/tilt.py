"""The optimum of reward minus β KL: p* ∝ p_b exp(r / β), in closed form for linear and quadratic rewards.

As β -> 0 it collapses onto argmax r, whatever p_b was (Jena et al. 2024, arXiv 2409.06493, section on collapse).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.analytic.worlds import Mixture


@dataclass(frozen=True)
class QuadraticReward:
    """r(x) = constant + Σ_d (linear_d x_d - curvature_d x_d² / 2), a reward like any other.

    Attributes:
        linear: (D,) or a number.
        curvature: (D,) or a number; 0 makes the reward linear, positive values give it a maximum.
        constant: a number.
        name: of the reward.
    """

    linear: Tensor | Sequence[float] | float
    curvature: Tensor | Sequence[float] | float = 0.0
    constant: float = 0.0
    name: str = "quadratic"
    differentiable = True

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value, infinite where unbounded, or where numbers leave D open."""
        linear, curvature = self.terms(torch.zeros((), dtype=torch.float64))
        highest = linear**2 / (2 * curvature)
        if not bool((curvature > 0).all()) or (highest.ndim == 0 and highest > 0):
            return -math.inf, math.inf
        return -math.inf, self.constant + float(highest.sum())

    def __call__(self, images: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """The rewards (B,) of images (B, ...) with D numbers each; prompts play no role."""
        x = images.flatten(1)
        linear, curvature = self.terms(x)
        return self.constant + (linear * x - curvature * x**2 / 2).sum(-1)

    def expectation(self, world: Mixture) -> Tensor:
        """E r(x) for x from a mixture, exactly."""
        linear, curvature = self.terms(world.means)
        return self.constant + (linear * world.mean - curvature * (world.variance + world.mean**2) / 2).sum(-1)

    def terms(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Linear and curvature as tensors of the dtype and device of `like`."""
        return torch.as_tensor(self.linear).to(like), torch.as_tensor(self.curvature).to(like)


@dataclass(frozen=True)
class Tilted:
    """The optimum p* ∝ p_b exp(r / β).

    Attributes:
        world: p*, a mixture again.
        log_normalizer: log Z = log E_b exp(r / β).
        kl: KL(p* || p_b).
        reward: E r under p*.
    """

    world: Mixture
    log_normalizer: Tensor
    kl: Tensor
    reward: Tensor


def tilt(world: Mixture, reward: QuadraticReward, beta: float) -> Tilted:
    """The maximiser of E r - β KL(p || p_b) over all p, with its reward and its KL.

    Component k has precision 1/v_k + q/β and mean v*_k (m_k/v_k + b/β), its weight is multiplied by its own E exp(r/β);
    KL(p* || p_b) = E* r / β - log Z, exact for mixtures too.

    Args:
        world: p_b.
        reward: r.
        beta: β > 0.

    Raises:
        ValueError: β is not positive, or E exp(r / β) is infinite, so that there is no optimum.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}: without a KL penalty the optimum is a point mass")
    linear, curvature = (term / beta for term in reward.terms(world.means))
    precision = 1 / world.variances + curvature
    if not bool((precision > 0).all()):
        raise ValueError("E exp(r / beta) is infinite, as the reward rises faster than p_b falls: raise beta")
    shift = world.means / world.variances + linear
    means, variances = shift / precision, 1 / precision
    exponent = shift**2 / precision - world.means**2 / world.variances - (precision * world.variances).log()
    log_z = exponent.sum(-1) / 2 + reward.constant / beta
    joint = world.log_weights + log_z
    total = torch.logsumexp(joint, -1)
    tilted = Mixture(joint - total[..., None], means, variances)
    expected = reward.expectation(tilted)
    return Tilted(tilted, total, expected / beta - total, expected)


def gaussian_kl(mean_p: Tensor | float, var_p: Tensor | float, mean_q: Tensor | float, var_q: Tensor | float) -> Tensor:
    """KL(p || q) between 1-D Gaussians in nats, elementwise; independent dimensions add up."""
    mean_p, var_p, mean_q, var_q = (torch.as_tensor(v, dtype=torch.float64) for v in (mean_p, var_p, mean_q, var_q))
    return ((var_p + (mean_p - mean_q) ** 2) / var_q - 1 + (var_q / var_p).log()) / 2


def gaussian_entropy(variance: Tensor | float) -> Tensor:
    """The entropy of 1-D Gaussians in nats, elementwise; independent dimensions add up."""
    return (2 * math.pi * math.e * torch.as_tensor(variance, dtype=torch.float64)).log() / 2
