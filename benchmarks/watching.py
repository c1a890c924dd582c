"""How often `training.watch` is wrong about a reward, and how near `training.floor` comes to its share; simulated.

Run: python benchmarks/watching.py (under a minute on an idle core)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
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


class Model:
    """A model at some distance from its base, the mean over its parameters, which a reward drives away and a penalty
    pulls back; the two are equal where 80 % of diversity, exp(-distance), is kept if the coefficient is right.

    Args:
        adamw: whether AdamW moves it, with noise on its gradients; else it goes straight to where reward and penalty
            are equal, by at most `speed` per update.
    """

    def __init__(self, coefficient: float, speed: float, adamw: bool):
        self.coefficient, self.speed = coefficient / -math.log(0.8), speed
        self.parameters = torch.zeros(8, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.AdamW([self.parameters], speed, weight_decay=0) if adamw else None

    def update(self, strength: float) -> None:
        push = self.coefficient * strength * self.parameters.detach() - 1
        if self.optimizer is None:
            self.parameters.data -= self.speed * torch.tanh(2 * push)
        else:
            self.parameters.grad = push + 0.5 * torch.from_numpy(DRAW.standard_normal(8))
            self.optimizer.step()

    def kept(self) -> float:
        return float(torch.exp(-self.parameters.detach().abs().mean()))


def held(model: Model, floor: FloorConfig | None, every: int = 5) -> NDArray[np.float64]:
    """Diversity kept at every look, as it is; it is seen with noise."""
    true, seen, weight = [1.0], [1.0], 1.0
    for _ in range(LOOKS):
        for _ in range(every):
            model.update(weight)
        true.append(model.kept())
        seen.append(true[-1] + 0.03 * DRAW.standard_normal())
        weight = strength(seen, floor) if floor else 1.0
    return np.array(true)


def floors() -> None:
    """Diversity kept over the last ten looks, as root mean square distance from 80 %, and the least ever."""
    print("model | coefficient | updates to the floor | without, rms | with, rms | least share with")
    for adamw in (False, True):
        for factor in (0.1, 1.0, 10.0):
            for speed in (0.1, 0.03, 0.01):
                free = held(Model(factor, speed, adamw), None)
                floor = FloorConfig(keep=0.8)
                runs = np.array([held(Model(factor, speed, adamw), floor) for _ in range(10)])
                off = [np.sqrt(np.square(kept[..., -10:] - 0.8).mean()) for kept in (free, runs)]
                cells = ["AdamW" if adamw else "at once", f"{factor:g} x", f"{-math.log(0.8) / speed:.0f}"]
                print(" | ".join([*cells, *(f"{x:.3f}" for x in off), f"{np.median(runs.min(1)):.2f}"]))


if __name__ == "__main__":
    alarms()
    print()
    floors()
