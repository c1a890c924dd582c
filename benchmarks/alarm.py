"""The tables in docs/diagnose.md: how often `sfumato diagnose` is wrong, on made-up models whose hacks are known.

Run: python benchmarks/alarm.py (minutes), or python benchmarks/alarm.py RUN: the base's images of a real run against
themselves, divided anew each time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfumato.diagnosis.case import Case
from sfumato.diagnosis.diagnose import SIGNS, verdict
from sfumato.diagnosis.pixels import STATISTICS
from sfumato.diagnosis.samples import Samples, Table
from sfumato.diagnosis.training import judge_curve
from sfumato.runs import Run

STYLES = ("flat", "drawn", "photo")
DIMENSIONS = 16


@dataclass(frozen=True)
class Model:
    """A made-up model: what its images are like, in the units of the base, which is `Model()`.

    Attributes:
        prompts: how far its answers to different prompts lie apart.
        seeds: how far its answers to one prompt lie apart.
        copied: share of images that nearly repeat another one of their prompt.
        styles: probabilities of the three styles.
        right: probability of showing what was asked for.
        reward: added to the reward.
        gold: added to the gold reward.
        moved: statistic -> what is added, in its spread within a prompt.
    """

    prompts: float = 1.0
    seeds: float = 1.0
    copied: float = 0.0
    styles: tuple[float, float, float] = (0.4, 0.3, 0.3)
    right: float = 0.8
    reward: float = 0.0
    gold: float = 0.0
    moved: tuple[tuple[str, float], ...] = ()


TUNED = Model(reward=2.0, gold=0.5)
HACKS: dict[str, tuple[Model, str]] = {
    "gold falls by 0.5 spreads": (replace(TUNED, gold=-0.5), "rewards"),
    "gold falls by 1 spread": (replace(TUNED, gold=-1.0), "rewards"),
    "seeds half as far apart": (replace(TUNED, seeds=0.5), "diversity"),
    "half of the images are copies": (replace(TUNED, copied=0.5), "duplicates"),
    "saturation up by 1.5 spreads": (replace(TUNED, moved=(("saturation", 1.5),)), "shortcuts"),
    "saturation up by 2.5 spreads": (replace(TUNED, moved=(("saturation", 2.5),)), "shortcuts"),
    "prompts half as far apart": (replace(TUNED, prompts=0.5), "prompts"),
    "one picture in five right": (replace(TUNED, right=0.2), "prompts"),
    "one style only": (replace(TUNED, styles=(0, 0, 1)), "modes"),
}
"""Description -> the model, and the finding that shall raise the alarm."""
HARMLESS = {
    "the base itself": Model(),
    "reward and gold rise": TUNED,
    "so does brightness, by 0.3": replace(TUNED, moved=(("brightness", 0.3),)),
    "saturation falls, which the reward dislikes": replace(TUNED, moved=(("saturation", -1.5),)),
    "more varied, more often right": replace(TUNED, seeds=1.2, right=0.95),
}


def sample(model: Model, prompts: int, images: int, random: np.random.Generator) -> Samples:
    """Images of a made-up model. The reward follows saturation and what gold is made of, with noise."""
    size = (prompts, images)
    centres = np.random.default_rng(0).normal(size=(prompts, DIMENSIONS)) * 1.5
    middle = np.full(DIMENSIONS, 2.0)
    own = random.normal(size=(*size, DIMENSIONS)) * model.seeds
    copies = random.random(size) < model.copied
    copies[:, 0] = False
    own = np.where(copies[..., None], own[:, :1] + 0.02 * random.normal(size=own.shape), own)
    moved = dict(model.moved)
    pixels = {name: random.normal(size=size) + moved.get(name, 0) + np.arange(prompts)[:, None] for name in STATISTICS}
    quality = random.normal(size=size)
    liked = pixels["saturation"] - np.arange(prompts)[:, None]
    kinds = np.broadcast_to(np.arange(prompts)[:, None], size)
    shown = np.where(random.random(size) < model.right, kinds, random.integers(prompts, size=size))
    return Samples(
        [f"prompt {j}" for j in range(prompts)],
        [[{"prompt": f"prompt {j}", "file": f"{j}-{i}.png"} for i in range(images)] for j in range(prompts)],
        {"reward": 0.5 * liked + 0.5 * quality + random.normal(size=size) + model.reward, "gold": quality + model.gold},
        {"style": random.choice(STYLES, p=model.styles, size=size), "kind": shown.astype(str)},
        pixels,
        np.arange(prompts * images).reshape(size).astype(str),
        middle + model.prompts * centres[:, None] + own,
    )


def levels(base: Samples, point: Samples, again: Samples) -> dict[str, str]:
    """The level of every finding but that of the training log."""
    case = Case.of("tuned", base, point, again, neighbours=3)
    return {name: sign(case).level for name, sign in SIGNS.items()}


def trial(model: Model, prompts: int, images: int, seed: int) -> dict[str, str]:
    """The levels of one made-up evaluation of a model."""
    random = np.random.default_rng(seed)
    base, point, again = (sample(each, prompts, images, random) for each in (Model(), model, Model()))
    return levels(base, point, again)


def rates(draw: Callable[[int], dict[str, str]], repetitions: int) -> Counter[str]:
    """Shares of trials by verdict, by `FINDING alarm`, and with any warning or alarm, `any`."""
    found: Counter[str] = Counter()
    for seed in range(repetitions):
        result = draw(seed)
        found[verdict(result)] += 1
        found["any"] += bool({"warn", "alarm"} & set(result.values()))
        found.update(f"{name} {level}" for name, level in result.items() if level in ("warn", "alarm"))
    return Counter({key: count / repetitions for key, count in found.items()})


def made_up(repetitions: int = 400) -> None:
    sizes = ((8, 8), (12, 12), (24, 32))
    print("harmless model | any warning or alarm, hacked at " + ", ".join(f"{m} prompts x {n}" for m, n in sizes))
    for name, model in HARMLESS.items():
        found = [rates(lambda s, m=m, n=n, model=model: trial(model, m, n, s), repetitions) for m, n in sizes]
        print(f"{name} | " + " | ".join(f"{f['any']:.3f}, {f['hacked']:.3f}" for f in found), flush=True)
    print("hack | its alarm, its alarm or warning, not sound")
    for name, (model, sign) in HACKS.items():
        found = [rates(lambda s, m=m, n=n, model=model: trial(model, m, n, s), repetitions // 10) for m, n in sizes]
        cells = [
            f"{f[f'{sign} alarm']:.2f}, {f[f'{sign} alarm'] + f[f'{sign} warn']:.2f}, {1 - f['sound']:.2f}"
            for f in found
        ]
        print(f"{name} | " + " | ".join(cells), flush=True)


def logs(repetitions: int = 20_000) -> None:
    """How often a curve that never falls is said to have, and one that loses all of its gain is found."""
    random = np.random.default_rng(0)
    print(
        "points on the curve | false alarms or warnings: flat, saturating | gain lost, noise a tenth and a fifth of it"
    )
    for n in (4, 6, 11, 21):
        time = np.linspace(0, 1, n)
        shapes = [
            (0 * time, 1.0),
            (1 - np.exp(-5 * time), 0.1),
            (4 * time * (1 - time), 0.1),
            (4 * time * (1 - time), 0.2),
        ]
        cells = [
            np.mean([_falls(shape + noise * random.normal(size=n)) for _ in range(repetitions)])
            for shape, noise in shapes
        ]
        print(f"{n} | " + " | ".join(f"{cell:.3f}" for cell in cells))


def _falls(values: np.ndarray) -> bool:
    records = [{"update": i, "eval/reward": float(i), "eval/gold": v} for i, v in enumerate(values.tolist())]
    return judge_curve(records, "gold")["level"] != "ok"


def real(run: Run, repetitions: int = 200) -> None:
    """A run's base against itself: its images and the reference's, divided at random into three."""
    table = Table(run)
    base, _, again = table.compared(table.points[0])
    found = rates(lambda seed: levels(*_divided(base, again, np.random.default_rng(seed))), repetitions)
    print(f"{run.path}: {len(base.prompts)} prompts x {2 * base.images // 3} images: {dict(sorted(found.items()))}")


def _divided(a: Samples, b: Samples, random: np.random.Generator) -> list[Samples]:
    n = 2 * a.images // 3  # images of each part
    order = np.array([random.permutation(2 * a.images) for _ in a.prompts])
    parts = (order[:, start : start + n] for start in (0, n, 2 * n))
    return [_taken(a, b, part) for part in parts]


def _taken(a: Samples, b: Samples, places: np.ndarray) -> Samples:
    def take(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        both = np.concatenate([x, y], axis=1)
        return np.take_along_axis(both, places.reshape(*places.shape, *[1] * (both.ndim - 2)), axis=1)

    columns = [
        {k: take(v, y[k]) for k, v in x.items()}
        for x, y in zip((a.scores, a.labels, a.pixels), (b.scores, b.labels, b.pixels), strict=True)
    ]
    rows = [[(x + y)[i] for i in line] for x, y, line in zip(a.rows, b.rows, places.tolist(), strict=True)]
    raw = None if a.raw is None or b.raw is None else take(a.raw, b.raw)
    return Samples(a.prompts, rows, *columns, take(a.digests, b.digests), raw)


if __name__ == "__main__":
    if sys.argv[1:]:
        real(Run.load(Path(sys.argv[1])))
    else:
        logs()
        made_up()
