"""Closed-form ground truth: worlds of Gaussian mixtures whose denoiser is exact, behind a real diffusers pipeline.

`worlds` has the mixtures, `denoiser` and `pipeline` put them behind diffusers' own interfaces, with a real LoRA between
base and tuned. `law` says what Annealed Importance Guidance must give there (`steps` and `probe` read the scheduler,
`precision` runs one in float64), `tilt` what the best possible tuning would be.
"""

from sfumato.analytic.denoiser import AnalyticDenoiser
from sfumato.analytic.law import continuous_law, gaussian_aig, trajectory_kl
from sfumato.analytic.pipeline import AnalyticPipeline, analytic_pipeline, tune
from sfumato.analytic.precision import double_precision
from sfumato.analytic.steps import AffineStep, affine_steps
from sfumato.analytic.tilt import QuadraticReward, Tilted, gaussian_entropy, gaussian_kl, tilt
from sfumato.analytic.worlds import Mixture, gaussian, mixture

__all__ = [
    "AffineStep",
    "AnalyticDenoiser",
    "AnalyticPipeline",
    "Mixture",
    "QuadraticReward",
    "Tilted",
    "affine_steps",
    "analytic_pipeline",
    "continuous_law",
    "double_precision",
    "gaussian",
    "gaussian_aig",
    "gaussian_entropy",
    "gaussian_kl",
    "mixture",
    "tilt",
    "trajectory_kl",
    "tune",
]
