"""A law on the line, held as nodes with masses, so that every expectation is a sum; and how the nodes are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy
import torch
from torch import Tensor

from sfumato.analytic.worlds import Mixture

REACH = 9.0
"""Standard deviations beyond which a Gaussian counts as nothing; its mass there is 2e-19."""
NODES, PARTS, LEAST_WIDTH = 16, 8, 1e-13
"""Gauss-Legendre nodes of a panel, parts into which a panel is divided, and the share of the whole that is not."""

Transport = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (M,) -> where they go (M,), and the logarithms of the map's absolute slopes there (M,)."""


class Density(Protocol):
    """Anything with a density on the line, such as a `Mixture` in one dimension."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """The log-density (M,) at x (M, 1)."""


@dataclass(frozen=True)
class Mode:
    """The part of a law between two cuts: its mass, and mean and variance within it."""

    weight: float
    mean: float
    variance: float


@dataclass(frozen=True)
class Law:
    """A law on the line as M nodes in float64, from left to right; integrals are sums over them.

    Attributes:
        points: (M,), rising.
        masses: (M,), the probability that each node stands for.
        log_density: (M,), log p at the points.
        cuts: where modes end, rising; sums over modes are exact at these places only.
    """

    points: Tensor
    masses: Tensor
    log_density: Tensor
    cuts: tuple[float, ...] = ()

    def expectation(self, function: Callable[[Tensor], Tensor]) -> float:
        """E f(x).

        Args:
            function: (M, 1) -> (M,), such as a reward, or the bare `log_prob` of another law.
        """
        return float(self.masses @ function(self.points[:, None]))

    @property
    def mean(self) -> float:
        """E x."""
        return float(self.masses @ self.points)

    @property
    def variance(self) -> float:
        """E (x - E x)²."""
        return float(self.masses @ (self.points - self.mean) ** 2)

    @property
    def entropy(self) -> float:
        """-E log p, in nats."""
        return -float(self.masses @ self.log_density)

    def kl(self, other: Density) -> float:
        """KL(this law || other), in nats."""
        return -self.entropy - self.expectation(other.log_prob)

    def modes(self) -> list[Mode]:
        """Weight, mean and variance of the law's part between each two neighbouring cuts, from left to right."""
        place = torch.bucketize(self.points, torch.tensor(self.cuts, dtype=self.points.dtype), right=True)
        found = []
        for mode in range(len(self.cuts) + 1):
            masses, points = self.masses[place == mode], self.points[place == mode]
            weight = float(masses.sum())
            mean = float(masses @ points) / weight if weight else math.nan
            spread = float(masses @ (points - mean) ** 2) / weight if weight else math.nan
            found.append(Mode(weight, mean, spread))
        return found


def law_of(world: Mixture, cuts: Iterable[float] = (), accuracy: float = 1e-10) -> Law:
    """A mixture in one dimension as a `Law`, for its entropy, its KL divergences and its modes.

    Args:
        world: K components in one dimension.
        cuts: where modes end.
        accuracy: of mass, mean, second moment, entropy and each mode.

    Raises:
        ValueError: a world of more than one dimension.
    """
    check_line(world)
    return integrated(world, *bounds(world), cuts, accuracy)


def integrated(density: Density, low: float, high: float, cuts: Iterable[float], accuracy: float) -> Law:
    """The law of a density that is nothing outside of [low, high]."""
    cuts = tuple(sorted(cuts))
    edges = torch.tensor(sorted({*torch.linspace(low, high, 17).tolist(), *(c for c in cuts if low < c < high)}))
    return _refined(density, lambda x: (x, torch.zeros_like(x)), edges.double(), cuts, accuracy)


def transported(
    density: Density, transport: Transport, low: float, high: float, cuts: Iterable[float], accuracy: float
) -> Law:
    """The law of T(x) for x from a density that is nothing outside of [low, high].

    Where T folds the line, densities of all branches are added, with those between nodes interpolated: then entropy and
    KL are right to 1e-3 or so, and everything else to `accuracy` still.
    """
    edges = torch.linspace(low, high, 33, dtype=torch.float64)
    return _refined(density, transport, edges, tuple(sorted(cuts)), accuracy)


