"""Which points nothing beats, and how much of the plane they command."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(points: ArrayLike) -> list[int]:
    """Indices of the non-dominated points, both axes maximised.

    A point is dominated if another is at least as good on both axes and better on one. Equal points do not dominate
    each other, so all copies of a non-dominated point are kept.

    Args:
        points: (N, 2); may be empty.

    Returns:
        Indices in rising order of the first axis (so in falling order of the second), copies in order of appearance.

    Raises:
        ValueError: another shape, or NaN or infinity.
    """
    array = _as_points(points)
    kept: list[int] = []
    best = -np.inf
    for i in np.lexsort((-array[:, 1], -array[:, 0])).tolist():  # best first axis first, and of equals the best second
        copy = kept and (array[i] == array[kept[-1]]).all()
        if copy or array[i, 1] > best:
            kept.append(i)
            best = array[i, 1]
    return sorted(kept, key=lambda i: (array[i, 0], i))


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """Area that the points dominate above a reference point, both axes maximised.

    Zitzler & Thiele 1999, in two dimensions. Points that do not exceed the reference on both axes add nothing.

    Args:
        points: (N, 2); may be empty.
        reference: (2,).

    Raises:
        ValueError: another shape, or NaN or infinity.
    """
    return float(hypervolumes(_as_points(points), reference))


def hypervolumes(points: NDArray[np.float64], reference: Sequence[float]) -> NDArray[np.float64]:
    """Hypervolumes (...) of many sets of points (..., N, 2) at once, not checked."""
    gains = np.maximum(points - _as_points([reference])[0], 0)
    order = np.argsort(-gains[..., 0], axis=-1)
    width, height = np.moveaxis(np.take_along_axis(gains, order[..., None], axis=-2), -1, 0)
    steps = -np.diff(width, axis=-1, append=0)  # from each point to the next one on its left, the last to the reference
    return (steps * np.maximum.accumulate(height, axis=-1)).sum(axis=-1)


def _as_points(points: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"points must be finite; row {int(np.argmin(np.isfinite(array).all(axis=1)))} is not")
    return array
