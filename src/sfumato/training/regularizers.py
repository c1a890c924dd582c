"""Terms that hold a tuned model near its base."""

from __future__ import annotations

import torch

from sfumato.pipelines.adapters import base_weights
from sfumato.pipelines.rollout import Rollout, replay
from sfumato.training.objective import Batch


def prediction_distance(batch: Batch, rollout: Rollout, last_steps: int) -> torch.Tensor:
    """The KL penalty of DRaFT+ (NeMo-Aligner's form): mean over the last K steps and all dims of (eps_r - eps_b)².

    eps_r is the prediction that the scheduler saw, after classifier-free guidance, with gradient; eps_b the base
    model's at the same x_t, without. There is no factor 1 / (2 σ²), so this is not an exact KL divergence.

    Args:
        rollout: recorded, with gradient in its last `last_steps` steps.

    Returns:
        0-d, >= 0.
    """
    with base_weights(batch.pipe, batch.adapter):
        base = [replay(batch.pipe, rollout, -k).prediction for k in range(1, last_steps + 1)]
    tuned = [rollout.steps[-k].prediction for k in range(1, last_steps + 1)]
    return torch.stack([(r - b).square().mean() for r, b in zip(tuned, base, strict=True)]).mean()