def bounds(*worlds: Mixture) -> tuple[float, float]:
    """An interval outside of which none of the worlds, in one dimension, has any mass."""
    reach = [REACH * world.variances.sqrt() for world in worlds]
    low = min(float((world.means - r).min()) for world, r in zip(worlds, reach, strict=True))
    return low, max(float((world.means + r).max()) for world, r in zip(worlds, reach, strict=True))


def check_line(*worlds: Mixture) -> None:
    """Refuse worlds that are no single mixture in one dimension."""
    for world in worlds:
        if world.means.ndim != 2 or world.means.shape[1] != 1:
            raise ValueError(
                f"mixtures are integrated on a line, in one dimension, but this one has means {(*world.means.shape,)}: "
                "give independent dimensions one at a time"
            )


def _refined(density: Density, transport: Transport, edges: Tensor, cuts: tuple[float, ...], accuracy: float) -> Law:
    """Gauss-Legendre on panels that are divided until the last coefficients of every integrand are below `accuracy`."""
    knots, gauss = (torch.from_numpy(value) for value in numpy.polynomial.legendre.leggauss(NODES))
    orders = torch.arange(NODES - 2, NODES, dtype=torch.float64)
    basis = torch.from_numpy(numpy.polynomial.legendre.legvander(knots.numpy(), NODES - 1))[:, -2:]
    last = gauss[:, None] * basis * (2 * orders + 1) / 2  # values at the knots -> the last two coefficients
    whole = float(edges[-1] - edges[0])
    panels, found = torch.stack([edges[:-1], edges[1:]], 1), []
    while len(panels):
        half = (panels[:, 1:] - panels[:, :1]) / 2
        nodes = panels[:, :1] + half * (1 + knots)
        y, log_slope = (value.view_as(nodes) for value in transport(nodes.flatten()))
        log_mass = density.log_prob(nodes.reshape(-1, 1)).view_as(nodes)
        values = [torch.ones_like(y), y, y**2, log_mass - log_slope, *(y < cut for cut in cuts)]
        error = ((log_mass.exp() * torch.stack(values)) @ last).abs().amax((0, 2)) * 2 * half[:, 0]
        done = (error <= accuracy) | (half[:, 0] < LEAST_WIDTH * whole)
        rows = torch.stack([nodes, y, log_mass.exp() * gauss * half, log_mass - log_slope])
        found.append(rows[:, done].flatten(1))
        panels = _divided(panels[~done])
    rows = torch.cat(found, 1)
    _, points, masses, log_density = rows[:, rows[0].argsort()]
    if bool((points.diff() < 0).any()):
        log_density = _added(points, log_density)
    order = points.argsort()
    return Law(points[order], masses[order], log_density[order], cuts)


def _divided(panels: Tensor) -> Tensor:
    cuts = torch.lerp(panels[:, :1], panels[:, 1:], torch.linspace(0, 1, PARTS + 1, dtype=torch.float64))
    return torch.stack([cuts[:, :-1], cuts[:, 1:]], -1).reshape(-1, 2)


def _added(points: Tensor, log_density: Tensor) -> Tensor:
    """The log-density at `points`, the images of rising nodes, summed over the branches of a map that folds."""
    x, y = points.numpy(), log_density.numpy()
    turns = numpy.flatnonzero(numpy.diff(numpy.sign(numpy.diff(x)))) + 1
    total = numpy.full_like(x, -numpy.inf)
    for start, stop in pairwise([0, *turns, len(x)]):
        order = start + numpy.argsort(x[start:stop])
        branch = numpy.interp(x, x[order], y[order], left=-numpy.inf, right=-numpy.inf)
        total = numpy.logaddexp(total, branch)
    return torch.from_numpy(total)
