"""A study of made-up pictures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.study import Study, create_study
from sfumato.study.config import parse_study_config

PROMPTS = ("a cat", "<script>alert(1)</script>", "三只鸟")
POINTS = ("base", "tuned", "aig", "kl")
ALL_KINDS = [
    {"kind": "pair"},
    {"kind": "best_of", "options": 3},
    {"kind": "rank", "options": 3},
    {"kind": "variety", "set_size": 4},
    {"kind": "rating"},
]


def make_pictures(folder: Path, points: tuple[str, ...] = POINTS, images: int = 4) -> dict[str, dict[str, str]]:
    """A folder for each point, with pictures in a colour of its own, as the `points` of a study."""
    for number, point in enumerate(points):
        dice = random.Random(point)
        for index in range(len(PROMPTS)):
            own = folder / point / f"prompt-{index}"
            own.mkdir(parents=True)
            for seed in range(images):
                colour = (60 * number, dice.randrange(256), dice.randrange(256))
                Image.new("RGB", (32, 32), colour).save(own / f"{seed}.png", comment=f"made by {point}")
        rows = [
            f'{{"prompt": "{prompt}", "seed": {seed}, "file": "prompt-{index}/{seed}.png"}}\n'
            for index, prompt in enumerate(PROMPTS)
            for seed in range(images)
        ]
        (folder / point / "images.jsonl").write_text("".join(rows), encoding="utf-8")
    return {point: {"folder": str(folder / point)} for point in points}


def make_study(folder: Path, **settings: Any) -> Study:
    """A study of all kinds of questions, unless settings say otherwise."""
    points = settings.pop("points", None) or make_pictures(folder / "pictures")
    values = {"name": "blind", "points": points, "questions": ALL_KINDS, "folder": str(folder / "study"), **settings}
    return create_study(parse_study_config(values, "test"))
