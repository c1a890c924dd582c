"""The tables in docs/statistics.md: what the measures, intervals and plans say when samples or prompts are few.

Run: python benchmarks/small_samples.py [TABLE ...] (all of them take several minutes)
"""

import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.frontier import bootstrap, hypervolume
from sfumato.frontier.multiple import simultaneous
from sfumato.frontier.pareto import hypervolumes
from sfumato.frontier.power import Pilot, power, run_pilot
from sfumato.frontier.small_n import entropy_corrected, vendi_corrected
from sfumato.frontier.statistics import interval, jackknife_weights, resampling_weights
from sfumato.frontier.student import quantile
from sfumato.frontier.volumes import Volumes, probability_larger
from sfumato.metrics import coverage, entropy, mean_pairwise_distance, recall, vendi_score

Array = NDArray[np.float64]
RANDOM = torch.Generator().manual_seed(0)
DRAW = np.random.default_rng(0)
CENTRES = 4 * torch.eye(8, 16)
RESAMPLES = 1000
REPEATS = 1000
TRIALS = 150


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


def _noisy(n: int, modes: int, noise: float) -> Array:
    return np.eye(64)[DRAW.integers(modes, size=n)] + noise / 8 * DRAW.normal(size=(n, 64))


def _uneven(n: int, modes: int) -> NDArray[np.int64]:
    shares = 0.5 ** np.arange(modes)
    return DRAW.choice(modes, size=n, p=shares / shares.sum())


def _decaying(n: int, size: int, rate: float) -> Array:
    return DRAW.normal(size=(n, size)) / np.arange(1, size + 1) ** rate + 2 * np.eye(size)[0]


WORLDS: dict[str, Callable[[int], Array]] = {
    "8 equal kinds": lambda n: np.eye(8)[DRAW.integers(8, size=n)],
    "8 kinds, each half as frequent": lambda n: np.eye(8)[_uneven(n, 8)],
    "collapsed: 1 kind, little noise": partial(_noisy, modes=1, noise=0.1),
    "3 kinds, much noise": partial(_noisy, modes=3, noise=0.5),
    "8 kinds, much noise": partial(_noisy, modes=8, noise=0.5),
    "a cloud of 256 directions": partial(_decaying, size=256, rate=0.75),
}


def corrections() -> None:
    """Means and root mean square errors of single sets."""
    print("world | truth | images | Vendi: mean, error | corrected: mean, error")
    for name, draw in WORLDS.items():
        truth = vendi_score(torch.from_numpy(draw(6000)))
        for n in (6, 12, 32):
            sets = [draw(n) for _ in range(200)]
            found = ([vendi_score(torch.from_numpy(x)) for x in sets], list(map(vendi_corrected, sets)))
            print(f"{name} | {truth:.2f} | {n} | {' | '.join(_error(values, truth) for values in found)}")
    print("\nlabels | truth | images | entropy: mean, error | Miller & Madow | Chao & Shen | corrected")
    for name, shares in (("3 equal", np.full(3, 1 / 3)), ("8 equal", np.full(8, 1 / 8)), ("8 halving", _halving(8))):
        truth = float(-(shares * np.log(shares)).sum())
        for n in (6, 12, 32):
            labels = [DRAW.choice(len(shares), size=n, p=shares).tolist() for _ in range(2000)]
            ways = (entropy, miller_madow, chao_shen, entropy_corrected)
            print(f"{name} | {truth:.3f} | {n} | {' | '.join(_error(list(map(w, labels)), truth, 3) for w in ways)}")


def _halving(modes: int) -> Array:
    shares = 0.5 ** np.arange(modes)
    return shares / shares.sum()


def _error(values: list[float], truth: float, digits: int = 2) -> str:
    error = float(np.sqrt(np.mean((np.array(values) - truth) ** 2)))
    return f"{np.mean(values):.{digits}f}, {error:.{digits}f}"


def miller_madow(labels: list[int]) -> float:
    return entropy(labels) + (len(set(labels)) - 1) / (2 * len(labels))


def chao_shen(labels: list[int]) -> float:
    """Chao & Shen 2003: shares shrunk by Good's coverage, each term weighted by its chance to be seen."""
    counts = np.unique(labels, return_counts=True)[1]
    n, once = len(labels), (counts == 1).sum()
    shares = (1 - min(once, n - 1) / n) * counts / n
    return float(-(shares * np.log(shares) / (1 - (1 - shares) ** n)).sum())


