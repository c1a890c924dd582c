"""DDPO: policy gradients on the stochastic steps of the pipeline's own scheduler, for rewards without gradient."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.training.policy import PolicyGradient


@dataclass(frozen=True)
class DDPO(PolicyGradient):
    """DDPO-IS (Black et al. 2023, arXiv 2305.13301), with any scheduler that draws noise: DDPM, DDIM with eta = 1,
    Euler ancestral and others.

    The paper's running statistics of each prompt over several updates are taken within the update instead: rewards of
    earlier policies have another mean, and a memory of them would be one more thing to resume. So an update needs
    several images of a prompt, or `baseline` and `normalize` "update".
    """
