"""From the sampled images of a run to `features.safetensors` and `frontier.json`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from sfumato.config import EvaluationConfig, Recipe
from sfumato.frontier import measures
from sfumato.frontier.compare import summarise
from sfumato.frontier.drift import drift
from sfumato.frontier.features import table_features
from sfumato.frontier.measured import read_measured
from sfumato.frontier.plan import REFERENCE, plan
from sfumato.frontier.points import OperatingPoint
from sfumato.frontier.small_n import small_n
from sfumato.metrics import Extractor
from sfumato.runs import Run, write_json

CEILING = ("precision", "recall", "density", "coverage")
ENDS = ("base", "tuned")
FEWEST = 4
FEW = "{} images per prompt are too few to see what more would do to recall and Vendi score: compare points only."


def measure(
    run: Run, recipe: Recipe, points: list[OperatingPoint], extractors: Mapping[str, Extractor]
) -> dict[str, Any]:
    """Compute every figure of every point from `evaluation/images.jsonl`, and write `evaluation/frontier.json`.

    See `sfumato.frontier.measures` and docs/metrics.md for what is measured.

    Args:
        extractors: by name; "features" are those that the reward does not use and that all measures look at.
    """
    config = recipe.evaluation
    assert config is not None
    pictures = Pictures(run, table_features(run, plan(config, points), extractors), extractors)
    per_prompt = {point.name: _per_prompt(pictures, point.name, config) for point in _progress(points)}
    forwards = {point.name: pictures.forwards(point.name) for point in points}
    result = summarise(per_prompt, _methods(points), diversity=config.diversity, forwards=forwards)
    result |= {"prompts": config.prompts, "images_per_prompt": config.images_per_prompt}
    own = {point.name: point for point in points}
    for entry in result["points"]:
        point = own[entry["name"]]
        entry |= {
            "label": point.label,
            "method": point.method,
            "definition": point.config.model_dump(mode="json", exclude_none=True),
            "forwards": forwards[point.name],
            "pooled": _pooled(pictures, point.name, config),
            "drift": _drift(pictures, point.name, config.unrelated or []),
        }
    base = next(entry for entry in result["points"] if entry["name"] == "base")
    result["ceiling"] = {name: base["metrics"][name]["mean"] for name in CEILING}
    result["small_n"] = _small_n(run, config)
    write_json(run.evaluation / "frontier.json", result)
    return result


class Pictures:
    """The rows of a run's pictures with their features, by point and prompt.

    Args:
        run: with an evaluation that is fully sampled.
        features: (N, D) by the extractor's name, in the order of the run's table.
        extractors: by the same names.
    """

    def __init__(self, run: Run, features: Mapping[str, torch.Tensor], extractors: Mapping[str, Extractor]):
        self.rows = run.images()
        self.scores = [name for name in self.rows[0]["scores"] if all(name in row["scores"] for row in self.rows)]
        self.all_features = features
        self.distances = {name: extractor.distance for name, extractor in extractors.items()}
        self.cells: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, row in enumerate(self.rows):
            self.cells[row["point"], row["prompt"]].append(i)

    def of(self, point: str, prompt: str) -> list[dict[str, Any]]:
        """The rows of a point's images for a prompt, by seed."""
        return [self.rows[i] for i in self.cells[point, prompt]]

    def features(self, point: str, prompt: str) -> dict[str, torch.Tensor]:
        """Their features (n, D) by the extractor's name."""
        return {name: values[self.cells[point, prompt]] for name, values in self.all_features.items()}

    def forwards(self, point: str) -> float:
        """Denoiser forwards per image."""
        return fmean(row["forwards"] for row in self.rows if row["point"] == point)


def _per_prompt(pictures: Pictures, point: str, config: EvaluationConfig) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for prompt in config.prompts:
        reference = pictures.features(REFERENCE.name, prompt)["features"]
        reference_rows = pictures.of(REFERENCE.name, prompt)
        found = pictures.features(point, prompt)
        cell = measures.Cell(pictures.of(point, prompt), pictures.scores, found, pictures.distances)
        for name, value in measures.per_prompt(cell, reference_rows, reference, config.neighbours).items():
            values[name].append(value)
    return dict(values)


def _pooled(pictures: Pictures, point: str, config: EvaluationConfig) -> dict[str, float]:
    found, reference = (
        torch.cat([pictures.features(name, prompt)["features"] for prompt in config.prompts])
        for name in (point, REFERENCE.name)
    )
    return measures.pooled(found, reference, config.neighbours) | {"images": len(found)}


def _drift(pictures: Pictures, point: str, prompts: Sequence[str]) -> dict[str, dict[str, float]]:
    """How far a point is from the base on unrelated prompts; nothing where the recipe has none."""
    if not prompts:
        return {}
    own, base = (_unrelated(pictures, name, prompts) for name in (point, "base"))
    return drift(own.features, base.features, own.scores, base.scores, own.prompts)


class _Unrelated(NamedTuple):
    features: torch.Tensor
    scores: dict[str, list[float]]
    prompts: list[str]


def _unrelated(pictures: Pictures, point: str, prompts: Sequence[str]) -> _Unrelated:
    features = torch.cat([pictures.features(point, prompt)["features"] for prompt in prompts])
    rows = [row for prompt in prompts for row in pictures.of(point, prompt)]
    scores = {name: [row["scores"][name] for row in rows] for name in pictures.scores}
    return _Unrelated(features, scores, [row["prompt"] for row in rows])


def _small_n(run: Run, config: EvaluationConfig) -> dict[str, Any]:
    """What fewer images would have said of base and tuned, as far as there are enough to tell."""
    least = max(FEWEST, config.neighbours + 1)
    if config.images_per_prompt < least:
        return {"images": [], "curves": {}, "extrapolated": {}, "warnings": [FEW.format(config.images_per_prompt)]}
    labels = run.images()[0]["labels"]
    read = {
        metric: read_measured(run, metric, ENDS)
        for metric in ("vendi", "recall", "coverage", *(f"{label}_entropy" for label in labels))
    }
    samples = {point: {metric: each.samples[point] for metric, each in read.items()} for point in ENDS}
    return small_n({metric: each.measure for metric, each in read.items()}, samples, least=least)


def _methods(points: list[OperatingPoint]) -> dict[str, list[str]]:
    """Each method's points between base and tuned."""
    methods: dict[str, list[str]] = defaultdict(list)
    for point in points:
        if point.name not in ENDS:
            methods[point.method].append(point.name)
    return {name: ["base", *own, "tuned"] for name, own in methods.items()}


def _progress(points: list[OperatingPoint]) -> Iterator[OperatingPoint]:
    return iter(tqdm(points, desc="measuring", unit="point", leave=False, delay=2))