POPULATIONS: dict[str, tuple[Callable[..., Array], float]] = {
    "normal": (DRAW.normal, 0.0),
    "log-normal": (DRAW.lognormal, float(np.exp(0.5))),
    "shares of 8, 20 % each": (lambda size: DRAW.binomial(8, 0.2, size) / 8, 0.2),
}


def intervals() -> None:
    print("values | prompts | covered by a nominal 95 %: percentile, BCa, expanded BCa, bootstrap-t, Student's t")
    for name, (draw, truth) in POPULATIONS.items():
        for m in (12, 24, 48):
            covered = np.zeros(5)
            for seed in range(REPEATS):
                values = draw(size=m)
                options = {"repetitions": RESAMPLES, "seed": seed % 4}
                found = [bootstrap(values, way, **options) for way in ("percentile", "bca", "expanded")]
                limits = [(own.low, own.high) for own in found] + [_bootstrap_t(values, seed % 4), _student(values)]
                covered += [low <= truth <= high for low, high in limits]
            print(f"{name} | {m} | {' | '.join(f'{share:.1%}' for share in covered / REPEATS)}")


def _bootstrap_t(values: Array, seed: int) -> tuple[float, float]:
    m, centred = len(values), values - values.mean()
    weights = resampling_weights(m, RESAMPLES, seed)
    means = weights @ centred
    t = means / np.sqrt(np.maximum(weights @ centred**2 - means**2, 1e-30) / (m - 1))
    low, high = np.quantile(t, [0.025, 0.975]) * values.std(ddof=1) / np.sqrt(m)
    return values.mean() - high, values.mean() - low


