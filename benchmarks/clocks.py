"""Which clock lets one schedule mean the same for every sampler and every number of steps?

    python benchmarks/clocks.py            # half a minute, no model needed
    python benchmarks/clocks.py --details  # also the place at which every single sampler ends

Measured in closed form, between Gaussian worlds of several sizes (`sfumato.analytic`). What a schedule *means* is the
place where its samples end on the way from the base model (0) to the tuned one (1): of the log-variance where tuning
narrows a world, of the mean where it shifts one. Base and tuned are those of the same sampler and number of steps, so
that a sampler's own error does not count.

A clock under which every schedule ends near the tuned model would look steady for nothing. So the schedules of each
clock are chosen to end at 1/4, 1/2 and 3/4 of the way, averaged over the worlds, in the limit of infinitely many steps
of Stable Diffusion's noise schedule: a power u^p and a switch at f for each. That place is the average of g over the
noise levels with a kernel k, since the continuous law is linear in g:

    variances v_b, v_r, equal means:   k(σ) = σ / (v_r + σ²) - σ / (v_b + σ²)
    means m_b, m_r, equal variance v:  k(σ) = σ / (v + σ²)^(3/2)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.analytic import continuous_law, gaussian_aig
from sfumato.grids import CLOCKS
from sfumato.pipelines.clocks import read_grid
from sfumato.schedules import schedule

Array = NDArray[np.float64]
Places = dict[tuple[str, int], Array]
"""(Sampler, N) -> the place for each schedule and world."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
DPM = {**BETAS, "algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
DDIM = {**BETAS, "clip_sample": False}
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM, leading": ("DDIMScheduler", {**DDIM, "steps_offset": 1}),
    "DDIM, trailing": ("DDIMScheduler", {**DDIM, "timestep_spacing": "trailing"}),
    "Euler": ("EulerDiscreteScheduler", BETAS),
    "Euler, Karras": ("EulerDiscreteScheduler", {**BETAS, "use_karras_sigmas": True}),
    "DPM-Solver++ 2M": ("DPMSolverMultistepScheduler", DPM),
    "DPM-Solver++ 2M, Karras": ("DPMSolverMultistepScheduler", {**DPM, "use_karras_sigmas": True}),
    "Heun": ("HeunDiscreteScheduler", BETAS),
    "LCM": ("LCMScheduler", {**BETAS, "clip_sample": False}),
    "flow matching, shift 1": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
    "flow matching, shift 3": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
}
STEPS = (1, 2, 3, 4, 8, 20, 50)
LCM_STEPS = 8
"""LCM is distilled to few steps; more are not asked of it."""
PLACES = (0.25, 0.5, 0.75)
FAMILIES = {"power": ("p", 0.01, 100.0), "step": ("f", 0.0, 1.0)}
"""Schedule -> its parameter and between which values the place falls from tuned to base."""


@dataclass(frozen=True)
class Worlds:
    """Six pairs of worlds: large, middle and small structure, made narrower by tuning or shifted."""

    sizes: tuple[float, ...] = (4.0, 1.0, 0.1)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """mean_b, var_b, mean_r, var_r, each (6,): three worlds that narrow to a quarter, three that shift by 1 σ."""
        v = torch.tensor(self.sizes * 2, dtype=torch.float64)
        narrows = torch.arange(len(v)) < len(self.sizes)
        shift = torch.where(narrows, 0.0, v.sqrt())
        return [torch.zeros_like(v), v, shift, torch.where(narrows, v / 4, v)]

    def places(self, law: Callable[[str], tuple[torch.Tensor, torch.Tensor]]) -> Array:
        """Where `law("guided")` lies between `law("base")` and `law("tuned")`, (6,)."""
        base, tuned, guided = (law(name) for name in ("base", "tuned", "guided"))
        half = len(self.sizes)
        variance = ((guided[1] / base[1]).log() / (tuned[1] / base[1]).log())[:half]
        mean = ((guided[0] - base[0]) / (tuned[0] - base[0]))[half:]
        return torch.cat([variance, mean]).numpy()


WORLDS = Worlds()


