"""The tables in docs/statistics.md: what the measures and intervals say when samples or prompts are few.

Run: python benchmarks/small_samples.py (half a minute)
"""

from collections.abc import Callable

import numpy as np
import torch

from sfumato.frontier import bootstrap
from sfumato.metrics import coverage, entropy, mean_pairwise_distance, recall, vendi_score

RANDOM = torch.Generator().manual_seed(0)
CENTRES = 4 * torch.eye(8, 16)


def kinds(n: int, number: int) -> torch.Tensor:
    return torch.randint(number, (n,), generator=RANDOM)


def clusters(n: int, modes: int) -> torch.Tensor:
    return CENTRES[kinds(n, modes)] + 0.3 * torch.randn(n, 16, generator=RANDOM)


def mean(n: int, draw: Callable[[int], float]) -> float:
    """Average of a measure of n samples over many draws."""
    return float(np.mean([draw(n) for _ in range(400 if n < 100 else 40)]))


def one_set() -> None:
    print("images | Vendi of 8 kinds | entropy of 3 styles | mean pairwise distance of 8 kinds")
    for n in (12, 24, 96, 384):
        vendi = mean(n, lambda n: vendi_score(torch.eye(8)[kinds(n, 8)]))
        spread = mean(n, lambda n: entropy(kinds(n, 3)))
        distance = mean(n, lambda n: mean_pairwise_distance(torch.eye(8)[kinds(n, 8)]))
        print(f"{n} | {vendi:.2f} | {spread:.3f} | {distance:.3f}")


def two_sets() -> None:
    print("images | k | recall: 8, 4, 1 modes | coverage: 8, 4, 1 modes")
    for n, k in ((12, 1), (12, 3), (48, 3), (384, 3)):
        print(f"{n} | {k} | {_modes(recall, n, k)} | {_modes(coverage, n, k)}")


def _modes(measure: Callable[..., float], n: int, k: int) -> str:
    cells = [mean(n, lambda n, modes=modes: measure(clusters(n, 8), clusters(n, modes), k)) for modes in (8, 4, 1)]
    return ", ".join(f"{cell:.2f}" for cell in cells)


def intervals() -> None:
    print("prompts | covered by a nominal 95 %: normal values, log-normal values")
    random = np.random.default_rng(0)
    for m in (12, 24, 48):
        cells = []
        for draw, truth in ((random.normal, 0.0), (random.lognormal, np.exp(0.5))):
            found = [bootstrap(draw(size=m), repetitions=1000, seed=seed % 4) for seed in range(2000)]
            cells.append(np.mean([interval.low <= truth <= interval.high for interval in found]))
        print(f"{m} | {cells[0]:.3f}, {cells[1]:.3f}")


if __name__ == "__main__":
    one_set()
    two_sets()
    intervals()
