"""The law of AIG between two mixtures in the limit of infinitely many steps of the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.analytic.quadrature import REACH, Law, check_line, integrated
from sfumato.analytic.worlds import Mixture


def continuous_aig(
    base: Mixture,
    tuned: Mixture,
    sigma_max: float,
    weight: Callable[[float], float],
    *,
    cuts: Iterable[float] = (),
    steps: int = 400,
    accuracy: float = 1e-9,
) -> Law:
    """The law of AIG's samples between two mixtures; `continuous_law` for more than one component.

    In variance-exploding coordinates x = x0 + σ ε, from N(0, σ_max²) down to σ = 0,

        dx / dσ = -σ ((1 - g) ∇ log p_b,σ(x) + g ∇ log p_r,σ(x)).

    The density at x is that of the noise from which the ODE leads there, times the slope of the way back. First-order
    samplers reach it to O(1/N).

    Args:
        base: the base model's world, in one dimension.
        tuned: the tuned model's world.
        sigma_max: where sampling begins.
        weight: g as a function of σ. Jumps cost accuracy, as in `continuous_law`.
        cuts: where modes end.
        steps: Runge-Kutta steps of fourth order, uniform in asinh(σ / s) with s² the smallest variance; 400 are good
            for 1e-8.
        accuracy: of the integrals over the density.

    Raises:
        ValueError: worlds of more than one dimension.
    """
    check_line(base, tuned)
    flow = _Flow(base, tuned, sigma_max, weight, steps)
    ends = torch.tensor([-REACH, REACH], dtype=torch.float64) * sigma_max
    low, high = flow.run(ends, down=True)[0].tolist()
    return integrated(flow, low, high, cuts, accuracy)


@dataclass(frozen=True)
class _Flow:
    """The ODE between σ = 0 and σ_max; its density is that of its ends at σ = 0."""

    base: Mixture
    tuned: Mixture
    sigma_max: float
    weight: Callable[[float], float]
    steps: int

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density (M,) at x (M, 1)."""
        noise, log_slope = self.run(x[:, 0], down=False)
        return log_slope - (noise / self.sigma_max) ** 2 / 2 - math.log(self.sigma_max * math.sqrt(2 * math.pi))

    def run(self, x: Tensor, *, down: bool) -> Tensor:
        """Where the ODE leads from x (M,), and the logarithm of the slope, (2, M)."""
        scale = float(torch.minimum(self.base.variances.min(), self.tuned.variances.min()).sqrt())
        span = math.asinh(self.sigma_max / scale)
        h = (-span if down else span) / self.steps
        begin = span if down else 0.0

        def rate(tau: float, state: Tensor) -> Tensor:
            tau = min(max(tau, 0.0), span)
            sigma = scale * math.sinh(tau)
            return -sigma * scale * math.cosh(tau) * self._score(state[0], sigma)

        state = torch.stack([x, torch.zeros_like(x)])
        for i in range(self.steps):
            tau = begin + i * h
            k1 = rate(tau, state)
            k2 = rate(tau + h / 2, state + h / 2 * k1)
            k3 = rate(tau + h / 2, state + h / 2 * k2)
            k4 = rate(tau + h, state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state

    def _score(self, x: Tensor, sigma: float) -> Tensor:
        """The blended score at x (M,) and its slope, (2, M)."""
        g = self.weight(sigma)
        return (1 - g) * _score(self.base, x, sigma) + g * _score(self.tuned, x, sigma)


def _score(world: Mixture, x: Tensor, sigma: float) -> Tensor:
    """The score at x (M,) of a world with noise sigma, and its slope, (2, M)."""
    variances = world.variances[:, 0] + sigma**2
    pull = (world.means[:, 0] - x[:, None]) / variances
    weights = torch.softmax(world.log_weights - (pull**2 * variances + variances.log()) / 2, -1)
    score = (weights * pull).sum(-1)
    return torch.stack([score, (weights * (pull**2 - 1 / variances)).sum(-1) - score**2])
