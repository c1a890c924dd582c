"""Choices among options by their strengths, fitted by maximum likelihood: one model for every kind of question.

A rater chooses an alternative a of a set with probability proportional to exp(x_a · s), where s are the strengths of
the operating points. With a set of two that is Bradley and Terry's model (1952). A tie is a third alternative with
x = (1/2, 1/2) and a parameter of its own, log ν: Davidson (1970), equation 2.5. The best of k is a choice from k, and a
ranking a choice of the best, then of the best of the rest, and so on: Plackett (1975), Luce (1959). The likelihood is
concave in s and log ν, so Newton's method with step halving finds its maximum; strengths are fixed by their sum, 0.

The maximum is finite if and only if one can go from every point to every other along wins and ties (Ford 1957; Hunter
2004, assumption 1) and there is a round trip with more wins than ties: else strengths and log ν can grow together for
ever. Where it is not, and only there, one more vote on every set that met is added, split evenly over its alternatives:
for two points half a win each, as Haldane (1956) and Anscombe (1956) correct a log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sfumato.study.analysis.votes import Clusters, Floats, Ints, Row

TIE = -1
STEPS, CLOSE = 100, 1e-10
AT_ONCE = 4_000_000
"""Numbers in the largest array of a batch of fits."""


@dataclass(frozen=True)
class Choices:
    """All choices that the votes of a question hold, on D different sets with at most A alternatives.

    Attributes:
        points: names of the K operating points.
        design: (D, A, P) the alternatives' x in P free parameters: K - 1 of the strengths, then log ν if there are
            ties.
        there: (D, A) whether a set has the alternative.
        wins: (D, A, K, K) where the alternative says that a point (row) is better than another (column), or as good.
        basis: (K, K - 1) orthonormal, from free parameters to strengths, which add up to 0.
        chosen: (N,) what was chosen, as set · A + alternative.
        clusters: of the N choices.
    """

    points: tuple[str, ...]
    design: Floats
    there: NDArray[np.bool_]
    wins: NDArray[np.bool_]
    basis: Floats
    chosen: Ints
    clusters: Clusters

    @classmethod
    def of(cls, rows: Sequence[Row], points: Sequence[str]) -> Choices:
        """From votes that are no ratings; raises ValueError if they compare some points with none of the others."""
        number = {name: place for place, name in enumerate(points)}
        found, origin = [], []
        for place, row in enumerate(rows):
            for choice in _stages(row, [number[name] for name in row["points"]]):
                found.append(choice)
                origin.append(place)
        ties = any(winner == TIE for _, winner in found)
        sets = sorted({options for options, _ in found})
        _check_connected(sets, points)
        width = max(map(len, sets)) + ties
        place_of = {options: place for place, options in enumerate(sets)}
        chosen = [
            place_of[options] * width + (width - 1 if winner == TIE else options.index(winner))
            for options, winner in found
        ]
        clusters = Clusters.of(rows)[np.array(origin)]
        return cls(tuple(points), *_layout(sets, len(points), width, ties), np.array(chosen), clusters)

    @property
    def has_ties(self) -> bool:
        return self.design.shape[2] == len(self.points)

    def counts(self, cluster: Ints) -> Floats:
        """(clusters, D · A) how often each alternative was chosen within each cluster."""
        table = np.zeros((int(cluster.max()) + 1, self.there.size))
        np.add.at(table, (cluster, self.chosen), 1.0)
        return table

    def strengths(self, parameters: Floats) -> Floats:
        """(..., K) strengths, which add up to 0, of free parameters (..., P)."""
        return parameters[..., : self.basis.shape[1]] @ self.basis.T


@dataclass(frozen=True)
class Fit:
    """Maximum likelihood of R sets of counts.

    Attributes:
        parameters: (R, P).
        information: (R, P, P) of all votes, the extra ones included.
        separable: (R,) whether the extra votes were needed.
    """

    parameters: Floats
    information: Floats
    separable: NDArray[np.bool_]


def fit(choices: Choices, counts: Floats) -> Fit:
    """Fit many sets of counts (R, D · A) at once; raises ValueError if one of them does not converge."""
    size = max(1, AT_ONCE // (choices.design.size + 1))
    parts = [_fit(choices, counts[start : start + size]) for start in range(0, len(counts), size)]
    columns = zip(*((part.parameters, part.information, part.separable) for part in parts), strict=True)
    parameters, information, separable = map(np.concatenate, columns)
    return Fit(parameters, information, separable)


def influence(choices: Choices, whole: Fit) -> Floats:
    """(N, K) what each choice adds to the error of the strengths: the inverse information times its score.

    Args:
        whole: the fit to all of them.
    """
    probabilities = np.exp(_log_probabilities(choices, whole.parameters))[0]
    mean = np.matmul(probabilities[:, None], choices.design)[:, 0]
    sets, alternatives = np.divmod(choices.chosen, choices.there.shape[1])
    scores = choices.design[sets, alternatives] - mean[sets]
    return choices.strengths(np.linalg.solve(whole.information[0], scores.T).T)


def independent_variance(choices: Choices, whole: Fit) -> Floats:
    """(K,) variances of the strengths if votes were independent, by the information of the fit to all of them."""
    free = np.linalg.inv(whole.information[0])[: len(choices.points) - 1, : len(choices.points) - 1]
    return np.einsum("kp,pq,kq->k", choices.basis, free, choices.basis)


def _fit(choices: Choices, counts: Floats) -> Fit:
    separable = ~_is_finite(choices, counts)
    if choices.has_ties:
        separable |= counts.reshape(-1, *choices.there.shape)[:, :, -1].sum(axis=1) == 0
    extra = (choices.there / choices.there.sum(axis=1, keepdims=True)).ravel()
    counts = counts + separable[:, None] * extra
    parameters = np.zeros((len(counts), choices.design.shape[2]))
    value = _likelihood(choices, counts, parameters)
    for _ in range(STEPS):
        gradient, information = _derivatives(choices, counts, parameters)
        step = np.linalg.solve(information, gradient[..., None])[..., 0].astype(np.float64)
        gain = (gradient * step).sum(axis=1)
        if (gain < CLOSE * CLOSE * counts.sum(axis=1)).all():
            return Fit(parameters, information, separable)
        parameters, value = _climb(choices, counts, parameters, value, step)
    raise ValueError("the strengths do not converge: are there votes on every pair of points?")


def _climb(choices: Choices, counts: Floats, parameters: Floats, value: Floats, step: Floats) -> tuple[Floats, Floats]:
    """One step of each fit, halved as long as it leads down."""
    length = np.ones((len(parameters), 1))
    for _ in range(30):
        moved = parameters + length * step
        new = _likelihood(choices, counts, moved)
        down = new < value - 1e-12 * np.abs(value)
        if not down.any():
            break
        length[down] /= 2
    return moved, new


def _log_probabilities(choices: Choices, parameters: Floats) -> Floats:
    """(R, D, A) of all alternatives; those that are not there have minus infinity."""
    flat = choices.design.reshape(-1, parameters.shape[1])
    logits = np.where(choices.there, (parameters @ flat.T).reshape(-1, *choices.there.shape), -np.inf)
    top = logits.max(axis=2, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))


def _likelihood(choices: Choices, counts: Floats, parameters: Floats) -> Floats:
    """(R,) log-likelihoods."""
    logs = np.where(choices.there, _log_probabilities(choices, parameters), 0.0)
    return (counts.reshape(logs.shape) * logs).sum(axis=(1, 2))


def _derivatives(choices: Choices, counts: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """Gradients (R, P) and information (R, P, P)."""
    probabilities = np.exp(_log_probabilities(choices, parameters))
    counts = counts.reshape(probabilities.shape)
    totals = counts.sum(axis=2)
    flat = choices.design.reshape(-1, parameters.shape[1])
    gradient = (counts - totals[..., None] * probabilities).reshape(len(counts), -1) @ flat
    mean = np.matmul(probabilities.transpose(1, 0, 2), choices.design).transpose(1, 0, 2)
    weights = (totals[..., None] * probabilities).reshape(len(counts), -1)
    second = np.matmul(flat.T, weights[..., None] * flat)
    return gradient, second - np.matmul((totals[..., None] * mean).swapaxes(1, 2), mean)


def _is_finite(choices: Choices, counts: Floats) -> NDArray[np.bool_]:
    """(R,) whether the maximum is finite, ties not counted that never occurred.

    A path's length is its ties less its wins, so that a round trip with more wins has a negative one (Floyd 1962).
    """
    size = len(choices.points)
    there = (counts > 0).reshape(-1, *choices.there.shape)
    if choices.has_ties:
        wins, ties = _seen(there[:, :, :-1], choices.wins[:, :-1]), _seen(there[:, :, -1:], choices.wins[:, -1:])
    else:
        wins, ties = _seen(there, choices.wins), np.zeros((len(counts), size, size), dtype=bool)
    length = np.where(wins, -1.0, np.where(ties, 1.0, np.inf))
    length[:, np.arange(size), np.arange(size)] = 0.0
    for via in range(size):
        length = np.minimum(length, length[:, :, via, None] + length[:, via, None, :])
    return np.asarray(np.isfinite(length).all(axis=(1, 2)) & (length.diagonal(axis1=1, axis2=2) < 0).any(axis=1))


def _seen(there: NDArray[np.bool_], wins: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(R, K, K) whether any alternative that was chosen says that a point is better than, or as good as, another."""
    size = wins.shape[-1]
    flat = there.reshape(len(there), -1).astype(np.float64) @ wins.reshape(-1, size * size)
    return (flat > 0).reshape(-1, size, size)


