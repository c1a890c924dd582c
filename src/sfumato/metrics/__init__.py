"""Measures of quality and diversity: pure functions from features (N,D) to a number, and extractors that give features.

`vendi_score`, `mean_pairwise_distance` and `entropy` look at one set; `precision`, `recall`, `density`, `coverage`,
`frechet_distance` and `spectral_distance` compare a set with a reference. `extract` runs an extractor, which
`build_extractor` makes, over images, with a `FeatureCache` on disk. What each number means is in docs/metrics.md, which
extractor to take in docs/features.md.
"""

from sfumato.metrics.cache import FeatureCache
from sfumato.metrics.entropy import entropy
from sfumato.metrics.extractors import (
    DreamSimFeatures,
    InceptionFeatures,
    JudgeFeatures,
    LPIPSFeatures,
    TimmFeatures,
    VisionFeatures,
    build_extractor,
)
from sfumato.metrics.features import Extractor, extract
from sfumato.metrics.gaussian import frechet_distance, spectral_distance
from sfumato.metrics.manifold import coverage, density, precision, recall
from sfumato.metrics.pairwise import mean_pairwise_distance
from sfumato.metrics.vendi import vendi_score

__all__ = [
    "DreamSimFeatures",
    "Extractor",
    "FeatureCache",
    "InceptionFeatures",
    "JudgeFeatures",
    "LPIPSFeatures",
    "TimmFeatures",
    "VisionFeatures",
    "build_extractor",
    "coverage",
    "density",
    "entropy",
    "extract",
    "frechet_distance",
    "mean_pairwise_distance",
    "precision",
    "recall",
    "spectral_distance",
    "vendi_score",
]