class Limit:
    """Infinitely many steps of a model family, under one clock.

    Args:
        clock: the clock.
        scheduler: on its finest grid, which says what u is at which noise level.
    """

    def __init__(self, clock: str, scheduler: Any):
        scheduler.set_timesteps(1000)
        table = scheduler.alphas_cumprod[scheduler.timesteps].double()
        self.levels = ((1 - table) / table).sqrt().log().numpy()[::-1]
        self.u = np.array(read_grid(scheduler, clock).progress(clock))[::-1]

    def weight(self, g: Callable[[float], float]) -> Callable[[float], float]:
        """g as a function of σ / α."""
        return lambda sigma: g(float(np.interp(math.log(max(sigma, 1e-12)), self.levels, self.u)))

    def places(self, g: Callable[[float], float]) -> Array:
        """Where each world ends, (6,), by the kernels."""
        grid = np.linspace(math.log(1e-4), self.levels[-1], 4000)
        sigma = np.exp(grid)
        weights = np.array([g(u) for u in np.interp(grid, self.levels, self.u)])
        _, v_b, _, v_r = (parameter.numpy()[:, None] for parameter in WORLDS.parameters)
        narrowing = sigma / (v_r + sigma**2) - sigma / (v_b + sigma**2)
        kernel = np.where(v_r < v_b, narrowing, sigma / (v_b + sigma**2) ** 1.5) * sigma
        return (kernel * weights).sum(1) / kernel.sum(1)

    def check(self, g: Callable[[float], float]) -> float:
        """The largest difference between the kernels and `continuous_law`."""
        top = math.exp(self.levels[-1])

        def law(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            fixed = {"base": lambda sigma: 0.0, "tuned": lambda sigma: 1.0}
            return continuous_law(*WORLDS.parameters, top, fixed.get(name, self.weight(g)), steps=400)

        return float(np.abs(WORLDS.places(law) - self.places(g)).max())


def calibrated(limit: Limit, family: str, place: float) -> float:
    """The parameter of a schedule family at which the worlds end, on average, at `place`; by bisection."""
    name, low, high = FAMILIES[family]
    for _ in range(40):
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        nearer = limit.places(schedule(family, **{name: middle})).mean() > place
        low, high = (middle, high) if nearer else (low, middle)
    return high


def sampled(sampler: str, steps: int, plan: Any) -> Array:
    """Where a real scheduler ends in each world, (6,)."""
    cls, config = SAMPLERS[sampler]
    scheduler = getattr(diffusers, cls)(**config)
    scheduler.set_timesteps(steps)
    law = consistency_law if sampler == "LCM" else gaussian_aig

    def guided(name: str) -> tuple[Any, Any]:
        return law(*WORLDS.parameters, scheduler, plan if name == "guided" else name)

    return WORLDS.places(guided)


def consistency_law(
    mean_b: torch.Tensor, var_b: torch.Tensor, mean_r: torch.Tensor, var_r: torch.Tensor, scheduler: Any, plan: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance under LCM with two perfectly distilled models, which map x_t to where the ODE would end.

    For N(m, v) that is m + sqrt(v / (α² v + σ²)) (x - α m). LCM's step noises this image to the next level anew.
    """
    plan = schedule(plan)
    weights = plan.weights(read_grid(scheduler, plan.clock))
    table = scheduler.alphas_cumprod[scheduler.timesteps].double()
    mean, variance = torch.zeros_like(mean_b), torch.ones_like(var_b)
    for i, (g, level) in enumerate(zip(weights, table, strict=True)):
        if i:
            mean, variance = level.sqrt() * mean, level * variance + 1 - level
        slopes = [(v / (level * v + 1 - level)).sqrt() for v in (var_b, var_r)]
        offsets = [m * (1 - s * level.sqrt()) for m, s in zip((mean_b, mean_r), slopes, strict=True)]
        slope, offset = ((1 - g) * b + g * r for b, r in (slopes, offsets))
        mean, variance = slope * mean + offset, slope**2 * variance
    return mean, variance


@dataclass(frozen=True)
class Measured:
    """Everything under one clock.

    Attributes:
        parameters: of the schedules, p of the powers and f of the switches.
        places: (sampler, N) -> (schedules, worlds).
        limits: (schedules, worlds), those of the limit.
        error: how far kernels and `continuous_law` differ.
    """

    parameters: list[float]
    places: Places
    limits: Array
    error: float


def measure(clock: str) -> Measured:
    """Choose the schedules of a clock and run them through every sampler."""
    limit = Limit(clock, diffusers.DDIMScheduler(**DDIM, timestep_spacing="trailing"))
    wanted = [(family, place) for family in FAMILIES for place in PLACES]
    parameters = [calibrated(limit, family, place) for family, place in wanted]
    plans = [
        schedule(family, clock=clock, **{FAMILIES[family][0]: value})
        for (family, _), value in zip(wanted, parameters, strict=True)
    ]
    members = [(name, n) for name in SAMPLERS for n in STEPS if name != "LCM" or n <= LCM_STEPS]
    places = {(name, n): np.array([sampled(name, n, plan) for plan in plans]) for name, n in members}
    error = max(limit.check(plan) for plan in plans[: len(PLACES)])
    return Measured(parameters, places, np.array([limit.places(plan) for plan in plans]), error)


def groups() -> dict[str, list[tuple[str, int]]]:
    """The columns of the table and what is averaged over in each."""
    diffusion = [name for name in SAMPLERS if not name.startswith("flow") and name != "LCM"]
    columns = {f"N = {n}": [(name, n) for name in diffusion] for n in STEPS}
    columns[f"LCM, N = 2 to {LCM_STEPS}"] = [("LCM", n) for n in STEPS if 2 <= n <= LCM_STEPS]
    columns["flow, N = 20"] = [(name, 20) for name in SAMPLERS if name.startswith("flow")]
    return columns


def distances(found: dict[str, Measured]) -> Iterator[str]:
    """Root mean square over samplers, schedules and worlds of the distance to the limit, for each clock and N."""
    columns = groups()
    yield from _head(columns)
    for clock, measured in found.items():
        errors = [np.array([measured.places[m] - measured.limits for m in members]) for members in columns.values()]
        yield _row(clock, [f"{np.sqrt(np.nanmean(error**2)):.3f}" for error in errors])


def ends(found: dict[str, Measured], members: dict[str, tuple[str, int]]) -> Iterator[str]:
    """Where runs end, averaged over worlds and schedules; the limit is 0.5. Nowhere, if all end in one point."""
    yield from _head(members)
    for clock, measured in found.items():
        means = [measured.places[member].mean() for member in members.values()]
        yield _row(clock, ["" if math.isnan(mean) else f"{mean:.2f}" for mean in means])


def equals(found: dict[str, Measured]) -> Iterator[str]:
    """The parameters that end at the same places under each clock."""
    yield from _head(f"{parameter} for {place}" for parameter, *_ in FAMILIES.values() for place in PLACES)
    for clock, measured in found.items():
        yield _row(clock, [f"{value:.2f}" for value in measured.parameters])


def _head(columns: Iterable[str]) -> list[str]:
    names = ["clock", *columns]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _row(clock: str, cells: list[str]) -> str:
    return f"| `{clock}` | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--details", action="store_true", help="also print where each sampler ends at each N")
    options = parser.parse_args()
    found = {clock: measure(clock) for clock in CLOCKS}
    print("Distance from the limit, root mean square over samplers, schedules and worlds\n")
    print(*distances(found), sep="\n")
    print("\nWhere each sampler ends on the way from base to tuned, 0.50 in the limit; N = 20, LCM 4\n")
    print(*ends(found, {name: (name, 4 if name == "LCM" else 20) for name in SAMPLERS}), sep="\n")
    print("\nThe power p and the switch f that end at 1/4, 1/2 and 3/4 of the way in the limit\n")
    print(*equals(found), sep="\n")
    for name in SAMPLERS if options.details else ():
        print(f"\n{name}\n")
        print(*ends(found, {f"N = {n}": (name, n) for n in STEPS if (name, n) in found["index"].places}), sep="\n")
    print(f"\nkernels against continuous_law: {max(measured.error for measured in found.values()):.1e}")


if __name__ == "__main__":
    main()
