"""Closed-form ground truth: worlds of Gaussian mixtures whose denoiser is exact, behind a real diffusers pipeline.

`worlds` has the mixtures, `denoiser` and `pipeline` put them behind diffusers' own interfaces, with a real LoRA between
base and tuned. `law` says what Annealed Importance Guidance must give there between Gaussians (`steps` and `probe` read
the scheduler, `precision` runs one in float64), `mixtures` and `continuous` between mixtures on a line, whose laws
`quadrature` holds; `bridges` has what it aims at, `tilt` what the best possible tuning would be.
"""

from sfumato.analytic.bridges import Bridge, bridge
from sfumato.analytic.continuous import continuous_aig
from sfumato.analytic.denoiser import AnalyticDenoiser
from sfumato.analytic.law import continuous_law, gaussian_aig, trajectory_kl
from sfumato.analytic.mixtures import mixture_aig
from sfumato.analytic.pipeline import AnalyticPipeline, analytic_pipeline, tune
from sfumato.analytic.precision import double_precision
from sfumato.analytic.quadrature import Law, Mode, law_of
from sfumato.analytic.steps import AffineStep, affine_steps
from sfumato.analytic.tilt import QuadraticReward, Tilted, gaussian_entropy, gaussian_kl, tilt
from sfumato.analytic.worlds import Mixture, gaussian, mixture

__all__ = [
    "AffineStep",
    "AnalyticDenoiser",
    "AnalyticPipeline",
    "Bridge",
    "Law",
    "Mixture",
    "Mode",
    "QuadraticReward",
    "Tilted",
    "affine_steps",
    "analytic_pipeline",
    "bridge",
    "continuous_aig",
    "continuous_law",
    "double_precision",
    "gaussian",
    "gaussian_aig",
    "gaussian_entropy",
    "gaussian_kl",
    "law_of",
    "mixture",
    "mixture_aig",
    "tilt",
    "trajectory_kl",
    "tune",
]
