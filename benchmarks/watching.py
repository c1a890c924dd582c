"""How often `training.watch` is wrong about a reward, and how near `training.floor` comes to its share; simulated.

Run: python benchmarks/watching.py (under a minute on an idle core)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.config import FloorConfig, WatchConfig
from sfumato.training.feedback import strength
from sfumato.training.watch import Look, judge

DRAW = np.random.default_rng(0)
TRAININGS, LOOKS = 300, 20
NOISE = 0.7
"""Of an image's score from look to look, in units of the spread of scores among images."""


def stopped_at(curve: Sequence[float], prompts: int, images: int, watch: WatchConfig) -> int | None:
    """The look that would have stopped a training with this mean of gold; noise is independent from look to look."""
    images_alone = DRAW.standard_normal((prompts, images))
    looks: list[Look] = []
    for number, mean in enumerate(curve):
        scores = images_alone + NOISE * DRAW.standard_normal((prompts, images)) + mean
        by_prompt = {str(i): row.tolist() for i, row in enumerate(scores)}
        looks.append({"update": number, "eval/kept": 1.0, "eval/reward": number, "eval/gold": scores.mean()})
        looks[-1]["eval/scores"] = {"reward": {}, "gold": by_prompt}
        if judge(looks, watch):
            return number
    return None


def alarms() -> None:
    """False stops where gold stays as it is, and stops where it rises by 0.5 in 10 looks and falls by 1 in 10."""
    level = [0.0] * (LOOKS + 1)
    peak = [0.05 * min(i, 10) - 0.1 * max(0, i - 10) for i in range(LOOKS + 1)]
    print("looks | noise | stopped without a fall | too early | stopped after the peak | median looks after it")
    for prompts, images in ((4, 4), (8, 8)):
        for noise in (2.0, 3.0, 4.0, 5.0):
            watch = WatchConfig(noise=noise)
            false = [stopped_at(level, prompts, images, watch) for _ in range(TRAININGS)]
            found = [stopped_at(peak, prompts, images, watch) for _ in range(TRAININGS)]
            late = [number for number in found if number is not None and number > 10]
            shares = [share(false, lambda n: n is not None), share(found, lambda n: n is not None and n <= 10)]
            cells = [f"{prompts} x {images}", f"{noise:g}", *shares, f"{len(late) / TRAININGS:.0%}"]
            print(" | ".join([*cells, f"{np.median(late) - 10:g}" if late else "-"]))


def share(found: list[int | None], holds: Callable[[int | None], bool]) -> str:
    return f"{sum(map(holds, found)) / TRAININGS:.0%}"


def held(factor: float, speed: float, floor: FloorConfig | None, every: int = 5) -> NDArray[np.float64]:
    """Diversity kept, exp(-D), of a model that a reward drives away from its base, by at most `speed` per update, and a
    penalty pulls back; the two are equal where 80 % is kept if the coefficient is right (`factor` 1)."""
    right = 1 / -math.log(0.8)
    distance, weight, true, seen = 0.0, 1.0, [1.0], [1.0]
    for _ in range(LOOKS):
        for _ in range(every):
            distance = max(0.0, distance + speed * math.tanh(2 * (1 - factor * right * weight * distance)))
        true.append(math.exp(-distance))
        seen.append(true[-1] + 0.03 * DRAW.standard_normal())
        weight = strength(seen, floor) if floor else 1.0
    return np.array(true)


def floors() -> None:
    """Diversity kept over the last ten looks, as root mean square distance from 80 %, and the least ever."""
    print("coefficient | updates to the floor | without, rms | with, rms | least share with")
    for factor in (0.1, 1.0, 10.0):
        for speed in (0.1, 0.03, 0.01):
            free = held(factor, speed, None)
            runs = np.array([held(factor, speed, FloorConfig(keep=0.8)) for _ in range(20)])
            off = [np.sqrt(np.square(kept[..., -10:] - 0.8).mean()) for kept in (free, runs)]
            updates = -math.log(0.8) / speed
            print(f"{factor:g} x | {updates:.0f} | {off[0]:.3f} | {off[1]:.3f} | {np.median(runs.min(1)):.2f}")


if __name__ == "__main__":
    alarms()
    print()
    floors()
