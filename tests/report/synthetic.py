"""A made-up run folder: the layout and the vocabulary are real, the numbers and pictures are invented."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw

from sfumato.runs import Run, append_jsonl, write_json

# name, label, method, reward, Vendi score, forwards per image, definition
POINTS = [
    ("base", "base", "base", -3.1, 4.6, 20, {"kind": "base"}),
    ("tuned", "tuned", "tuned", 6.2, 1.35, 20, {"kind": "tuned", "training": "tuned"}),
    ("aig-power-1", "AIG power 1", "AIG", 4.9, 2.35, 38, {"kind": "guidance", "schedule": {"power": 1}}),
    ("aig-power-2", "AIG power 2", "AIG", 3.4, 3.3, 35, {"kind": "guidance", "schedule": {"power": 2}}),
    ("aig-power-4", "AIG power 4", "AIG", 0.9, 4.05, 31.5, {"kind": "guidance", "schedule": {"power": 4}}),
    ("aig-step-0.6", "AIG step 0.6", "AIG", 2.7, 3.6, 20, {"kind": "guidance", "schedule": {"step": 0.6}}),
    ("lora-0.25", "LoRA 0.25", "LoRA scale", -0.6, 4.1, 20, {"kind": "lora_scale", "scale": 0.25}),
    ("lora-0.5", "LoRA 0.5", "LoRA scale", 3.1, 3.0, 20, {"kind": "lora_scale", "scale": 0.5}),
    ("lora-0.75", "LoRA 0.75", "LoRA scale", 5.2, 1.9, 20, {"kind": "lora_scale", "scale": 0.75}),
    ("kl", "KL 0.1", "KL", 2.2, 3.05, 20, {"kind": "tuned", "training": "kl"}),
    (
        "tuned-40",
        "Update 40",
        "early checkpoint",
        1.6,
        3.5,
        20,
        {"kind": "tuned", "training": "tuned", "checkpoint": 40},
    ),
    ("cfg-2", "tuned, CFG 2", "guidance scale", 4.7, 1.75, 20, {"kind": "tuned", "guidance_scale": 2.0}),
    ("annealed-0.5", "Weights 0.5 u", "annealed weights", 1.9, 3.7, 20, {"kind": "weights", "cap": 0.5}),
]
METHODS = ("AIG", "LoRA scale", "KL", "early checkpoint", "guidance scale", "annealed weights")
STYLES = ("noto", "twemoji", "fluent")
UNRELATED = ("a letter",)
DIMENSIONS = 16
RECIPE = {
    "name": "demo",
    "description": "emoji-64 tuned with DRaFT-1 on a learned preference for the house style",
    "pipeline": {"path": "emoji64"},
    "reward": {"name": "preference", "model": "emoji64"},
    "training": {"steps": 120, "lr": 1e-3},
}

Draw = Callable[[str, str, int], tuple[Image.Image, str]]


def blob(point: str, prompt: str, seed: int) -> tuple[Image.Image, str]:
    """A picture whose colour follows the seed under the base model and hardly under the tuned one, and its style."""
    spread = _spread(point)
    dice = random.Random(f"{prompt} {seed}")
    image = Image.new("RGB", (64, 64), "white")
    colour = tuple(int(230 * spread * dice.random() + (1 - spread) * level) for level in (240, 140, 40))
    ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=colour)
    return image, STYLES[dice.randrange(3)] if spread > 0.5 else "fluent"


def _spread(point: str) -> float:
    """What is left of the base's variety, by the point's Vendi score; all of it for a point that is not known."""
    return next((vendi / 4.6 for name, *_, vendi, _, _ in POINTS if name == point), 1.0)


def make_run(
    path: Path,
    prompts: list[str],
    seeds: list[int],
    draw: Draw = blob,
    points: list[tuple] = POINTS,
    sheet: bool = True,
) -> Run:
    """Write a run with two trainings and an evaluation of `points` on `prompts` x `seeds`."""
    run = Run.create(path, RECIPE, "demo")
    for name, pace in (("tuned", 1.0), ("kl", 0.45)):
        _training(run, name, pace, sheet)
    _images(run, prompts, seeds, draw, points)
    write_json(run.evaluation / "frontier.json", frontier(prompts, len(seeds), points))
    return run


def add_diagnosis(run: Run) -> dict[str, Any]:
    """Write a diagnosis with one picture as evidence, and one that is missing."""
    folder = run.evaluation / "diagnosis"
    folder.mkdir(parents=True)
    Image.new("RGB", (320, 80), (200, 120, 40)).save(folder / "duplicates.png")
    evidence = [
        {"file": f"evaluation/diagnosis/{name}.png", "caption": f"{name}: base above, tuned below"}
        for name in ("duplicates", "missing")
    ]
    findings = [
        {
            "name": "duplicates",
            "level": "alarm",
            "title": "The same picture again and again",
            "text": "41 % of the tuned images have a near-duplicate, 3 % of the base's.",
            "numbers": {"share": 0.41, "base": 0.03},
            "evidence": evidence,
        },
        {"name": "gold", "level": "ok", "title": "Gold", "text": "Gold rose.", "numbers": {}, "evidence": []},
    ]
    found = {"verdict": "hacked", "sentences": ["The model exploits its reward."], "findings": findings}
    write_json(run.evaluation / "diagnosis.json", found)
    return found


def _training(run: Run, name: str, pace: float, sheet: bool) -> None:
    dice, records = random.Random(name), []
    for update in range(1, 121):
        done = update / 120 * pace
        record: dict[str, Any] = {
            "update": update,
            "loss": 3 - 9 * done + dice.gauss(0, 0.5),
            "reward": -3 + 9.5 * done**0.7 + dice.gauss(0, 0.5),
            "reward_std": 2.0 - done,
            "kl": 0.4 * done**2,
            "grad_norm": 1 + dice.random(),
            "lr": 1e-3,
            "seconds": 2.4,
        }
        if update % 10 == 0:
            record |= {
                "eval/reward": -3 + 9.2 * done**0.7 + dice.gauss(0, 0.15),
                "eval/gold": 0.15 + 1.7 * done * (1 - done) + dice.gauss(0, 0.015),
                "eval/vendi": 4.6 - 3.2 * done**1.3 + dice.gauss(0, 0.06),
                "eval/distance": 0.8 - 0.5 * done**1.3,
            }
        if sheet and update % 40 == 0:
            record["eval/image"] = f"samples/{update:06d}.png"
            file = run.training(name) / record["eval/image"]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (256, 64), (int(255 * done), 120, 90)).save(file)
        records.append(record)
    append_jsonl(run.training(name) / "metrics.jsonl", records)


def _images(run: Run, prompts: list[str], seeds: list[int], draw: Draw, points: list[tuple]) -> None:
    records = []
    groups = [*((prompt, "main") for prompt in prompts), *((prompt, "unrelated") for prompt in UNRELATED)]
    for name, _, _, reward, *_ in [("reference", "", "base", -3.1), *points]:
        for number, (prompt, group) in enumerate(groups):
            for seed in seeds if name != "reference" else [seeds[0] + 10_000]:
                file = f"images/{name}/{number:03d}-{seed}.png"
                target = run.evaluation / file
                target.parent.mkdir(parents=True, exist_ok=True)
                image, style = draw(name, prompt, seed)
                image.save(target)
                records.append(
                    {
                        "point": name,
                        "prompt": prompt,
                        "seed": seed,
                        "file": file,
                        "group": group,
                        "scores": {"reward": reward + math.sin(seed), "gold": 0.4},
                        "labels": {"style": style, "subcategory": "fruit"},
                        "forwards": 20.0,
                        "call": {"num_inference_steps": 20, "guidance_scale": 4.0},
                    }
                )
    append_jsonl(run.evaluation / "images.jsonl", records)
    run.write_features({"features": features(records)})


def features(records: list[dict[str, Any]]) -> np.ndarray:
    """A direction per prompt, and around it a spread that collapses as the pictures do, (N, DIMENSIONS) float32."""
    centres = {
        record["prompt"]: np.random.default_rng(crc32(record["prompt"].encode())).normal(size=DIMENSIONS)
        for record in records
    }
    rows = [
        centres[r["prompt"]]
        + 0.8
        * _spread(r["point"])
        * np.random.default_rng(crc32(f"{r['prompt']} {r['seed']}".encode())).normal(size=DIMENSIONS)
        for r in records
    ]
    return np.array(rows, dtype=np.float32)


def frontier(prompts: list[str], images_per_prompt: int, points: list[tuple] = POINTS) -> dict[str, Any]:
    """The contents of a frontier.json."""
    tuned = next(point for point in points if point[2] == "tuned")
    front = [p for p in points if not any(q[3] >= p[3] and q[4] >= p[4] and q[:1] != p[:1] for q in points)]
    return {
        "axes": {"reward": "reward", "diversity": "vendi"},
        "scale": {"reward": [-3.1, 6.2], "diversity": [1.35, 4.6]},
        "reference_point": [-0.1, -0.1],
        "warnings": [],
        "ceiling": {"recall": 0.83, "precision": 0.86, "density": 0.97, "coverage": 0.9},
        "prompts": prompts,
        "images_per_prompt": images_per_prompt,
        "points": [_point(point, tuned, len(prompts), point in front) for point in points],
        "methods": [
            {
                "name": method,
                "points": ["base", *(p[0] for p in points if p[2] == method), "tuned"],
                "points_differ": method == "KL",
                "hypervolume": _interval(0.74 - 0.05 * index, 0.05),
                "distribution": [0.74 - 0.05 * index + 0.05 * (i - 20) / 20 for i in range(41)],
            }
            for index, method in enumerate(METHODS)
            if any(point[2] == method for point in points)
        ],
        "comparisons": [
            {"a": a, "b": b, "probability": min(0.99, 0.6 + 0.09 * (METHODS.index(b) - index))}
            for index, a in enumerate(METHODS)
            for b in METHODS[index + 1 :]
        ],
        "differences": _differences(points),
        "equal_compute": [_equal_compute(points, budget) for budget in sorted({point[5] for point in points})],
        "small_n": _small_n(points, images_per_prompt),
    }


def _differences(points: list[tuple]) -> list[dict[str, Any]]:
    """Every pair once, on both axes."""
    rows = []
    for i, a in enumerate(points):
        for b in points[i + 1 :]:
            for metric, column, half in (("reward", 3, 0.7), ("vendi", 4, 0.4)):
                mean = a[column] - b[column]
                p = math.exp(-3 * abs(mean) / half)
                rows.append(
                    {"a": a[0], "b": b[0], "metric": metric, "mean": mean, "low": mean - half, "high": mean + half}
                )
                rows[-1] |= {"p": p / 10, "p_adjusted": p}
    return rows


def _equal_compute(points: list[tuple], budget: float) -> dict[str, Any]:
    within = [point for point in points if point[5] <= budget]
    front = [p[0] for p in within if not any(q[3] >= p[3] and q[4] >= p[4] and q is not p for q in within)]
    methods = [
        {"name": method, "hypervolume": _interval(0.5 + 0.03 * len(own), 0.05), "points": ["base", *own, "tuned"]}
        for method in METHODS
        if (own := [point[0] for point in within if point[2] == method])
    ]
    return {"budget": budget, "points": [point[0] for point in within], "front": front, "methods": methods}


def _small_n(points: list[tuple], images: int) -> dict[str, Any]:
    counts = sorted({max(2, images // 4), max(2, images // 2), images})
    curves = {
        p[0]: {"vendi": [p[4] * n / (n + 1) for n in counts], "recall": [0.2 * p[4] for _ in counts]} for p in points
    }
    warning = f"with {images} images per prompt the base's Vendi score is still rising: its loss is understated"
    return {
        "images": counts,
        "curves": curves,
        "extrapolated": {p[0]: {"vendi": p[4] * 1.02} for p in points},
        "warnings": [warning],
    }


def _interval(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + 1.1 * half}


def _point(point: tuple, tuned: tuple, prompts: int, nondominated: bool) -> dict[str, Any]:
    name, label, method, reward, vendi, forwards, definition = point
    done = (reward + 3.1) / 9.3
    dice = random.Random(name)
    metrics = {
        "reward": _interval(reward, 0.45),
        "gold": _interval(0.15 + 1.5 * done * (1 - done) + 0.1 * done, 0.04),
        "vendi": _interval(vendi, 0.22),
        "distance": _interval(0.16 * vendi, 0.03),
        "precision": _interval(0.85 - 0.3 * done, 0.03),
        "recall": _interval(0.2 * vendi - 0.12, 0.04),
        "style_entropy": _interval(max(0.02, 0.33 * (vendi - 1.3)), 0.05),
        "subcategory_entropy": _interval(0.4 * (vendi - 1), 0.06),
        "vendi_corrected": _interval(1.1 * vendi, 0.25),
        "density": _interval(0.9 + 0.2 * done, 0.05),
        "coverage": _interval(0.18 * vendi, 0.04),
        "spectral": _interval(0.2 * (4.7 - vendi), 0.03),
        "style_coverage": _interval(0.2 * vendi, 0.05),
        "vendi_clip": _interval(0.5 + 0.5 * vendi, 0.1),
        "distance_clip": _interval(0.05 * vendi, 0.01),
    }
    return {
        "name": name,
        "label": label,
        "method": method,
        "definition": definition,
        "forwards": forwards,
        "nondominated": nondominated,
        "metrics": metrics,
        "per_prompt": {
            key: [value["mean"] * (1 + dice.gauss(0, 0.12)) for _ in range(prompts)] for key, value in metrics.items()
        },
        "pooled": {
            "vendi": 5 * vendi,
            "recall": 0.15 * vendi,
            "precision": 0.9,
            "fid": 40 * done,
            "kid": 0.01 * done,
            "n": 60,
        },
        "drift": {
            "distance_to_base": _interval(0.3 * done, 0.02),
            "reward": _interval(2 * done, 0.3),
            "gold": _interval(-0.2 * done, 0.03),
        },
        "versus_tuned": {"vendi": _interval(vendi - tuned[4], 0.2), "reward": _interval(reward - tuned[3], 0.3)},
    }
