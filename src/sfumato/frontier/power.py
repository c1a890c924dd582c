"""How many prompts and images it takes to see a change, from a pilot.

Two points are measured on the same prompts and seeds, and the mean over m prompts of their paired differences is put
to a t-test. The difference on one prompt varies between prompts, and with which n images were drawn: what counts is its
variance v(n), both together, for a mean score as for a measure of a whole set such as Vendi or recall. It is seen at
several n by drawing n of the pilot's images without replacement, which assumes nothing about the measure and has no
bias, and followed beyond the pilot by v(n) = a + b / n. The standard error with m prompts is (v(n) / m)^½, and the
power follows from the noncentral t distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sfumato.frontier import student
from sfumato.frontier.small_n import Measure, Samples
from sfumato.frontier.statistics import NORMAL, Array

DRAWS = 20
IMAGES = (4, 8, 16, 32)
MOST_PROMPTS = 1_000_000
GOOD_PILOT = 12
"""Prompts with which a pilot knows a variance to about ± 43 %; with fewer it should not be trusted much."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot knows of a measure: at several numbers of images, its value and how its differences vary.

    Attributes:
        prompts: the number of prompts in it.
        sizes: (S,) numbers of images, rising.
        levels: (S,) means over the prompts of the first point's value.
        variances: (S,) of the difference of the two points on one prompt.
    """

    prompts: int
    sizes: tuple[int, ...]
    levels: tuple[float, ...]
    variances: tuple[float, ...]

    def level(self, n: int) -> float:
        """The first point's value with n images."""
        return self._at(n, self.levels)

    def variance(self, n: int) -> float:
        """Variance over prompts of one prompt's difference with n images each."""
        slope = self._slope(self.variances)
        return max(self._at(n, self.variances, min(max(slope, 0.0), self.variances[-1] * self.sizes[-1])), 0.0)

    def _at(self, n: int, values: tuple[float, ...], slope: float | None = None) -> float:
        """A curve at n: between what was measured straight in 1 / n, beyond it on along the slope."""
        if n < self.sizes[0]:
            raise ValueError(f"the pilot says nothing about {n} images per prompt: it starts at {self.sizes[0]}")
        if n > self.sizes[-1]:
            slope = self._slope(values) if slope is None else slope
            return values[-1] + slope * (1 / n - 1 / self.sizes[-1])
        inverse = [1 / size for size in reversed(self.sizes)]
        return float(np.interp(1 / n, inverse, values[::-1]))

    def _slope(self, values: tuple[float, ...]) -> float:
        """Of the values over 1 / n by least squares, over the larger sizes."""
        large = np.array(self.sizes) >= self.sizes[-1] / 4
        x = 1 / np.array(self.sizes)[large]
        x -= x.mean()
        return float(x @ np.array(values)[large] / max(x @ x, 1e-300))


