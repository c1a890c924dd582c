"""What the untuned model drew, so that all who ask for the same pictures share them: best-of-2 and best-of-4 their
first candidates, the cells of a suite the whole base model.

Only pictures of the same pipeline, call, prompt and micro-batch, on the same kind of machine, are the same to the bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato.config import BestOfPoint
from sfumato.config.suite import FILE
from sfumato.frontier.points import OperatingPoint
from sfumato.pipelines.rollout import rollout
from sfumato.runs import Run
from sfumato.weights import load_weights, save_weights

KIND = "draw"


@dataclass(frozen=True)
class Drawn:
    """Images (B,3,H,W), float32 in 8-bit steps of [0, 1], and the denoiser forwards that each took."""

    images: torch.Tensor
    forwards: float


def draw(pipe: Any, prompt: str, seeds: Sequence[int], call: Mapping[str, Any]) -> Drawn:
    """Sample a micro-batch; scores and features are to be those of the 8-bit pictures that are kept."""
    sampled = rollout(pipe, prompt=prompt, seeds=list(seeds), **call)
    return Drawn((sampled.images.float() * 255).round() / 255, float(sampled.forwards))


class Draws:
    """The untuned model's pictures, each sampled once.

    Args:
        run: they are kept in its evaluation's folder if a point is best-of-n, or in the suite whose cell it is.
        points: its operating points.
        made: what else they depend on: pipeline, scheduler, machine, versions.
    """

    def __init__(self, run: Run, points: Sequence[OperatingPoint], made: Mapping[str, Any]):
        suite = run.path.parent
        in_suite = (suite / FILE).exists()
        self.folder = (suite if in_suite else run.evaluation) / "draws"
        self.kept = in_suite or any(isinstance(point.config, BestOfPoint) for point in points)
        self.made = made

    def draw(self, pipe: Any, prompt: str, seeds: Sequence[int], call: Mapping[str, Any]) -> Drawn:
        """As `sfumato.frontier.draws.draw`, by a `pipe` without an adapter, or from what is kept."""
        if not self.kept:
            return draw(pipe, prompt, seeds, call)
        path = self._path(prompt, seeds, call)
        if (kept := _read(path)) is None:
            kept = draw(pipe, prompt, seeds, call)
            pixels = (kept.images * 255).round().to(torch.uint8).cpu()
            save_weights(path, {"images": pixels}, KIND, [], forwards=repr(kept.forwards))
        return Drawn(kept.images.to(pipe.device), kept.forwards)

    def _path(self, prompt: str, seeds: Sequence[int], call: Mapping[str, Any]) -> Path:
        asked = json.dumps([self.made, prompt, list(seeds), call], sort_keys=True)
        return self.folder / f"{hashlib.sha256(asked.encode()).hexdigest()}.safetensors"


def _read(path: Path) -> Drawn | None:
    """What is kept, on the CPU; None if nothing is, or it is damaged: then it is drawn once more."""
    try:
        tensors, about = load_weights(path, KIND)
    except (OSError, ValueError):
        return None
    return Drawn(tensors["images"].float() / 255, float(about["forwards"]))
