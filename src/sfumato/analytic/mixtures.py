"""The law of Annealed Importance Guidance between two mixtures on a line, by integration to a stated accuracy.

A step is x' = keep · x + follow · E[x0 | x] + noise · ξ with a blended, no longer affine E[x0 | x]. Steps without noise
are one map, so the law is the image of the law before; a step with noise makes it a sum of Gaussians of one width,
around the images of the nodes of the law before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.analytic.law import guidance_weights, with_timesteps
from sfumato.analytic.quadrature import REACH, Law, check_line, transported
from sfumato.analytic.steps import AffineStep, affine_steps
from sfumato.analytic.worlds import Mixture
from sfumato.schedules import Schedule
from sfumato.schedules import schedule as make_schedule

Step = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (M,) -> the mean of the next sample (M,), and its slope (M,)."""
SILENT, MOST_NODES, CHUNK = 1e-8, 200_000, 64
"""Noise that counts as none, the most nodes that a step's law is given, and how many of them are summed at a time."""


def mixture_aig(
    base: Mixture,
    tuned: Mixture,
    scheduler: Any,
    schedule: str | Schedule | Callable[[float], float],
    *,
    num_inference_steps: int | None = None,
    eta: float = 0.0,
    blend: str = "predictions",
    until: int | None = None,
    cuts: Iterable[float] = (),
    accuracy: float = 1e-9,
    **parameters: Any,
) -> Law:
    """The law of the samples of AIG (arXiv 2409.06493) between the exact denoisers of two mixtures.

    It is that of the scheduler as it is, like `gaussian_aig`, which this agrees with to 1e-10 if both worlds have one
    component. DDIM (any η), DDPM, Euler, ancestral Euler and flow matching.

    Args:
        base: the base model's world, in one dimension.
        tuned: the tuned model's world.
        scheduler: one for which `has_affine_steps` holds, after `set_timesteps`. It is left as it is.
        schedule: g, as in `sfumato.annealed_guidance`. `"constant"` is RLG's blend.
        num_inference_steps: sets the timesteps of a copy of the scheduler; `None` takes them as they are.
        eta: DDIM's η.
        blend: `"predictions"`, or `"weights"` for base + g(u) ΔW on `AnalyticDenoiser`: a step with weight g follows
            `base.toward(tuned, g)`. With `"constant"` that is LoRA scaling.
        until: the number of steps to take; the law is then that of x_t before the next one. `None` takes all.
        cuts: where modes end, such as the valley between two components.
        accuracy: of mass, mean, second moment, entropy and the weight of each mode.
        **parameters: the schedule's parameters, its `cap` and its `clock`.

    Raises:
        ValueError: worlds of more than one dimension, a scheduler that has no affine steps or no timesteps or clips, or
            steps with so little noise that no grid resolves it.
    """
    check_line(base, tuned)
    if blend not in ("predictions", "weights"):
        raise ValueError(f"blend is 'predictions' or 'weights', not {blend!r}")
    if blend == "weights" and base.means.shape != tuned.means.shape:
        raise ValueError("a LoRA leads to a world with as many components: give both worlds the same number")
    scheduler = with_timesteps(scheduler, num_inference_steps)
    weights = guidance_weights(scheduler, make_schedule(schedule, **parameters))
    law = _Kernels(torch.ones(1).double(), torch.zeros(1).double(), float(getattr(scheduler, "init_noise_sigma", 1.0)))
    pending: list[Step] = []
    for step, g in list(zip(affine_steps(scheduler, eta), weights, strict=True))[:until]:
        pending.append(_mean(base, tuned, step, g, blend))
        if step.noise > SILENT:
            law, pending = law.moved(pending, step.noise, accuracy / 10), []
    return transported(law, lambda x: _composed(pending, x), *law.bounds, cuts, accuracy)


@dataclass(frozen=True)
class _Kernels:
    """A sum of Gaussians of one width.

    Attributes:
        weights: (K,).
        centres: (K,), rising.
        width: their standard deviation.
    """

    weights: Tensor
    centres: Tensor
    width: float

    @property
    def bounds(self) -> tuple[float, float]:
        reach = REACH * self.width
        return float(self.centres.min()) - reach, float(self.centres.max()) + reach

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density (M,) at x (M, 1)."""
        log_scale = self.weights.log() - math.log(self.width * math.sqrt(2 * math.pi))
        order, found = x[:, 0].argsort(), []
        for rows in x[order].split(CHUNK):
            near = torch.cat([rows[0] - REACH * self.width, rows[-1] + REACH * self.width])
            part = slice(*torch.searchsorted(self.centres, near).tolist())
            exponent = ((rows - self.centres[part]) / self.width) ** 2 / 2
            found.append(torch.logsumexp(log_scale[part] - exponent, -1))
        return torch.empty_like(x[:, 0]).scatter_(0, order, torch.cat(found)).clamp(min=-700.0)

    def moved(self, steps: Sequence[Step], noise: float, accuracy: float) -> _Kernels:
        """The law after the maps `steps` and Gaussian noise.

        The trapezoidal rule with spacing h has the relative error 2 exp(-2 π² s² / h²) on a Gaussian of width s: that
        of a kernel times the noise's own bell, seen through the steepest slope. As this is not quite a Gaussian, half
        the spacing is taken.
        """
        low, high = self.bounds
        probes = torch.linspace(low, high, 2001, dtype=torch.float64)
        steepest = float(_composed(steps, probes)[1].max().exp())
        scale = 1 / math.hypot(1 / self.width, steepest / noise)
        spacing = 0.5 * scale * math.pi * math.sqrt(2 / math.log(2 / accuracy))
        count = math.ceil((high - low) / spacing) + 1
        if count > MOST_NODES:
            raise ValueError(f"steps with noise {noise:.2g} need a grid of {count} nodes: take eta=0, or more noise")
        nodes = torch.linspace(low, high, count, dtype=torch.float64)
        weights = self.log_prob(nodes[:, None]).exp() * (high - low) / (count - 1)
        matter = weights > 1e-22
        centres, order = _composed(steps, nodes[matter])[0].sort()
        return _Kernels(weights[matter][order], centres, noise)


def _mean(base: Mixture, tuned: Mixture, step: AffineStep, g: float, blend: str) -> Step:
    """The deterministic part of a step, with weight g for the tuned model."""
    if blend == "weights":
        parts = [(1.0, base.toward(tuned, g))]
    else:
        parts = [(share, world) for share, world in ((1 - g, base), (g, tuned)) if share]

    def take(x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = step.keep * x, torch.full_like(x, step.keep)
        for share, world in parts:
            mean, variance = world.posterior(x[:, None], step.alpha, step.sigma)
            value = value + share * step.follow * mean[:, 0]
            slope = slope + share * step.follow * step.alpha / step.sigma**2 * variance[:, 0]
        return value, slope

    return take


def _composed(steps: Sequence[Step], x: Tensor) -> tuple[Tensor, Tensor]:
    """Where the steps lead from x (M,), and the logarithm of the absolute slope (M,)."""
    log_slope = torch.zeros_like(x)
    for step in steps:
        x, slope = step(x)
        log_slope = log_slope + slope.abs().log()
    return x, log_slope
