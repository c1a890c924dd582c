"""What a handful of images per prompt does to a measure: seen by rarefaction, corrected where that was seen to help."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.frontier.statistics import Array

Measure = Callable[..., float]
Samples = Sequence[tuple[Any, ...]]
"""For each prompt what a measure is called with: arrays or tensors of equally many rows, one row an image."""
DRAWS = 5
STILL_MOVING = 0.05
"""Share of its value by which a measure may change between half of the images and all, before it is warned of."""


def rarefaction(measure: Measure, samples: Samples, sizes: Sequence[int], draws: int = DRAWS, seed: int = 0) -> Array:
    """What the measure would have been with fewer images: its mean over random subsets drawn without replacement.

    A subset of n of N independent images is a set of n independent images, so this is unbiased for every n up to N.

    Args:
        measure: called with one prompt's arrays, cut to n rows each, every array by a subset of its own.
        samples: for each of m prompts the arrays, such as (features,) or (reference features, features).
        sizes: the numbers of images n.
        draws: subsets for each prompt and n; one where all images are used.
        seed: of the subsets.

    Returns:
        (m, len(sizes)).

    Raises:
        ValueError: a size below 1 or above the number of images.
    """
    random = np.random.default_rng(seed)
    return np.array([[_expected(measure, arrays, n, draws, random) for n in sizes] for arrays in samples])


def _expected(measure: Measure, arrays: tuple[Any, ...], n: int, draws: int, random: np.random.Generator) -> float:
    least = min(map(len, arrays))
    if not 1 <= n <= least:
        raise ValueError(f"cannot draw {n} images out of {least} without replacement")
    whole = all(len(array) == n for array in arrays)
    return float(np.mean([measure(*(subset(a, n, random) for a in arrays)) for _ in range(1 if whole else draws)]))


def subset(array: Any, n: int, random: np.random.Generator) -> Any:
    """n rows of an array or tensor, drawn without replacement; in their order if these are all."""
    return array if len(array) == n else array[random.permutation(len(array))[:n]]


def vendi_corrected(features: ArrayLike) -> float:
    """The Vendi score (q = 1) that many more images would have, by a jackknife of its logarithm.

    exp(N h - (N - 1) mean of h without each image), h the entropy of the eigenvalues of K / N: the correction of Zahl
    1977 ("Jackknifing an index of diversity"), which takes the 1 / N term out of the bias of an entropy, applied to
    Friedman & Dieng 2023 (arXiv 2210.02410), definition 3.1. It can exceed N where nearly all images differ, and costs
    N decompositions: it is for the images of one prompt. From 12 images on it was nearer to the truth on average than
    the plain score in every world that we tried, and in single draws never further off; where the truth is far above N
    it still is too low. docs/statistics.md has the measurements.

    Args:
        features: (N, D), an array or a tensor on the CPU, N at least 2.

    Raises:
        ValueError: another shape, fewer than 2 rows, NaN or infinity, or a row of zeros.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"features must have shape (N, D) with at least 2 rows, not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"features hold NaN or infinity, first in row {int(np.argmin(np.isfinite(rows).all(axis=1)))}")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"features row {int(np.argmin(norms))} is all zeros and has no direction")
    n = len(rows)
    gram = (rows / norms) @ (rows / norms).T
    kept = np.array([np.delete(np.arange(n), i) for i in range(n)])
    without = _spectral_entropy(gram[kept[:, :, None], kept[:, None, :]])
    return math.exp(n * _spectral_entropy(gram).item() - (n - 1) * without.mean().item())


def _spectral_entropy(gram: Array) -> Array:
    """Entropies (...) of the eigenvalues of Gram matrices (..., N, N) of unit vectors over N."""
    share = np.maximum(np.linalg.eigvalsh(gram) / gram.shape[-1], 0)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis=-1)


