"""An extractor from one line of text, as a recipe or a command gives it."""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato.emoji64 import load_judge
from sfumato.metrics.extractors.dreamsim import DreamSimFeatures
from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.extractors.judge import JudgeFeatures
from sfumato.metrics.extractors.lpips import LPIPSFeatures
from sfumato.metrics.extractors.timm import TimmFeatures
from sfumato.metrics.extractors.vision import VisionFeatures
from sfumato.metrics.features import Distance, Extractor

WITH_WEIGHTS: dict[str, type[InceptionFeatures | LPIPSFeatures | DreamSimFeatures | TimmFeatures]] = {
    "inception": InceptionFeatures,
    "lpips": LPIPSFeatures,
    "dreamsim": DreamSimFeatures,
    "timm": TimmFeatures,
}
KINDS = (
    "judge (bundled), a transformers vision model by folder or hub id (facebook/dinov2-base), "
    "timm:NAME (pip install 'sfumato[features]'), inception:FILE, lpips:FILE or dreamsim:FILE "
    "(files of `sfumato convert-weights`)"
)


def build_extractor(spec: str, device: torch.device | str = "cpu") -> Extractor:
    """The extractor that a text names.

    Args:
        spec: `judge`; a folder or hub id of a transformers vision model; or `KIND:WEIGHTS` with one of the kinds timm,
            inception, lpips, dreamsim.
        device: where to run.

    Raises:
        ImportError: an optional package is missing; the message says how to install it.
        OSError: there are no such weights.
        ValueError: the text names no kind of extractor, or the weights are not of its kind.
    """
    kind, colon, weights = spec.partition(":")
    if spec == "judge":
        return JudgeFeatures(load_judge().requires_grad_(False).to(device))
    if kind in WITH_WEIGHTS and weights:
        return WITH_WEIGHTS[kind](weights, device)
    if not spec or not (Path(spec).is_dir() or ("/" in spec and not colon)):
        raise ValueError(f"there are no features {spec!r}: take {KINDS}")
    return VisionFeatures(spec, device)


def distance_of(spec: str) -> Distance:
    """What tells two images apart in the features that a text names, without loading them."""
    return WITH_WEIGHTS.get(spec.partition(":")[0], VisionFeatures).distance
