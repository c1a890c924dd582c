"""How often intervals of `sfumato study analyse` hold what they should, in a world of raters and prompts with tastes.

    python benchmarks/study_coverage.py            # about 15 minutes on one core
    python benchmarks/study_coverage.py --quick    # that it works

Four operating points; a rater's liking of a point is its strength + a taste of the rater's + a turn of the prompt's.
Votes follow Davidson's model. What should be held are the win rates and strengths of a population of raters and
prompts, by integration over both. Results are in docs/study-analysis.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.study.analysis.logit import Choices, fit
from sfumato.study.analysis.proportions import Proportion
from sfumato.study.analysis.strengths import Strengths
from sfumato.study.analysis.votes import Duels

POINTS = ("a", "b", "c", "d")
STRENGTHS = np.array([-0.6, -0.1, 0.2, 0.5])
PAIRS = [(i, j) for i in range(4) for j in range(i + 1, 4)]
NU = 0.5
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


@dataclass(frozen=True)
class World:
    """How many raters and prompts there are, votes of each rater, and deviations of their tastes in log-odds."""

    raters: int
    prompts: int
    votes: int
    taste: float
    turn: float

    def rows(self, dice: np.random.Generator) -> list[dict]:
        """Votes of one study, with the columns that the analysis needs."""
        tastes = self.taste * dice.standard_normal((self.raters, len(POINTS)))
        turns = self.turn * dice.standard_normal((self.prompts, len(POINTS)))
        found = []
        for rater in range(self.raters):
            asked = dice.permutation(self.prompts * len(PAIRS))[: self.votes]
            for prompt, pair in zip(*np.divmod(asked, len(PAIRS)), strict=True):
                two = list(PAIRS[pair])
                liking = (STRENGTHS + tastes[rater] + turns[prompt])[two]
                answer = int(dice.choice(3, p=probabilities(liking[0] - liking[1])))
                names = [POINTS[place] for place in two]
                row = {"kind": "pair", "points": names, "answer": None if answer == 2 else answer}
                found.append({**row, "rater": rater, "prompt": int(prompt), "item": f"{prompt} {pair}"})
        return found

    def truth(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Win rates (6,) of the pairs, and strengths (4,), over all raters and prompts."""
        spread = np.sqrt(2 * (self.taste**2 + self.turn**2))
        gaps = np.array([STRENGTHS[i] - STRENGTHS[j] for i, j in PAIRS])
        expected = np.einsum("npa,n->pa", probabilities(gaps + spread * NODES[:, None]), WEIGHTS / WEIGHTS.sum())
        rows = [
            {"kind": "pair", "points": [POINTS[i], POINTS[j]], "answer": answer, "rater": 0, "prompt": 0}
            for i, j in PAIRS
            for answer in (0, 1, None)
        ]
        choices = Choices.of(rows, POINTS)
        fitted = fit(choices, expected.reshape(1, -1))
        return expected[:, 0] + expected[:, 2] / 2, choices.strengths(fitted.parameters[0])


def probabilities(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) of first, second and tie under Davidson's model, for a difference of strengths (...)."""
    first, second = np.exp(gap / 2), np.exp(-gap / 2)
    return np.stack([first, second, np.full_like(first, NU)], axis=-1) / (first + second + NU)[..., None]


def coverage(world: World, studies: int, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Shares of intervals that hold the truth."""
    rates, strengths = world.truth()
    held: dict[str, list[bool]] = {"Wilson": [], "clustered": [], "strengths": []}
    for number in range(studies):
        rows = world.rows(np.random.default_rng([seed, number]))
        duels = Duels.of(rows, POINTS)
        for pair, rate in zip(PAIRS, rates, strict=True):
            found = Proportion.of(*duels.between(*pair))
            held["Wilson"].append(found.low <= rate <= found.high)
            held["clustered"].append(found.clustered is not None and found.clustered[0] <= rate <= found.clustered[1])
        intervals = Strengths.of(rows, POINTS, repetitions).intervals
        held["strengths"] += [each.low <= truth <= each.high for each, truth in zip(intervals, strengths, strict=True)]
    return {name: float(np.mean(hits)) for name, hits in held.items()}


WORLDS = [
    World(raters, prompts, 24, taste, turn)
    for raters, prompts in ((10, 12), (30, 12), (30, 40), (100, 24))
    for taste, turn in ((0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.6, 0.6))
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few studies, to see that it works")
    quick = parser.parse_args().quick
    print(
        "| raters | prompts | taste | turn | Wilson | clustered | strengths |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for world in WORLDS[:4] if quick else WORLDS:
        found = coverage(world, 50 if quick else 200, 300 if quick else 600)
        shares = " | ".join(f"{100 * found[name]:.1f} %" for name in ("Wilson", "clustered", "strengths"))
        print(f"| {world.raters} | {world.prompts} | {world.taste} | {world.turn} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