def entropy_corrected(labels: Iterable[Hashable]) -> float:
    """The entropy in nats that many more labels would have, by the jackknife of Zahl 1977.

    Args:
        labels: one per image, at least 2.

    Raises:
        ValueError: fewer than 2 labels.
    """
    counts = np.array(list(Counter(labels).values()), dtype=np.float64)
    n = int(counts.sum())
    if n < 2:
        raise ValueError(f"an entropy is corrected from at least 2 labels, not {n}")
    logs = _entropy_sum(counts)
    lessened = logs.sum() - logs + _entropy_sum(counts - 1)  # of sum c log c, without one image of each kind
    without = math.log(n - 1) - (counts / n * lessened).sum() / (n - 1)
    return float(n * (math.log(n) - logs.sum() / n) - (n - 1) * without)


def _entropy_sum(counts: Array) -> Array:
    return counts * np.log(np.where(counts > 0, counts, 1))


def small_n(
    measures: Mapping[str, Measure],
    samples: Mapping[str, Mapping[str, Samples]],
    *,
    base: str = "base",
    least: int = 4,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """`small_n` of frontier.json: how the measures move with the number of images, and where they would end.

    Args:
        measures: metric -> function of one prompt's arrays.
        samples: point -> metric -> the arrays of each prompt; equally many images throughout, at least `least`.
        base: the point whose curves are warned of.
        least: the fewest images for which every measure is defined; k + 1 for measures with k neighbours.
        draws: subsets for each prompt and number of images.
        seed: of the subsets.

    Returns:
        `images` (a quarter, half, three quarters and all), `curves` (point -> metric -> means over the prompts),
        `extrapolated` (point -> metric -> mean over prompts of the corrected value; Vendi scores and entropies only),
        `warnings` (sentences).

    Raises:
        ValueError: unequal or too few images, or a metric without a measure.
    """
    n = _images(measures, samples, least)
    sizes = sorted({max(least, n * quarter // 4) for quarter in (1, 2, 3, 4)})
    curves = {
        point: {
            name: rarefaction(measures[name], arrays, sizes, draws, seed).mean(axis=0).tolist()
            for name, arrays in row.items()
        }
        for point, row in samples.items()
    }
    extrapolated = {
        point: {
            name: float(np.mean([correct(*arrays) for arrays in prompts]))
            for name, prompts in row.items()
            if (correct := _correction(name))
        }
        for point, row in samples.items()
    }
    warnings = [text for name, curve in curves.get(base, {}).items() if (text := _warning(name, sizes, curve))]
    return {"images": sizes, "curves": curves, "extrapolated": extrapolated, "warnings": warnings}


def _correction(metric: str) -> Measure | None:
    if metric.endswith("_entropy"):
        return entropy_corrected
    return vendi_corrected if metric == "vendi" or metric.startswith("vendi_") else None


def _warning(metric: str, sizes: list[int], curve: list[float]) -> str | None:
    half = max(0, len(sizes) - 3)
    change = curve[-1] - curve[half]
    if abs(change) <= STILL_MOVING * abs(curve[-1]):
        return None
    name = "Vendi score" if metric == "vendi" else metric.replace("_", " ")
    seen = f"({curve[half]:.3g} at {sizes[half]}, {curve[-1]:.3g} at {sizes[-1]})"
    start = f"With {sizes[-1]} images per prompt the base's {name} is still"
    if _correction(metric) and change > 0:
        return f"{start} rising {seen}: what tuning lost of it is understated."
    return f"{start} {'rising' if change > 0 else 'falling'} {seen}: compare it at equal numbers of images only."


def _images(measures: Mapping[str, Measure], samples: Mapping[str, Mapping[str, Samples]], least: int) -> int:
    """The number of images per prompt, checked."""
    numbers: dict[int, str] = {}
    for point, row in samples.items():
        for name, prompts in row.items():
            if name not in measures:
                raise ValueError(f'there is no measure for metric "{name}", only for {", ".join(measures)}')
            for arrays in prompts:
                numbers |= {len(array): f'"{name}" of "{point}"' for array in arrays}
    if len(numbers) != 1:
        found = ", ".join(f"{n} for {where}" for n, where in sorted(numbers.items())) or "none"
        raise ValueError(f"every point and prompt needs equally many images: there are {found}")
    (n,) = numbers
    if n < least:
        raise ValueError(f"{n} images per prompt are too few to see what fewer would do: at least {least} are needed")
    return n
