"""Features of the bundled judge."""

from __future__ import annotations

from functools import cached_property

import torch

from sfumato.judge import Judge
from sfumato.metrics.features import Distance, fingerprint


class JudgeFeatures:
    """The judge's penultimate features, on the device where the judge is.

    Args:
        judge: a `sfumato.judge.Judge`; the bundled one is `sfumato.emoji64.load_judge()`.
    """

    distance: Distance = "cosine"

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("Judge judge features", self.judge.state_dict())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of images (B,3,H,W) in [0, 1]."""
        return self.judge(images.to(next(self.judge.parameters()))).features
