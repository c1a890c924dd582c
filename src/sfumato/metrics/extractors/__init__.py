"""Extractors of features, one kind a file, each with its own preprocessing; `build_extractor` makes one from a text.

Which to take, and where their weights come from, is in docs/features.md.
"""

from sfumato.metrics.extractors.build import build_extractor
from sfumato.metrics.extractors.dreamsim import DreamSimFeatures
from sfumato.metrics.extractors.inception import InceptionFeatures
from sfumato.metrics.extractors.judge import JudgeFeatures
from sfumato.metrics.extractors.lpips import LPIPSFeatures
from sfumato.metrics.extractors.timm import TimmFeatures
from sfumato.metrics.extractors.vision import VisionFeatures

__all__ = [
    "DreamSimFeatures",
    "InceptionFeatures",
    "JudgeFeatures",
    "LPIPSFeatures",
    "TimmFeatures",
    "VisionFeatures",
    "build_extractor",
]
