"""Make study.json: what choix, statsmodels and krippendorff say about simulated votes, for tests/study/analysis.

pip install choix statsmodels krippendorff
python tests/golden/make_study.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import choix
import krippendorff
import numpy as np
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

COUNTS = [(0, 9), (3, 10), (5, 5), (17, 40), (61, 100), (400, 401)]
STRENGTHS = np.array([-0.8, -0.1, 0.2, 0.7])


def main() -> None:
    dice = np.random.default_rng(0)
    pairs = [_ranking(dice, dice.permutation(4)[:2]) for _ in range(400)]
    rankings = [_ranking(dice, dice.permutation(4)[:3]) for _ in range(200)]
    best = [(ranking[0], ranking[1:]) for ranking in (_ranking(dice, dice.permutation(4)[:3]) for _ in range(300))]
    answers = dice.integers(4, size=(6, 30)) // (1 + dice.integers(3, size=30))
    answers = np.where(dice.random((6, 30)) < 0.3, np.nan, answers)
    p = dice.random(12) ** 3
    found = {
        "versions": {name: version(name) for name in ("choix", "statsmodels", "krippendorff")},
        "wilson": [[*each, *proportion_confint(*each, alpha=0.05, method="wilson")] for each in COUNTS],
        "pairs": {"data": pairs, "strengths": choix.opt_pairwise(4, pairs, tol=1e-12).tolist()},
        "rankings": {"data": rankings, "strengths": choix.opt_rankings(4, rankings, tol=1e-12).tolist()},
        "best": {"data": best, "strengths": choix.opt_top1(4, best, tol=1e-12).tolist()},
        "alpha": {
            "data": [[None if np.isnan(x) else int(x) for x in row] for row in answers],
            **{level: krippendorff.alpha(answers, level_of_measurement=level) for level in ("nominal", "ordinal")},
        },
        "holm": {"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()},
    }
    Path(__file__).with_name("study.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def _ranking(dice: np.random.Generator, options: np.ndarray) -> list[int]:
    """The options, the best first, by the model of Plackett and Luce."""
    noisy = STRENGTHS[options] + dice.gumbel(size=len(options))
    return options[np.argsort(-noisy)].tolist()


if __name__ == "__main__":
    main()
