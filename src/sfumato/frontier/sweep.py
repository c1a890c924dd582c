"""Sample every operating point on the same prompts and seeds, score the pictures, and keep both on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from sfumato.config import BasePoint, EvaluationConfig, Recipe
from sfumato.frontier.points import OperatingPoint, applied
from sfumato.images import save_png
from sfumato.pipelines.prompts import PromptCache
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import Reward, score
from sfumato.runs import Run, append_jsonl, write_jsonl

REFERENCE = OperatingPoint("reference", "base, other seeds", "base", BasePoint())
"""Base samples from seeds that no other point uses; precision and recall are measured against them."""

Labels = Callable[[torch.Tensor], list[dict[str, str]]]


@dataclass(frozen=True)
class MicroBatch:
    """Images of one point and prompt that are sampled together."""

    prompt: str
    prompt_index: int
    seeds: list[int]


Images = set[tuple[str, str, int]]
"""Images by point, prompt and seed."""


def sweep(
    pipe: Any,
    recipe: Recipe,
    run: Run,
    points: list[OperatingPoint],
    rewards: Mapping[str, Reward],
    labels: Labels | None = None,
) -> None:
    """Sample all points (and the reference) and append to `evaluation/images.jsonl`; what is there is not done again.

    Scores are those of the 8-bit images on disk, so that a score added later agrees with them.

    Args:
        pipe: the base pipeline, with no adapter of the run loaded.
        rewards: name -> reward; their scores go into the records.
        labels: gives a dict of labels for each image, if there is a classifier.
    """
    assert recipe.evaluation is not None
    plan = missing(recipe.evaluation, run, points)
    left = sum(len(batch.seeds) for _, batches in plan for batch in batches)
    total = (len(points) + 1) * len(recipe.evaluation.prompts) * recipe.evaluation.images_per_prompt
    done = _clean_table(run)
    with PromptCache().on(pipe), tqdm(total=total, initial=total - left, desc="sampling", unit="image") as bar:
        for point, batches in plan:
            with applied(pipe, point, run) as changes:
                call = recipe.sampling.call(**changes)
                for batch in batches:
                    rows = _sample(pipe, point, batch, call, rewards, labels, run)
                    new = [row for row in rows if _image(row) not in done]
                    append_jsonl(run.evaluation / "images.jsonl", new)
                    bar.set_postfix(point=point.label, reward=f"{rows[-1]['scores']['reward']:.2f}")
                    bar.update(len(rows))


def missing(
    config: EvaluationConfig, run: Run, points: list[OperatingPoint]
) -> list[tuple[OperatingPoint, list[MicroBatch]]]:
    """What is still to be sampled, by point: the micro-batches of which an image is not in the table or not on disk."""
    done = {_image(row) for row in run.images() if (run.evaluation / row["file"]).exists()}
    plan = []
    for point in [REFERENCE, *points]:
        batches = micro_batches(config, reference=point is REFERENCE)
        left = [b for b in batches if any((point.name, b.prompt, seed) not in done for seed in b.seeds)]
        if left:
            plan.append((point, left))
    return plan


def _clean_table(run: Run) -> Images:
    """Drop the records whose image is gone; returns those that stay."""
    rows = run.images()
    kept = [row for row in rows if (run.evaluation / row["file"]).exists()]
    if len(kept) < len(rows):
        write_jsonl(run.evaluation / "images.jsonl", kept)
    return {_image(row) for row in kept}


def _image(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["point"], row["prompt"], row["seed"]


def micro_batches(config: EvaluationConfig, reference: bool = False) -> Iterator[MicroBatch]:
    """The sampling plan of one point, the same for all points; the reference's seeds follow the evaluated ones."""
    first = config.seed + (config.images_per_prompt if reference else 0)
    seeds = list(range(first, first + config.images_per_prompt))
    for index, prompt in enumerate(config.prompts):
        for start in range(0, len(seeds), config.batch_size):
            yield MicroBatch(prompt, index, seeds[start : start + config.batch_size])


def _sample(
    pipe: Any,
    point: OperatingPoint,
    batch: MicroBatch,
    call: dict[str, Any],
    rewards: Mapping[str, Reward],
    labels: Labels | None,
    run: Run,
) -> list[dict[str, Any]]:
    sampled = rollout(pipe, prompt=batch.prompt, seeds=batch.seeds, **call)
    images = (sampled.images.float() * 255).round() / 255
    prompts = [batch.prompt] * len(batch.seeds)
    with torch.no_grad():
        scores = {name: score(reward, images, prompts).tolist() for name, reward in rewards.items()}
        found = labels(images) if labels else [{} for _ in batch.seeds]
    rows = []
    for i, seed in enumerate(batch.seeds):
        file = f"images/{point.name}/{batch.prompt_index:03d}-{seed}.png"
        save_png(images[i], run.evaluation / file)
        rows.append(
            {
                "point": point.name,
                "prompt": batch.prompt,
                "seed": seed,
                "file": file,
                "scores": {name: values[i] for name, values in scores.items()},
                "labels": found[i],
                "forwards": sampled.forwards,
                "call": call,
            }
        )
    return rows
