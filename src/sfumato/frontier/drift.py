"""How far a point has moved where it was not meant to: on prompts that have nothing to do with what was tuned on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.frontier.statistics import REPETITIONS, Array, bootstrap


def drift(
    features: ArrayLike,
    base_features: ArrayLike,
    scores: Mapping[str, ArrayLike],
    base_scores: Mapping[str, ArrayLike],
    prompts: Sequence[Hashable],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Differences to the base's images of the same prompts and seeds, as means over prompts with 95 % intervals.

    Args:
        features: (N, D) of the point's images.
        base_features: (N, D) of the base's, row by row of the same prompt and seed.
        scores: name -> one value per image (N,).
        base_scores: the same names for the base.
        prompts: the prompt of each row (N,), at least 2 different ones.
        repetitions: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        `distance_to_base` (1 - cosine, 0 to 2; 0 for unchanged images) and, for each score, point - base; each with
        `mean`, `low`, `high`.

    Raises:
        ValueError: rows that do not match, a row of zeros, NaN or infinity, fewer than 2 prompts, or other names.
    """
    if set(scores) != set(base_scores):
        raise ValueError(f"drift needs the same scores of both: {sorted(scores)} and {sorted(base_scores)} differ")
    n = len(prompts)
    own, base = _directions(features, "features", n), _directions(base_features, "base features", n)
    if own.shape != base.shape:
        raise ValueError(f"features have {own.shape[1]} dimensions, the base's {base.shape[1]}: use one extractor")
    values = {"distance_to_base": ((own - base) ** 2).sum(axis=1) / 2}  # = 1 - cosine, exactly 0 for equal images
    for name in scores:
        values[name] = _scores(scores[name], name, n) - _scores(base_scores[name], f"the base's {name}", n)
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    groups = np.array([number[prompt] for prompt in prompts])
    counts = np.bincount(groups)
    options: dict[str, Any] = {"repetitions": repetitions, "seed": seed}
    return {
        name: asdict(bootstrap(np.bincount(groups, weights=each) / counts, **options)) for name, each in values.items()
    }


def _directions(features: ArrayLike, name: str, n: int) -> Array:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) != n:
        raise ValueError(f"{name} must have shape ({n}, D), a row for every prompt given, not {array.shape}")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bad.any():
        raise ValueError(f"row {int(np.argmax(bad))} of the {name} is NaN, infinite or all zeros")
    return array / norms


def _scores(scores: ArrayLike, name: str, n: int) -> Array:
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), a value for every prompt given, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} of row {int(np.argmin(np.isfinite(array)))} is NaN or infinite")
    return array
