"""`points.json`: with which weights, on which pipeline and machine the pictures of a sweep were made.

Together with its row in `images.jsonl` and its micro-batch this is the exact call behind every picture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from sfumato.config import Recipe
from sfumato.frontier.plan import REFERENCE
from sfumato.frontier.points import OperatingPoint, weights_folder
from sfumato.runs import Run, read_json, versions, write_json
from sfumato.trained import weights_hash, weights_in

REASONS = {"lora": "new weights", "definition": "new definition"}


class Provenance:
    """What `points.json` says and should say.

    Args:
        run: the run.
        recipe: its recipe.
        points: the operating points.
    """

    def __init__(self, run: Run, recipe: Recipe, points: Sequence[OperatingPoint]):
        self.path = run.evaluation / "points.json"
        self.recipe = recipe
        self.known: dict[str, Any] = read_json(self.path) if self.path.exists() else {"points": {}, "environments": []}
        self.points = {point.name: _describe(point, run) for point in [REFERENCE, *points]}

    def stale(self) -> dict[str, str]:
        """Points whose weights or definition are not those that their pictures were made with, and which of them."""
        known = {name: entry for name, entry in self.known["points"].items() if name in self.points}
        changed = {
            name: [key for key in ("lora", "definition") if entry[key] != self.points[name][key]]
            for name, entry in known.items()
        }
        return {name: REASONS[keys[0]] for name, keys in changed.items() if keys}

    def write(self, pipe: Any) -> None:
        """Write it, with the environment that now samples if it is another one than before; says so then."""
        environment = self.environment(pipe)
        environments = self.known["environments"]
        if environment not in environments:
            if environments:
                changed = sorted(key for key in environment if environment[key] != environments[-1].get(key))
                print(
                    f"warning: this sweep was begun in another environment (different: {', '.join(changed)}); the rest "
                    "may differ from it in single bits. To have all from one, delete the evaluation folder first.",
                    file=sys.stderr,
                )
            environments = [*environments, environment]
        points = self.known["points"] | self.points
        write_json(self.path, {"points": points, "environments": environments})

    def environment(self, pipe: Any) -> dict[str, Any]:
        """What pictures depend on beside their point and its call."""
        config = pipe.scheduler.config
        environment = {
            "pipeline": self.recipe.pipeline.model_dump(mode="json") | {"class": type(pipe).__name__},
            "scheduler": {"class": type(pipe.scheduler).__name__, **{k: config[k] for k in config if k[:1] != "_"}},
            "device": pipe.device.type,
            "threads": torch.get_num_threads() if pipe.device.type == "cpu" else None,
            "versions": versions(),
        }
        return json.loads(json.dumps(environment, default=str))  # as it will be read back


def threads_before(run: Run) -> int | None:
    """On how many threads of a CPU the sweep was begun: sums differ in their last bits with another number."""
    path = run.evaluation / "points.json"
    environments = read_json(path)["environments"] if path.exists() else []
    return environments[0]["threads"] if environments else None


def _describe(point: OperatingPoint, run: Run) -> dict[str, Any]:
    folder = weights_folder(point, run)
    weights = weights_in(folder) if folder else None
    return {
        "label": point.label,
        "method": point.method,
        "definition": point.config.model_dump(mode="json", exclude_none=True),
        "lora": weights_hash(weights) if weights else None,
    }
