"""Three 1-D Gaussians at once, tuned to three others, and how a pipeline is read off as an affine map."""

import diffusers
import torch

from sfumato.analytic import analytic_pipeline, gaussian, tune
from sfumato.pipelines.rollout import rollout

MEAN_B, VAR_B = torch.tensor([0.0, 0.5, -1.0]).double(), torch.tensor([1.0, 0.7, 2.0]).double()
MEAN_R, VAR_R = torch.tensor([0.3, 1.5, -1.0]).double(), torch.tensor([0.25, 0.1, 2.5]).double()
WORLDS = MEAN_B, VAR_B, MEAN_R, VAR_R


def scheduler(name: str, **config):
    """A diffusers scheduler that does not clip."""
    unclipped = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") else {}
    return getattr(diffusers, name)(**unclipped, **config)


def tuned_pipeline(name: str, **config):
    """The base worlds behind a pipeline, with the LoRA that makes them the tuned ones."""
    pipe = analytic_pipeline(gaussian(MEAN_B, VAR_B), scheduler(name, **config))
    tune(pipe, gaussian(MEAN_R, VAR_R))
    return pipe


def run(pipe, points, steps: int, **arguments):
    """The real pipeline from noise `points` (B,), all dimensions alike, as (B, 3)."""
    latents = torch.tensor(points, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    arguments = {"prompt": "", "seeds": [0] * len(points), "num_inference_steps": steps, **arguments}
    return rollout(pipe, latents=latents, **arguments).images.flatten(1)


def affine_law(pipe, steps: int):
    """Mean and variance of what the real pipeline makes of standard normal noise, from x = 0 and x = 1."""
    zero, one = run(pipe, [0.0, 1.0], steps)
    return zero, (one - zero) ** 2
