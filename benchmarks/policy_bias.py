"""How biased the published defaults of policy gradients are, where the true gradient is known in closed form.

    .venv/bin/python benchmarks/policy_bias.py   # a quarter of a minute

Two kinds of Gaussian worlds are tuned to a quadratic reward with groups of four images and five steps. Each row is one
estimator, averaged over many independent pairs of groups: the length of its expectation along the true gradient of
E[r], 1 if it is unbiased, with its standard error; its angle to that gradient; and Hotelling's F against it, which
stays below 2.8 in 999 of 1,000 cases if there is no bias. In the second pass the images are those of the weights
before a step of 0.2 times the gradient.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.analytic.policy_bed import Bed, Estimator, mismatch, policy_bed

FIRST = {
    "unbiased": Estimator(),
    "two of the steps, weighted by T / |S|": Estimator(subset=2),
    "two of the steps, unweighted": Estimator(subset=2, weighted=False),
    "own image in the baseline": Estimator(own=True),
    "divided by the group's standard deviation": Estimator(spread="group"),
    "divided by the update's standard deviation": Estimator(spread="update"),
    "the same, clipped at 1": Estimator(spread="update", largest=1.0),
    "log-probabilities averaged over dims": Estimator(averaged=True),
    "all defaults of DDPO, but sums over steps": Estimator(own=True, spread="group", averaged=True),
    "all defaults of Flow-GRPO, but sums over steps": Estimator(own=True, spread="update", averaged=True),
}
SECOND = {
    "second pass, ratios of trajectories": Estimator(together=True),
    "second pass, ratios of steps": Estimator(),
    "second pass, clipped at 0.2": Estimator(clip=0.2),
    "second pass, clipped at 0.05": Estimator(clip=0.05),
    "second pass, averaged, clipped at 0.0001": Estimator(averaged=True, clip=1e-4),
}


@dataclass(frozen=True)
class Bias:
    """What an estimator gives instead of the gradient.

    Attributes:
        length: of its expectation along the gradient, relative to it.
        error: standard error of `length`.
        angle: between the two, in degrees.
        mismatch: Hotelling's F.
    """

    length: float
    error: float
    angle: float
    mismatch: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=8, help="of 150 pairs of groups")
    options = parser.parse_args()
    for sampler in ("ddpm", "flow"):
        for line in table(sampler, biases(policy_bed(sampler, size=4), options.repetitions)):
            print(line)


def biases(bed: Bed, repetitions: int) -> dict[str, Bias]:
    """The bias of every estimator of `FIRST` and `SECOND`, and what steps without noise hide from all of them."""
    found: dict[str, list[Tensor]] = {name: [] for name in (*FIRST, *SECOND)}
    truth = bed.truth()
    for seed in range(repetitions):
        sampled = bed.sample(seed)
        log_probs = bed.log_probs(sampled)
        for name, estimator in FIRST.items():
            found[name].append(bed.gradients(estimator.loss(log_probs, sampled)))
        with bed.moved(0.2):
            log_probs, moved_truth = bed.log_probs(sampled), bed.truth()
        for name, estimator in SECOND.items():
            found[name].append(bed.gradients(estimator.loss(log_probs, sampled)))
    hidden = bias(torch.cat(found["unbiased"]), bed.truth(whole=True))
    return {
        **{name: bias(torch.cat(rows), moved_truth if name in SECOND else truth) for name, rows in found.items()},
        "unbiased, against the whole gradient": hidden,
    }


def bias(estimates: Tensor, truth: Tensor) -> Bias:
    """From independent estimates (n, k)."""
    lengths, mean = estimates @ truth / (truth @ truth), estimates.mean(0)
    cosine = float(torch.cosine_similarity(mean, truth, 0))
    return Bias(
        float(lengths.mean()),
        float(lengths.std()) / math.sqrt(len(lengths)),
        math.degrees(math.acos(min(1.0, cosine))),
        mismatch(estimates, truth),
    )


def table(sampler: str, rows: dict[str, Bias]) -> Iterator[str]:
    width = max(map(len, rows))
    yield f"{sampler:{width}}{'length':>9}{'± se':>8}{'angle':>8}{'F':>9}"
    for name, row in rows.items():
        yield f"{name:{width}}{row.length:9.3f}{row.error:8.3f}{row.angle:7.1f}°{row.mismatch:9.1f}"


if __name__ == "__main__":
    main()
