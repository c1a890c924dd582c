"""The geometric bridge p_b,t^(1-g) p_r,t^g / Z, whose score Annealed Importance Guidance follows step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.analytic.quadrature import Law, bounds, check_line, integrated
from sfumato.analytic.worlds import Mixture


@dataclass(frozen=True)
class Bridge:
    """The density p_b^(1-g) p_r^g / Z on a line (Jena et al. 2024, arXiv 2409.06493).

    Attributes:
        base: p_b, at the noise level in question.
        tuned: p_r, at the same level.
        weight: g.
        log_normalizer: log Z; with g in [0, 1] it is never above 0.
    """

    base: Mixture
    tuned: Mixture
    weight: float
    log_normalizer: float = 0.0

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density (M,) at x (M, 1)."""
        base, tuned = self.base.log_prob(x), self.tuned.log_prob(x)
        return (1 - self.weight) * base + self.weight * tuned - self.log_normalizer

    def law(self, cuts: Iterable[float] = (), accuracy: float = 1e-10) -> Law:
        """Its entropy, KL divergences, moments and modes; see `law_of`."""
        return integrated(self, *_bounds(self), cuts, accuracy)


def bridge(base: Mixture, tuned: Mixture, weight: float, alpha: float = 1.0, sigma: float = 0.0) -> Bridge:
    """The bridge between two worlds at the noise level x = alpha · x0 + sigma · ε.

    Args:
        base: a mixture in one dimension.
        tuned: another.
        weight: g; outside of [0, 1] it extrapolates.
        alpha: how much of the image is left.
        sigma: how much noise there is.

    Raises:
        ValueError: worlds of more than one dimension, or a weight with which the bridge has no finite mass.
    """
    check_line(base, tuned)
    raw = Bridge(base.noised(alpha, sigma), tuned.noised(alpha, sigma), weight)
    low, high = _bounds(raw)
    grid = torch.linspace(low, high, 4001, dtype=torch.float64)[:, None]
    highest = float(raw.log_prob(grid).max())
    lifted = Bridge(raw.base, raw.tuned, weight, highest)
    mass = float(integrated(lifted, low, high, (), 1e-12).masses.sum().log())
    return Bridge(raw.base, raw.tuned, weight, highest + mass)


def _bounds(bridge: Bridge) -> tuple[float, float]:
    """Where the bridge has its mass, from its tails, which are those of the widest components."""
    g = bridge.weight
    widest = [float(world.variances.max()) for world in (bridge.base, bridge.tuned)]
    precision = (1 - g) / widest[0] + g / widest[1]
    if precision <= 0:
        raise ValueError(
            f"the bridge with weight {g} grows without limit, so it is no density: take a weight nearer 0.5"
        )
    low, high = bounds(bridge.base, bridge.tuned)
    stretch = max(1.0, (1 / precision / max(widest)) ** 0.5) * (1 + 2 * max(-g, g - 1, 0))
    return (low + high) / 2 - stretch * (high - low) / 2, (low + high) / 2 + stretch * (high - low) / 2
