"""Mode coverage: which kinds of the reference a set still reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import torch

from sfumato.metrics.entropy import check_probabilities

Kinds = Iterable[Hashable] | torch.Tensor
"""Labels, one per sample, or a classifier's probabilities (N, C), whose largest names the kind."""


class ModeCoverage(NamedTuple):
    """How many of the reference's kinds are reached.

    Attributes:
        share: of the reference's kinds, in [0, 1].
        missing: the kinds that are not reached, those most frequent in the reference first.
    """

    share: float
    missing: tuple[Hashable, ...]


def mode_coverage(real: Kinds, fake: Kinds, at_least: int = 1) -> ModeCoverage:
    """Share of the reference's kinds that have at least so many samples in the other set.

    With one sample asked for, it is the number of modes captured (Che et al. 2017, arXiv 1612.02136; Metz et al. 2017,
    arXiv 1611.02163) over the number there is. The kinds are those that `real` holds, so that what the
    reference never draws is not asked for. With few samples rare kinds go missing by chance: of kinds with share p, N
    samples miss (1 - p)^N.

    Args:
        real: labels (strings, or integers in a list or a tensor (N,)), or a floating-point tensor of probabilities
            (N, C), where kinds are numbered from 0.
        fake: the same.
        at_least: samples of a kind for it to count as reached; more guard against a classifier's errors.

    Raises:
        ValueError: no samples in a set, probabilities that are none, or `at_least` below 1.
    """
    if at_least < 1:
        raise ValueError(f"at_least={at_least}: a kind is reached by one sample or more")
    there, reached = _count(real, "real"), _count(fake, "fake")
    missing = tuple(kind for kind, _ in there.most_common() if reached[kind] < at_least)
    return ModeCoverage(1 - len(missing) / len(there), missing)


def _count(values: Kinds, name: str) -> Counter[Hashable]:
    if isinstance(values, torch.Tensor) and values.is_floating_point():
        values = check_probabilities(values).argmax(dim=1)
    labels = values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else list(values)
    if not labels:
        raise ValueError(f"there are no {name} samples: mode coverage needs at least one in each set")
    return Counter(labels)
