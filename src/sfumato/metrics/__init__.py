"""Measures of quality and diversity: pure functions from features (N,D) to a number, and extractors that give features.

`vendi_score`, `mean_pairwise_distance`, `truncated_entropy` and `entropy` look at one set; `precision`, `recall`,
`density`, `coverage` (all four: `prdc`), `fid`, `kid`, `cmmd`, `spectral_distance` and `mode_coverage` compare a set
with a reference; `nearest_neighbours` finds duplicates. `extract` runs an extractor, which
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
from sfumato.metrics.gaussian import fid, spectral_distance, truncated_entropy
from sfumato.metrics.kernels import KIDEstimate, cmmd, kid, kid_subsets
from sfumato.metrics.manifold import PRDC, coverage, density, prdc, precision, recall
from sfumato.metrics.modes import ModeCoverage, mode_coverage
from sfumato.metrics.neighbours import Neighbours, nearest_neighbours
from sfumato.metrics.pairwise import mean_pairwise_distance
from sfumato.metrics.vendi import vendi_score

__all__ = [
    "PRDC",
    "DreamSimFeatures",
    "Extractor",
    "FeatureCache",
    "InceptionFeatures",
    "JudgeFeatures",
    "KIDEstimate",
    "LPIPSFeatures",
    "ModeCoverage",
    "Neighbours",
    "TimmFeatures",
    "VisionFeatures",
    "build_extractor",
    "cmmd",
    "coverage",
    "density",
    "entropy",
    "extract",
    "fid",
    "kid",
    "kid_subsets",
    "mean_pairwise_distance",
    "mode_coverage",
    "nearest_neighbours",
    "prdc",
    "precision",
    "recall",
    "spectral_distance",
    "truncated_entropy",
    "vendi_score",
]