def _stages(row: Row, options: list[int]) -> list[tuple[tuple[int, ...], int]]:
    """The choices in a vote: the set, in order, and the point that was chosen from it, or `TIE`."""
    answer = row["answer"]
    if isinstance(answer, list):
        best_first = [options[place] for place in answer]
        return [(tuple(sorted(best_first[i:])), best_first[i]) for i in range(len(best_first) - 1)]
    return [(tuple(sorted(options)), TIE if answer is None else options[answer])]


def _layout(
    sets: Sequence[tuple[int, ...]], points: int, width: int, ties: bool
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """`design`, `there`, `wins` and `basis` of `Choices`."""
    design = np.zeros((len(sets), width, points + ties))
    there = np.zeros((len(sets), width), dtype=bool)
    wins = np.zeros((len(sets), width, points, points), dtype=bool)
    for place, options in enumerate(sets):
        for alternative, point in enumerate(options):
            design[place, alternative, point] = 1.0
            there[place, alternative] = True
            wins[place, alternative, point, list(options)] = True
        if ties:
            design[place, -1, list(options)], design[place, -1, -1] = 0.5, 1.0
            there[place, -1] = True
            wins[place, -1][np.ix_(options, options)] = True
    basis = np.linalg.svd(np.eye(points) - 1 / points)[0][:, : points - 1]
    free = design[..., :points] @ basis
    return np.concatenate([free, design[..., points:]], axis=2), there, wins, basis


def _check_connected(sets: Sequence[tuple[int, ...]], points: Sequence[str]) -> None:
    """Raises ValueError if sets do not join all points."""
    part = list(range(len(points)))
    for options in sets:
        for a, b in pairwise(options):
            part = [part[a] if own == part[b] else own for own in part]
    if alone := [name for name, own in zip(points, part, strict=True) if own != part[0]]:
        raise ValueError(f"no vote compares {', '.join(alone)} with {points[0]}: take more votes first")