def _student(values: Array) -> tuple[float, float]:
    half = quantile(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def families() -> None:
    """8 operating points that are all the same on both axes: 56 differences, none of them real."""
    print(
        "values | prompts | some difference found: uncorrected t, resampled max-|t|, sign-flip step-down | "
        "outside its interval"
    )
    pairs = np.array(list(combinations(range(8), 2))).T
    for name, (draw, _) in POPULATIONS.items():
        for m in (12, 24, 48):
            wrong = np.zeros(4)
            for seed in range(REPEATS // 4):
                values = draw(size=(m, 8, 2))
                family = (values[:, pairs[1]] - values[:, pairs[0]]).reshape(m, -1)
                found = simultaneous(family, repetitions=RESAMPLES, seed=seed % 4)
                t = np.abs(family.mean(axis=0)) / np.maximum(family.std(axis=0, ddof=1), 1e-12) * np.sqrt(m)
                wrong += [
                    t.max() > quantile(0.975, m - 1),
                    t.max() > _resampled_critical(family, seed % 4),
                    min(difference.p_adjusted for difference in found) < 0.05,
                    any(not difference.low <= 0 <= difference.high for difference in found),
                ]
            print(f"{name} | {m} | {' | '.join(f'{share:.1%}' for share in wrong / (REPEATS // 4))}")


def _resampled_critical(family: Array, seed: int) -> float:
    """Of the studentised maximum when prompts are drawn with replacement."""
    m, centred = len(family), family - family.mean(axis=0)
    weights = resampling_weights(m, RESAMPLES, seed)
    means = weights @ centred
    t = np.abs(means) / np.sqrt(np.maximum(weights @ centred**2 - means**2, 1e-30) / (m - 1))
    return float(np.quantile(t.max(axis=1), 0.95))


CORNERS = np.array([[0, 1], [0.5, 0.8], [0.8, 0.45], [0.5, 0.8], [0.8, 0.45], [1, 0]])
NAMES = ("base", "a1", "a2", "b1", "b2", "tuned")


def volumes() -> None:
    """Two methods whose frontiers are the same, on prompts that differ in level and in what the points do."""
    print(
        "values | prompts compared | covered: percentile, BCa, expanded BCa | bias / sd | "
        "probability outside 5..95 %, outside 10..90 %"
    )
    reference = (-0.1, -0.1)
    a, b = frozenset(NAMES) - {"b1", "b2"}, frozenset(NAMES) - {"a1", "a2"}
    own = [i for i, name in enumerate(NAMES) if name in a]
    truth = hypervolume(CORNERS[own], reference)
    for name, noise in (("normal", DRAW.normal), ("log-normal", _standard_lognormal)):
        for m in (8, 16, 32, 48):
            covered, estimates, probabilities = np.zeros(3), [], []
            for seed in range(REPEATS // 2):
                values = CORNERS + 0.4 * noise(size=(m, 6, 2)) + 0.3 * DRAW.normal(size=(m, 1, 2))
                both = Volumes(values, NAMES, reference, RESAMPLES, seed % 4)
                resampled, estimate = both.resampled(a), both.hypervolume(a)["mean"]
                without = hypervolumes(np.tensordot(jackknife_weights(m), values[:, own], axes=1), reference)
                ways = [interval(estimate, resampled), interval(estimate, resampled, without)]
                ways.append(interval(estimate, resampled, without, expand=True))
                covered += [way.low <= truth <= way.high for way in ways]
                estimates.append(estimate)
                probabilities.append(abs(probability_larger(resampled, both.resampled(b)) - 0.5))
            sure = [np.mean(np.array(probabilities) > bound) for bound in (0.45, 0.4)]
            cells = [*covered / (REPEATS // 2), (np.mean(estimates) - truth) / np.std(estimates), *sure]
            print(f"{name} | {m} | {' | '.join(f'{cell:.1%}' for cell in cells)}")


def _standard_lognormal(size: tuple[int, ...]) -> Array:
    return (DRAW.lognormal(size=size) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def _prompts(m: int, n: int) -> list[tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]]:
    """For m prompts the pairs (images, reference) of two points; the second draws one of its 6 modes too often."""
    found = []
    for _ in range(m):
        centres, often = 3 * DRAW.normal(size=(6, 16)), DRAW.uniform(0.1, 0.5)
        base, reference = DRAW.integers(6, size=(2, n))
        tuned = np.where(DRAW.uniform(size=n) < often, 0, base)
        draws = (centres[which] + 0.5 * DRAW.normal(size=(n, 16)) + 1 for which in (base, tuned, reference))
        own, other, real = map(torch.from_numpy, draws)
        found.append(((own, real), (other, real)))
    return found


def _reward(x: torch.Tensor, reference: torch.Tensor) -> float:
    return float(x[:, 0].mean())


MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {
    "mean score": _reward,
    "Vendi": lambda x, reference: vendi_score(x),
    "recall, k = 3": lambda x, reference: recall(reference, x, 3),
}


def plans() -> None:
    """Power as predicted by pilots of 24 prompts x 12 images, and as found by doing the experiment."""
    print("measure | prompts x images | effect | predicted: mean, 10 % .. 90 % of the pilots | t-test | expanded BCa")
    for name, measure in MEASURES.items():
        pilots = []
        for seed in range(8):
            a, b = zip(*_prompts(24, 12), strict=True)
            pilots.append(run_pilot(measure, a, b, least=4, draws=8, seed=seed))
        for m, n in ((12, 6), (24, 12), (16, 24)):
            _plan(name, measure, pilots, m, n)


def _plan(name: str, measure: Callable[..., float], pilots: list[Pilot], m: int, n: int) -> None:
    """One row: differences as they are, but moved to a mean that is seen about half of the time."""
    pairs = np.array([[measure(*point) for point in pair] for pair in _prompts(TRIALS * m, n)])
    differences = (pairs[:, 1] - pairs[:, 0]).reshape(TRIALS, m)
    true = differences.mean()
    wanted = np.sign(true) * 2.2 * differences.std() / np.sqrt(m)
    shifted = differences - true + wanted
    t = shifted.mean(axis=1) / shifted.std(axis=1, ddof=1) * np.sqrt(m)
    limits = [bootstrap(row, repetitions=RESAMPLES) for row in shifted]
    seen = (np.abs(t) > quantile(0.975, m - 1)).mean(), np.mean([own.low > 0 or own.high < 0 for own in limits])
    predicted = [power(pilot, wanted, m, n) for pilot in pilots]
    low, high = np.quantile(predicted, [0.1, 0.9])
    print(
        f"{name} | {m} x {n} | {wanted:.3f} | {np.mean(predicted):.2f}, {low:.2f} .. {high:.2f} | "
        f"{seen[0]:.2f} | {seen[1]:.2f}",
        flush=True,
    )


TABLES = (one_set, two_sets, corrections, intervals, families, volumes, plans)

if __name__ == "__main__":
    for table in TABLES:
        if len(sys.argv) == 1 or table.__name__ in sys.argv[1:]:
            print(f"\n{table.__name__}")
            RANDOM.manual_seed(0)
            DRAW.bit_generator.state = np.random.default_rng(0).bit_generator.state
            table()
