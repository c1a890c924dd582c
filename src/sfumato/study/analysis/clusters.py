"""The error of a mean whose observations share raters and prompts.

Two votes of one rater are alike, and so are two votes on one prompt. The variance that holds both is V_raters +
V_prompts - V_cells (Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering", equation 2.13), each
a sum of squares over clusters with the correction m / (m - 1) for m clusters; a cell is a rater with a prompt. Where
the difference falls below the variance of independent votes, that is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.frontier import student
from sfumato.study.analysis.votes import Clusters, Floats, Ints


@dataclass(frozen=True)
class Spread:
    """How sure an estimate is.

    Attributes:
        variance: (K,) of the estimates, over raters and prompts.
        raters: (K,) the part of raters alone, as if prompts were fixed.
        freedom: degrees of freedom: the fewer of raters and prompts, less one; 0 if nothing can be said.
    """

    variance: Floats
    raters: Floats
    freedom: int

    def reach(self, level: float = 0.95) -> Floats:
        """(K,) half the width of Student's interval; infinite without a degree of freedom."""
        if not self.freedom:
            return np.full(self.variance.shape, np.inf)
        return student.quantile((1 + level) / 2, self.freedom) * np.sqrt(self.variance)


def two_way(influence: Floats, clusters: Clusters) -> Spread:
    """The spread of estimates.

    Prompts count as clusters only if there are two or more of them; with one, what is said holds for that prompt.

    Args:
        influence: (N, K) what each observation adds to the error of each of K estimates.
        clusters: of the N observations.
    """
    raters, count = _squares(influence, clusters.rater)
    cells, _ = _squares(influence, clusters.cell)
    prompts, prompt_count = _squares(influence, clusters.prompt)
    both = raters + prompts - cells if prompt_count > 1 else raters
    fewest = min(count, prompt_count) if prompt_count > 1 else count
    return Spread(np.maximum(both, cells), raters, fewest - 1)


def _squares(influence: Floats, cluster: Ints) -> tuple[Floats, int]:
    """(K,) sums over clusters of the squares of their sums, corrected, and the number of clusters."""
    sums = np.zeros((int(cluster.max(initial=-1)) + 1, influence.shape[1]))
    np.add.at(sums, cluster, influence)
    count = len(sums)
    return count / max(count - 1, 1) * (sums**2).sum(axis=0), count
