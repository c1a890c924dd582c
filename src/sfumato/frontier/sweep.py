"""Sample every operating point on the same prompts and seeds, score the pictures, and keep both on disk.

All processes of an `accelerate launch` or torchrun take part. What is on disk and sound is never done again: a sweep
that was killed, lost pictures or got new points or rewards does what is missing, and its table is the same byte for
byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from sfumato.config import BestOfPoint, Recipe
from sfumato.frontier.draws import Drawn, Draws, draw
from sfumato.frontier.features import batch_features, cache_of
from sfumato.frontier.plan import REFERENCE, MicroBatch, plan, to_sample, to_score
from sfumato.frontier.points import OperatingPoint, applied, weights_folder
from sfumato.frontier.provenance import Provenance
from sfumato.frontier.table import drop_lost, file_hash, merge, rows_of, why_lost
from sfumato.images import load_image, save_png
from sfumato.metrics import Extractor, mean_pairwise_distance
from sfumato.pipelines.load import process_state
from sfumato.pipelines.prompts import PromptCache
from sfumato.rewards import Reward, RewardError, score
from sfumato.runs import Run, append_jsonl, atomic_path

Labels = Callable[[torch.Tensor], list[dict[str, str]]]
CANDIDATE = 10_000_000
"""Candidate k of best-of-n has k times this added to the image's seed, so that a larger n extends a smaller one."""


@dataclass(frozen=True)
class Instruments:
    """What looks at the pictures of a sweep.

    Attributes:
        rewards: name -> reward; "reward" is the one that was tuned on.
        features: in which diversity is measured.
        labels: gives a dict of labels for each image (B,3,H,W), if there is a classifier.
    """

    rewards: Mapping[str, Reward]
    features: Extractor
    labels: Labels | None = None


