"""Quantities of the images of every prompt: functions of arrays whose first two axes are prompts and images.

Vendi score, distance and recall are those of `sfumato.metrics`, in numpy, so that no model library is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Names = NDArray[np.str_]


def vendi(features: Array) -> Array:
    """Vendi score (m,) of the unit features (m, n, D) of each prompt (arXiv 2210.02410)."""
    values = np.linalg.eigvalsh(features @ features.swapaxes(1, 2) / features.shape[1]).clip(0)
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return np.exp(-(values * logs).sum(1))


def distance(features: Array) -> Array:
    """Mean cosine distance (m,) between two images of a prompt, from unit features (m, n, D)."""
    n = features.shape[1]
    return 1 - ((features.sum(1) ** 2).sum(1) - n) / (n * (n - 1))


def separation(features: Array) -> Array:
    """How far each prompt's mean picture (m,) lies from the mean over all prompts, from features (m, n, D).

    The Euclidean distance, its square less what the spread within prompts adds to it: 0 if all prompts get the same
    pictures, however much these differ among themselves.
    """
    m, n, _ = features.shape
    means, noise = features.mean(1), features.var(1, ddof=1).sum(1) / n
    squared = ((means - means.mean(0)) ** 2).sum(1)
    return np.sqrt((squared - noise * (1 - 2 / m) - noise.mean() / m).clip(0))


def recall(real: Array, fake: Array, k: int) -> Array:
    """Share (m,) of the real images (m, n, D) inside the ball of a fake one of the same prompt (arXiv 1904.06991).

    A ball is closed and reaches to the k-th nearest other fake.
    """
    found = []
    for a, b in zip(real, fake, strict=True):
        own = np.linalg.norm(b[:, None] - b, axis=2)
        np.fill_diagonal(own, np.inf)
        radii = np.sort(own, axis=1)[:, k - 1]
        found.append((np.linalg.norm(a[:, None] - b, axis=2) <= radii).any(1).mean())
    return np.array(found)


def nearest(features: Array) -> tuple[Array, NDArray[np.intp]]:
    """Cosine distance of each image to its nearest other one, of unit features (m, n, D).

    Returns:
        Distances (2, m, n), to the nearest of the same prompt and to the nearest of another, and which these are, as
        positions in the flattened (m, n).
    """
    m, n, _ = features.shape
    flat = features.reshape(m * n, -1)
    distances, places = np.empty((2, m, n)), np.empty((2, m, n), dtype=np.intp)
    for prompt in range(m):
        rows = 1 - features[prompt] @ flat.T
        own = slice(prompt * n, (prompt + 1) * n)
        within = rows[:, own].copy()
        np.fill_diagonal(within, np.inf)
        rows[:, own] = np.inf
        for kind, table, start in ((0, within, prompt * n), (1, rows, 0)):
            best = table.argmin(1)
            distances[kind, prompt], places[kind, prompt] = table[np.arange(n), best], best + start
    return distances.clip(0), places


def effective_kinds(labels: Names) -> Array:
    """Effective number of labels (m,), the exponential of their entropy, of each prompt's images (m, n)."""
    found = []
    for row in labels:
        shares = np.unique(row, return_counts=True)[1] / len(row)
        found.append(np.exp(-(shares * np.log(shares)).sum()))
    return np.array(found)


def commonest(labels: Names) -> Names:
    """The most frequent label (m,) of each prompt's images (m, n)."""
    found = []
    for row in labels:
        values, counts = np.unique(row, return_counts=True)
        found.append(values[counts.argmax()])
    return np.array(found)


def follows_prompt(labels: Names) -> bool:
    """Whether a label (m, n) tells what is shown rather than how: the prompt explains half of its entropy or more."""
    overall = np.log(effective_kinds(labels.reshape(1, -1)))[0]
    return bool(overall > 0 and 1 - np.log(effective_kinds(labels)).mean() / overall >= 0.5)


def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's rank correlation (m,) of a and b (m, n) within each prompt; 0 where one of them is constant."""
    x, y = (np.array([_ranks(row) for row in values]) for values in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), scale, out=np.zeros(len(x)), where=scale > 0)


def _ranks(values: Array) -> Array:
    """Ranks (n,), equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + last - 1) / 2)[inverse]
