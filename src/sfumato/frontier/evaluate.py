"""From the sampled images of a run to `frontier.json`."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

import torch

from sfumato.config import EvaluationConfig, Recipe
from sfumato.frontier.compare import summarise
from sfumato.frontier.points import OperatingPoint
from sfumato.frontier.sweep import REFERENCE
from sfumato.images import load_image
from sfumato.metrics import (
    Extractor,
    FeatureCache,
    entropy,
    extract,
    mean_pairwise_distance,
    precision,
    recall,
    vendi_score,
)
from sfumato.runs import Run, write_json

Rows = list[dict[str, Any]]


def measure(run: Run, recipe: Recipe, points: list[OperatingPoint], extractor: Extractor) -> dict[str, Any]:
    """Compute every metric of every point from `evaluation/images.jsonl`, and write `evaluation/frontier.json`.

    Per prompt: mean of each score, Vendi score and mean pairwise distance of the features, precision and recall against
    base samples of the same prompt from disjoint seeds, entropy of each label. See docs/metrics.md.

    Args:
        extractor: features that the reward does not use.
    """
    config = recipe.evaluation
    assert config is not None
    rows = _by_point_and_prompt(run.images())
    cache = FeatureCache(run.evaluation / "features")

    def features(point: str, prompt: str) -> torch.Tensor:
        images = (load_image(run.evaluation / row["file"]) for row in rows[point][prompt])
        return extract(extractor, images, batch_size=config.batch_size, cache=cache)

    reference = {prompt: features(REFERENCE.name, prompt) for prompt in config.prompts}
    per_prompt: dict[str, dict[str, list[float]]] = {}
    for point in points:
        values: dict[str, list[float]] = defaultdict(list)
        for prompt in config.prompts:
            found = features(point.name, prompt)
            for name, value in _metrics(rows[point.name][prompt], found, reference[prompt], config).items():
                values[name].append(value)
        per_prompt[point.name] = dict(values)
    result = summarise(per_prompt, _methods(points), diversity=config.diversity)
    result |= {"prompts": config.prompts, "images_per_prompt": config.images_per_prompt}
    own = {point.name: point for point in points}
    for entry in result["points"]:
        point = own[entry["name"]]
        taken = [row["forwards"] for prompt_rows in rows[point.name].values() for row in prompt_rows]
        entry |= {
            "label": point.label,
            "method": point.method,
            "definition": point.config.model_dump(mode="json", exclude_none=True),
            "forwards": fmean(taken),
        }
    base = next(entry for entry in result["points"] if entry["name"] == "base")
    result["ceiling"] = {name: base["metrics"][name]["mean"] for name in ("precision", "recall")}
    write_json(run.evaluation / "frontier.json", result)
    return result


def _metrics(rows: Rows, found: torch.Tensor, reference: torch.Tensor, config: EvaluationConfig) -> dict[str, float]:
    """Every metric of one point and prompt."""
    values = {name: fmean(row["scores"][name] for row in rows) for name in rows[0]["scores"]}
    values["vendi"] = vendi_score(found)
    values["distance"] = mean_pairwise_distance(found)
    values["precision"] = precision(reference, found, k=config.neighbours)
    values["recall"] = recall(reference, found, k=config.neighbours)
    for name in rows[0]["labels"]:
        values[f"{name}_entropy"] = entropy([row["labels"][name] for row in rows])
    return values


def _by_point_and_prompt(rows: Rows) -> dict[str, dict[str, Rows]]:
    found: dict[str, dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["point"]][row["prompt"]].append(row)
    return found


def _methods(points: list[OperatingPoint]) -> dict[str, list[str]]:
    """Each method's points between base and tuned."""
    methods: dict[str, list[str]] = defaultdict(list)
    for point in points:
        if point.name not in ("base", "tuned"):
            methods[point.method].append(point.name)
    return {name: ["base", *own, "tuned"] for name, own in methods.items()}
