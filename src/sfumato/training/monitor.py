"""A look at held-out prompts while training: rewards, diversity and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from sfumato.images import grid, save_png
from sfumato.metrics import Extractor, mean_pairwise_distance, vendi_score
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import Reward, score


@dataclass(frozen=True)
class Monitor:
    """Samples the same prompts and seeds every time it is called, so that its numbers differ by the model alone.

    Attributes:
        prompts: held-out prompts.
        images: images per prompt.
        call: further arguments of the pipeline's call.
        rewards: name -> reward; the one being trained on and any that is not.
        features: what diversity is measured in; not the reward's own.
        folder: contact sheets go to `folder/monitor`.
        seed: of the first image; the others count up from it.
    """

    prompts: list[str]
    images: int
    call: dict[str, Any]
    rewards: Mapping[str, Reward]
    features: Extractor
    folder: Path
    seed: int = 2_000_000

    @torch.no_grad()
    def __call__(self, pipe: Any, update: int) -> dict[str, Any]:
        """What the log gets: `eval/NAME` per reward, `eval/vendi`, `eval/distance`, `eval/image`, a path, and
        `eval/scores`, for each reward and prompt the scores of its images."""
        seeds = list(range(self.seed, self.seed + self.images))
        rows = [rollout(pipe, prompt=prompt, seeds=seeds, **self.call).images for prompt in self.prompts]
        features = [self.features(images) for images in rows]
        scores = {
            name: {
                prompt: score(reward, images, [prompt] * self.images).tolist()
                for images, prompt in zip(rows, self.prompts, strict=True)
            }
            for name, reward in self.rewards.items()
        }
        record: dict[str, Any] = {f"eval/{name}": fmean(map(fmean, found.values())) for name, found in scores.items()}
        record["eval/vendi"] = fmean(vendi_score(x) for x in features)
        record["eval/distance"] = fmean(mean_pairwise_distance(x) for x in features)
        path = self.folder / "monitor" / f"{update:06d}.png"
        save_png(grid(rows), path)
        record["eval/image"] = str(path.relative_to(self.folder))
        record["eval/scores"] = scores
        return record

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on beside the model."""
        return {
            "prompts": self.prompts,
            "images": self.images,
            "call": str(self.call),
            "features": self.features.fingerprint,
            "seed": self.seed,
        }
