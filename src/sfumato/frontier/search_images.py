"""The images of a search: sampled, scored and remembered, one record per schedule and prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from sfumato.config import PointConfig
from sfumato.frontier.search_space import guidance
from sfumato.images import grid, save_png
from sfumato.metrics import Extractor, extract, vendi_score
from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.prompts import PromptCache
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import Reward, score
from sfumato.runs import append_jsonl, read_jsonl


class Sampler:
    """Samples, scores and remembers: one record per schedule and prompt.

    Args:
        pipe: a pipeline with the tuned adapter, or the tuned one when `base` is given.
        rewards: name -> reward; "reward" is the one of the search, others are only recorded.
        features: what diversity is measured in.
        call: further arguments of the pipeline's call.
        batch_size: images at a time.
        adapter: as for `annealed_guidance`.
        base: as for `annealed_guidance`.
        folder: where records and images are kept; None keeps the records in memory.
    """

    def __init__(
        self,
        pipe: Any,
        rewards: Mapping[str, Reward],
        features: Extractor,
        call: dict[str, Any],
        batch_size: int,
        adapter: Any = None,
        base: Any = None,
        folder: Path | None = None,
    ):
        self.pipe = pipe
        self.rewards = rewards
        self.features = features
        self.call = call
        self.batch_size = batch_size
        self.models = {"adapter": adapter, "base": base}
        self.folder = folder
        self.prompts = PromptCache()
        self.setup = _digest(
            {
                "weights": _weights(pipe, whole=base is not None),
                "pipeline": type(pipe).__name__,
                "scheduler": {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")},
                "adapter": adapter,
                "call": call,
                "rewards": {name: reward.name for name, reward in rewards.items()},
                "features": getattr(features, "fingerprint", ""),
            }
        )
        rows = read_jsonl(folder / "images.jsonl") if folder else []
        self.known = {row["key"]: row for row in rows}

    def __call__(self, config: PointConfig, prompt: str, seeds: Sequence[int]) -> dict[str, Any]:
        """The record of a schedule on a prompt: `scores` by name, one for each seed, `diversity` and `forwards`."""
        how = guidance(config)
        key = _digest([self.setup, how, prompt, list(seeds)])
        if key not in self.known:
            row = {"key": key, "schedule": how, "prompt": prompt, "seeds": list(seeds)}
            self.known[key] = row | self._sample(how, prompt, seeds, key[:16])
            if self.folder:
                append_jsonl(self.folder / "images.jsonl", [self.known[key]])
        return self.known[key]

    def _sample(self, how: dict[str, Any], prompt: str, seeds: Sequence[int], name: str) -> dict[str, Any]:
        drawn, forwards = [], []
        with self.prompts.on(self.pipe), annealed_guidance(self.pipe, **how, **self.models):
            for start in range(0, len(seeds), self.batch_size):
                batch = rollout(self.pipe, prompt=prompt, seeds=seeds[start : start + self.batch_size], **self.call)
                drawn.append(batch.images)
                forwards.append(batch.forwards)
        images = (torch.cat(drawn).float() * 255).round() / 255
        with torch.no_grad():
            prompts = [prompt] * len(seeds)
            scores = {name: score(reward, images, prompts).tolist() for name, reward in self.rewards.items()}
        found: dict[str, Any] = {
            "scores": scores,
            "diversity": vendi_score(extract(self.features, images, self.batch_size)),
        }
        found["forwards"] = fmean(forwards)
        if self.folder:
            found["file"] = f"images/{name}.png"
            save_png(grid([images]), self.folder / found["file"])
        return found


def _weights(pipe: Any, whole: bool) -> str:
    """A digest of the adapters on the denoiser, or of all its weights."""
    digest = hashlib.sha256()
    for name, parameter in denoiser(pipe).named_parameters():
        if whole or ".lora_" in name:
            digest.update(name.encode() + parameter.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