def run_pilot(
    measure: Measure, a: Samples, b: Samples | None = None, least: int = 2, draws: int = DRAWS, seed: int = 0
) -> Pilot:
    """Learn from measured images how a measure varies.

    Args:
        measure: called with one prompt's arrays, cut to n rows.
        a: for each of at least 3 prompts the arrays, all of N rows: first the point's images, then any reference.
        b: the same of the other point, images of the same seeds in the same order. Take two points about as different
            as the change that is looked for: where points are far apart, prompts differ more in how far. Without it
            `a` is its own control, with half of its images against the other half: that knows what seeds do, but not
            that a change may be larger on one prompt than on another, so it asks for too few prompts rather than too
            many.
        least: the fewest images for which the measure is defined.
        draws: subsets at each number of images.
        seed: of the subsets.

    Raises:
        ValueError: fewer than 3 prompts, points that do not match, unequal or too few images, or a value that is NaN.
    """
    images = _images(a, b, least)
    largest = images if b is not None else images // 2
    sizes = tuple(sorted({max(least, n) for n in (min(4, largest), *(largest * i // 8 for i in (1, 2, 3, 4, 6, 8)))}))
    random = np.random.default_rng(seed)
    levels, variances = [], []
    for n in sizes:
        repeated = draws if n < images else 1
        drawn = np.array([[_drawn(measure, *pair, n, random) for pair in _pairs(a, b)] for _ in range(repeated)])
        if not np.isfinite(drawn).all():
            raise ValueError(f"the measure is NaN or infinite for {n} images of prompt {_first_bad(drawn)}")
        levels.append(float(drawn[..., 0].mean()))
        variances.append(float((drawn[..., 1] - drawn[..., 0]).var(axis=1, ddof=1).mean()))
    return Pilot(len(a), sizes, tuple(levels), tuple(variances))


def _drawn(
    measure: Measure, a: tuple[Any, ...], b: tuple[Any, ...] | None, n: int, random: np.random.Generator
) -> tuple[float, float]:
    """Both points' values with n images of the same seeds; without b, of a's images and n others of a."""
    own, *references = (random.permutation(len(array)) for array in a)
    cut = [reference[index[:n]] for reference, index in zip(a[1:], references, strict=True)]
    other = a[0][own[n : 2 * n]] if b is None else b[0][own[:n]]
    return measure(a[0][own[:n]], *cut), measure(other, *cut)


def _pairs(a: Samples, b: Samples | None) -> list[tuple[tuple[Any, ...], tuple[Any, ...] | None]]:
    return list(zip(a, [None] * len(a) if b is None else b, strict=True))


def _first_bad(drawn: Array) -> int:
    return int(np.argwhere(~np.isfinite(drawn))[0][1])


def _images(a: Samples, b: Samples | None, least: int) -> int:
    """The number of images per prompt, checked."""
    if b is not None and len(a) != len(b):
        raise ValueError(f"a pilot needs the same prompts of both points, not {len(a)} and {len(b)}")
    if len(a) < 3:
        raise ValueError(f"a pilot needs at least 3 prompts to see how they differ, not {len(a)}")
    numbers = sorted({len(array) for arrays in [*a, *(b or [])] for array in arrays})
    if len(numbers) > 1:
        raise ValueError(f"a pilot needs equally many images of every prompt, not {numbers[0]} and {numbers[-1]}")
    needed = least if b is not None else 2 * least
    if numbers[0] < needed:
        raise ValueError(f"{numbers[0]} images per prompt are too few for this pilot: at least {needed} are needed")
    return numbers[0]


def power(pilot: Pilot, effect: float, prompts: int, images: int, alpha: float = 0.05) -> float:
    """Chance that a t-test over prompts sees a mean difference of `effect`, two-sided at `alpha`."""
    error = math.sqrt(pilot.variance(images) / prompts)
    return _power(abs(effect) / error, prompts, alpha) if error > 0 else float(effect != 0)


def detectable(pilot: Pilot, prompts: int, images: int, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest mean difference that is seen with this power: the minimum detectable effect."""
    _check(wanted, alpha)
    low, high = 0.0, 1.0
    while _power(high, prompts, alpha) < wanted:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _power(middle, prompts, alpha) < wanted else (low, middle)
    return high * math.sqrt(pilot.variance(images) / prompts)


def fewest_prompts(alpha: float = 0.05) -> int:
    """The fewest prompts whose 2^m sign flips can give a two-sided p-value of `alpha`: 6 for 5 %."""
    return math.ceil(1 - math.log2(alpha))


def prompts_needed(pilot: Pilot, effect: float, images: int, wanted: float = 0.8, alpha: float = 0.05) -> int:
    """The fewest prompts, at least `fewest_prompts`, with which a mean difference of `effect` is seen with this power.

    Raises:
        ValueError: no effect, a power or alpha outside its range, or more than a million prompts.
    """
    _check(wanted, alpha)
    if not 0 < abs(effect) < math.inf:
        raise ValueError(f"the change to be seen must not be 0, NaN or infinite: it is {effect}")
    high = fewest_prompts(alpha)
    low = high - 1
    while power(pilot, effect, high, images, alpha) < wanted:
        low, high = high, 2 * high
        if high > MOST_PROMPTS:
            raise ValueError(f"a change of {effect:.3g} would need over a million prompts: ask for a larger one")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(pilot, effect, middle, images, alpha) < wanted else (low, middle)
    return high


def prompts_range(
    pilot: Pilot, effect: float, images: int, wanted: float = 0.8, alpha: float = 0.05, level: float = 0.8
) -> tuple[int, int]:
    """Fewest and most prompts that may be needed, as the pilot's prompts know the variance to no better than that.

    Limits of the variance from the chi-square distribution (by Wilson & Hilferty 1931), as if differences were normal.
    """
    freedom = pilot.prompts - 1
    found = []
    for tail in ((1 + level) / 2, (1 - level) / 2):
        chi_square = freedom * (1 - 2 / (9 * freedom) + NORMAL.inv_cdf(tail) * math.sqrt(2 / (9 * freedom))) ** 3
        scaled = tuple(variance * freedom / chi_square for variance in pilot.variances)
        found.append(prompts_needed(replace(pilot, variances=scaled), effect, images, wanted, alpha))
    return found[0], found[1]


@dataclass(frozen=True)
class Design:
    """So many prompts with so many images each, for a change of `effect`.

    Attributes:
        images: per prompt and point.
        prompts: needed for the wanted power.
        range: of `prompts`, see `prompts_range`.
        effect: the change, in the measure's units.
        forwards: denoiser forwards of the whole measurement.
    """

    images: int
    prompts: int
    range: tuple[int, int]
    effect: float
    forwards: float


def designs(
    pilot: Pilot,
    change: float,
    relative: bool = True,
    images: Sequence[int] = IMAGES,
    forwards: float = 1.0,
    wanted: float = 0.8,
    alpha: float = 0.05,
    fewest: int = 0,
) -> list[Design]:
    """For each number of images what it takes to see a change, with the cost.

    Args:
        change: as a share of the first point's value with as many images, or with `relative` false in its own units.
        images: numbers of images per prompt; those below the pilot's smallest, or below `fewest`, are left out.
        forwards: denoiser forwards for one image of every point that has to be sampled, together.
        wanted: power, between alpha and 1.
        alpha: two-sided.
        fewest: images below which the measure hardly tells points apart. With k neighbours, 2 (k + 1): with k + 1
            images every other image is a neighbour, and recall is nearly 1 whatever the model.

    Raises:
        ValueError: as for `prompts_needed`, all numbers of images are left out, or the pilot has fewer than `fewest`.
    """
    if pilot.sizes[-1] < fewest:
        raise ValueError(
            f"a pilot with {pilot.sizes[-1]} images per prompt on either side hardly tells points apart: "
            f"for this metric take one with {fewest} or more, or measure with fewer neighbours (evaluation.neighbours)"
        )
    least = max(fewest, pilot.sizes[0])
    known = [n for n in images if n >= least]
    if not known:
        raise ValueError(
            f"designs with {', '.join(map(str, images))} images per prompt are too small for this metric, which "
            f"can be planned for from {least} on: measure it with fewer neighbours (evaluation.neighbours)"
        )
    found = []
    for n in known:
        effect = abs(change * pilot.level(n)) if relative else abs(change)
        m = prompts_needed(pilot, effect, n, wanted, alpha)
        bounds = prompts_range(pilot, effect, n, wanted, alpha)
        found.append(Design(n, m, bounds, effect, m * n * forwards))
    return found


def _power(shift: float, prompts: int, alpha: float) -> float:
    """Power of a two-sided t-test when the effect is `shift` standard errors."""
    if prompts < 2:
        raise ValueError(f"a t-test needs at least 2 prompts, not {prompts}")
    critical = student.quantile(1 - alpha / 2, prompts - 1)
    return student.upper_tail(critical, prompts - 1, shift) + student.upper_tail(critical, prompts - 1, -shift)


def _check(wanted: float, alpha: float) -> None:
    if not 0 < alpha < wanted < 1:
        raise ValueError(f"power must lie between alpha and 1 and alpha above 0: power is {wanted}, alpha {alpha}")
