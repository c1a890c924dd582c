"""Physical clocks: the real pipeline and hook against the closed form, with u written out here."""

import numpy as np
import pytest

from sfumato.analytic import double_precision, gaussian_aig
from sfumato.pipelines.guidance import annealed_guidance
from tests.analytic.bed import WORLDS, affine_law, tuned_pipeline
from tests.analytic.test_law import STEPS, close

ALPHAS = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
SIGMAS = np.sqrt((1 - ALPHAS) / ALPHAS)
"""Noise to signal at each timestep of training."""
DIFFUSION = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "timestep_spacing": "leading"}


def of_diffusion(clock, t):
    sigma = np.interp(t, np.arange(1000), SIGMAS)
    ends = SIGMAS[-1] / SIGMAS[0]
    return {
        "timestep": 1 - t / 999,
        "sigma": 1 - sigma / SIGMAS[-1],
        "logsnr": np.log(SIGMAS[-1] / sigma) / np.log(ends),
    }[clock]


def of_flow(clock, t):
    s = t / 1000
    return 1 - s if clock != "logsnr" else min(1.0, max(0.0, (2 * np.log((1 - s) / s) + 5.4) / 12.5) if s < 1 else 0.0)


@pytest.mark.parametrize("clock", ["timestep", "sigma", "logsnr"])
@pytest.mark.parametrize(
    ("name", "config", "progress"),
    [
        ("DDIMScheduler", DIFFUSION, of_diffusion),
        ("EulerDiscreteScheduler", DIFFUSION, of_diffusion),
        ("HeunDiscreteScheduler", DIFFUSION, of_diffusion),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, of_flow),
    ],
)
def test_the_pipeline_follows_a_physical_clock_exactly(name, config, progress, clock):
    pipe = tuned_pipeline(name, **config)
    with double_precision(pipe.scheduler):
        with annealed_guidance(pipe, "power", p=2, clock=clock):
            law = affine_law(pipe, STEPS)
        assert close(law, gaussian_aig(*WORLDS, pipe.scheduler, "power", p=2, clock=clock))
        levels = list(dict.fromkeys(pipe.scheduler.timesteps.tolist()))
        us = [*(progress(clock, t) for t in levels[:-1]), 1.0]
        by_hand = gaussian_aig(*WORLDS, pipe.scheduler, lambda u: us[round(u * (len(us) - 1))] ** 2)
        by_number = gaussian_aig(*WORLDS, pipe.scheduler, "power", p=2)
    assert close(law, by_hand, 1e-5) and not close(law, by_number, 1e-3)