@dataclass
class Sweep:
    """One process's share of a sweep.

    Attributes:
        run: where pictures and rows go.
        recipe: with an evaluation.
        points: what is sampled.
        instruments: what looks at the pictures.
    """

    run: Run
    recipe: Recipe
    points: Sequence[OperatingPoint]
    instruments: Instruments
    state: PartialState = field(default_factory=process_state)

    def __post_init__(self) -> None:
        assert self.recipe.evaluation is not None
        self.batches = plan(self.recipe.evaluation, self.points)
        self.cache = cache_of(self.run)

    def prepare(self) -> list[tuple[MicroBatch, str]]:
        """Check what is on disk, and say which micro-batches are still to be sampled and why; for all processes."""
        provenance = Provenance(self.run, self.recipe, self.points)
        if self.state.is_main_process:
            drop_lost(self.run, self.batches, provenance.stale())
        self.state.wait_for_everyone()
        left, lost = to_sample(self.batches, rows_of(self.run)), why_lost(self.run)
        self.state.wait_for_everyone()
        return [(batch, next((lost[file] for file in batch.files if file in lost), "new")) for batch in left]

    def sample(self, pipe: Any, left: Sequence[tuple[MicroBatch, str]]) -> None:
        """Sample this process's share of the micro-batches.

        Args:
            pipe: the base pipeline, with no adapter of the run loaded.
            left: of `prepare`, on every process.
        """
        provenance = Provenance(self.run, self.recipe, self.points)
        if self.state.is_main_process:
            provenance.write(pipe)
        self.state.wait_for_everyone()
        draws = Draws(self.run, self.points, provenance.environment(pipe))
        own = left[self.state.process_index :: self.state.num_processes]
        by_name = {point.name: point for point in [REFERENCE, *self.points]}
        total = sum(len(batch.seeds) for batch, _ in own)
        with PromptCache().on(pipe), self._bar(total, "sampling") as bar:
            for name, group in groupby(own, key=lambda each: each[0].point):
                point = by_name[name]
                with applied(pipe, point, self.run) as changes:
                    call = self.recipe.sampling.call(**changes)
                    for batch, why in group:
                        self._sample(pipe, point, batch, call, why, draws, bar)
        self.finish()

    def score_missing(self) -> None:
        """Score, from the pictures on disk, what rewards that were added later have not seen."""
        rows = rows_of(self.run)
        left = to_score(self.batches, rows, self.instruments.rewards)
        self.state.wait_for_everyone()
        if not left:
            return
        own = left[self.state.process_index :: self.state.num_processes]
        with self._bar(sum(len(batch.seeds) for batch in own), "scoring") as bar:
            for batch in own:
                images = torch.stack([load_image(self.run.evaluation / file) for file in batch.files])
                found = [rows[image] for image in batch.images]
                known = set.intersection(*(set(row["scores"]) for row in found))
                scores = self._scores(images, batch.prompt, known)
                new = [
                    row | {"scores": row["scores"] | {name: values[i] for name, values in scores.items()}}
                    for i, row in enumerate(found)
                ]
                append_jsonl(self._part("rows"), new)
                bar.update(len(new))
        self.finish()

    def finish(self) -> None:
        """Wait for all processes and bring their rows together."""
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            merge(self.run, self.batches)
        self.state.wait_for_everyone()

    def _bar(self, total: int, what: str) -> tqdm:
        shares = f" (1 of {self.state.num_processes} shares)" if self.state.num_processes > 1 else ""
        return tqdm(total=total, desc=what + shares, unit="image", disable=not self.state.is_main_process)

    def _part(self, kind: str) -> Any:
        return self.run.evaluation / f"{kind}-{self.state.process_index}.jsonl"

    def _sample(
        self,
        pipe: Any,
        point: OperatingPoint,
        batch: MicroBatch,
        call: dict[str, Any],
        why: str,
        draws: Draws,
        bar: tqdm,
    ) -> None:
        """Sample a micro-batch; write the pictures, their rows, and a line of the log."""
        start = time.monotonic()
        drawn, extra = self._draw(pipe, point, batch, call, draws)
        scores = self._scores(drawn.images, batch.prompt)
        labels = self.instruments.labels(drawn.images) if self.instruments.labels else [{} for _ in batch.seeds]
        rows = []
        for i, (seed, file) in enumerate(zip(batch.seeds, batch.files, strict=True)):
            path = self.run.evaluation / file
            with atomic_path(path) as temporary:
                save_png(drawn.images[i], temporary)
            row = {"point": batch.point, "prompt": batch.prompt, "seed": seed, "file": file, "sha256": file_hash(path)}
            row |= {"group": batch.group, "scores": {name: values[i] for name, values in scores.items()}}
            rows.append(row | {"labels": labels[i], "forwards": drawn.forwards, "call": call} | extra[i])
        append_jsonl(self._part("rows"), rows)
        record = {"time": datetime.now(UTC).isoformat(), "process": self.state.process_index, "point": batch.point}
        record |= {"prompt": batch.prompt, "seeds": list(batch.seeds), "why": why}
        append_jsonl(self._part("log"), [record | {"seconds": round(time.monotonic() - start, 3)}])
        reward = f"{sum(scores['reward']) / len(rows):.2f}"
        bar.set_postfix(point=point.label, reward=reward, distance=self._distance(drawn.images))
        bar.update(len(rows))

    def _draw(
        self, pipe: Any, point: OperatingPoint, batch: MicroBatch, call: dict[str, Any], draws: Draws
    ) -> tuple[Drawn, list[dict[str, Any]]]:
        """A micro-batch's pictures, and what else the row of each says: which candidate was the best of n."""
        plain: list[dict[str, Any]] = [{} for _ in batch.seeds]
        if weights_folder(point, self.run) is not None:
            return draw(pipe, batch.prompt, batch.seeds, call), plain
        n = point.config.n if isinstance(point.config, BestOfPoint) else 1
        candidates = [
            draws.draw(pipe, batch.prompt, [seed + k * CANDIDATE for seed in batch.seeds], call) for k in range(n)
        ]
        if n == 1:
            return candidates[0], plain
        prompts, reward = [batch.prompt] * len(batch.seeds), self.instruments.rewards["reward"]
        with torch.no_grad():
            scores = torch.stack([score(reward, each.images, prompts) for each in candidates])
        best = scores.argmax(dim=0).tolist()
        images = torch.stack([candidates[k].images[i] for i, k in enumerate(best)])
        return Drawn(images, sum(each.forwards for each in candidates)), [{"candidate": k} for k in best]

    def _scores(self, images: torch.Tensor, prompt: str, known: Collection[str] = ()) -> dict[str, list[float]]:
        """Scores by each reward that is not known yet."""
        prompts = [prompt] * len(images)
        asked = {name: reward for name, reward in self.instruments.rewards.items() if name not in known}
        found = {}
        for name, reward in asked.items():
            try:
                with torch.no_grad():
                    found[name] = score(reward, images, prompts).tolist()
            except RewardError as error:
                raise RewardError(f"{name}: {error}") from error
        return found

    def _distance(self, images: torch.Tensor) -> str:
        """How far apart the images are; their features are kept for the measurements."""
        found = batch_features(self.instruments.features, images, self.cache)
        return f"{mean_pairwise_distance(found):.3f}" if len(found) > 1 else ""
