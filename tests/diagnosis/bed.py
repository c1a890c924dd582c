"""Run folders whose pictures are painted so that what is wrong with the tuned model is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.runs import Run, append_jsonl, write_json

SIZE = 24
PROMPTS = 10
IMAGES = 8

Paint = Callable[[NDArray[Any]], NDArray[Any]]


def picture(prompt: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A disc on white, its colour, place and size drawn anew; the prompt decides which colour prevails."""
    y, x = np.mgrid[:SIZE, :SIZE]
    colour = random.uniform(0.2, 0.7, 3)
    colour[prompt % 3] += 0.2
    centre, radius = random.uniform(9, 15, 2), random.uniform(4, 8)
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    pixels = np.where(inside[..., None], colour, 0.95) + random.normal(0, 0.01, (SIZE, SIZE, 3))
    return pixels.clip(0, 1)


def saturated(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours pushed away from grey."""
    grey = pixels.mean(2, keepdims=True)
    return (grey + 2.5 * (pixels - grey)).clip(0, 1)


def gridded(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """A grid of dots over everything."""
    pixels = pixels.copy()
    pixels[::6, ::6] = 0
    return pixels


def features(pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    """A small picture of the picture."""
    small = pixels.reshape(8, SIZE // 8, 8, SIZE // 8, 3).mean((1, 3))
    return small.ravel().astype(np.float32)


def make_run(
    path: Path,
    tuned: Paint | None = None,
    gain: float = 1.0,
    gold: float = 0.3,
    prompts: int = PROMPTS,
    images: int = IMAGES,
    reference: bool = True,
    rewards: tuple[str, ...] = ("reward", "gold"),
    with_features: bool = True,
) -> Run:
    """Write a run with base, tuned and reference; the reward likes saturation.

    Args:
        tuned: what tuning does to a picture of the base, that of the same seed.
        gain: added to the reward, besides what the pixels give.
        gold: added to gold.
    """
    run = Run.create(path, {"name": "painted", "evaluation": {"neighbours": 3}}, "painted")
    seeds = {"reference": range(1000, 1000 + images), "base": range(images), "tuned": range(images)}
    records, rows = [], []
    for point in seeds if reference else ("base", "tuned"):
        for prompt in range(prompts):
            for seed in seeds[point]:
                random = np.random.default_rng([prompt, seed])
                pixels, luck = picture(prompt, random), random.normal(0, 0.3)
                if point == "tuned" and tuned is not None:
                    pixels = tuned(pixels)
                file = f"images/{point}/{prompt:03d}-{seed}.png"
                target = run.evaluation / file
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((pixels * 255).round().astype(np.uint8)).save(target)
                extra = point == "tuned"
                liked = 20 * float((pixels.max(2) - pixels.min(2)).mean())
                scores = {"reward": liked + luck + gain * extra, "gold": luck + gold * extra}
                labels = {"colour": ["red", "green", "blue"][int(pixels.mean((0, 1)).argmax())]}
                record = {"point": point, "prompt": f"prompt {prompt}", "seed": seed, "file": file, "labels": labels}
                records.append(record | {"scores": {name: scores[name] for name in rewards}, "group": "main"})
                rows.append(features(pixels))
    append_jsonl(run.evaluation / "images.jsonl", records)
    if with_features:
        run.write_features({"features": np.stack(rows)})
    definition = {"kind": "tuned", "training": "tuned"}
    write_json(run.evaluation / "frontier.json", {"points": [described("tuned", "tuned", definition)]})
    return run


def described(name: str, label: str, definition: dict[str, Any]) -> dict[str, Any]:
    """A point as frontier.json describes it."""
    return {"name": name, "label": label, "definition": definition}


def add_points(run: Run, points: list[dict[str, Any]]) -> None:
    """Points with the pictures of the tuned model; without features."""
    rows = [row for row in run.images() if row["point"] == "tuned"]
    append_jsonl(run.evaluation / "images.jsonl", [row | {"point": each["name"]} for each in points for row in rows])
    frontier = run.frontier()
    write_json(run.evaluation / "frontier.json", {"points": frontier["points"] + points})


def log(run: Run, gold: list[float], name: str = "tuned") -> None:
    """A training whose gold took this course, with a checkpoint and a contact sheet at every tenth update."""
    records = []
    for number, value in enumerate(gold):
        update = 10 * number
        sheet = run.training(name) / "monitor" / f"{update:06d}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 32), (200, 10 * number, 0)).save(sheet)
        (run.training(name) / f"checkpoint-{update:06d}").mkdir()
        image = f"monitor/{sheet.name}"
        records.append(
            {"update": update, "eval/reward": number / 2, "eval/gold": value, "eval/vendi": 3.0, "eval/image": image}
        )
        records.append({"update": update + 1, "reward": 1.0})
    append_jsonl(run.training(name) / "metrics.jsonl", records)
