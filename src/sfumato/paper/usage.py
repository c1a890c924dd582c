"""How an operating point is used: on the command line, in Python, in a recipe."""

from __future__ import annotations

import shlex
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sfumato.config import BestOfPoint, GuidancePoint, PointConfig, TunedPoint
from sfumato.frontier.choice import Candidate
from sfumato.frontier.tuned_runs import TunedRun


def usage(point: Candidate, run: TunedRun) -> list[str]:
    """The lines with which the point is used."""
    sampling = run.recipe.get("sampling") or {}
    call = {key: sampling[key] for key in ("num_inference_steps", "guidance_scale") if key in sampling}
    call |= sampling.get("arguments") or {}
    try:
        config: Any = TypeAdapter(PointConfig).validate_python(point.definition)
    except ValidationError:  # of another version: shown as it was written
        return [*_exported(point, run, call), _entry(point.definition)]
    schedule = {"schedule": config.schedule} if isinstance(config, GuidancePoint) else {}
    entry = _entry({"kind": config.kind, **schedule, **config.model_dump(mode="json", exclude_defaults=True)})
    if isinstance(config, BestOfPoint):
        return [
            f"draw {config.n} images with the base model for each that you need, keep the one with most reward",
            entry,
        ]
    if isinstance(config, TunedPoint) and config.guidance_scale is not None:
        call["guidance_scale"] = config.guidance_scale
    blended = isinstance(config, GuidancePoint)
    guided = [f"{_guided(config)} ...  # a pipeline that has the LoRA loaded"] if blended else []
    return [*_exported(point, run, call), *guided, entry]


def _exported(point: Candidate, run: TunedRun, call: dict[str, Any]) -> list[str]:
    arguments = "".join(f", {key}={value!r}" for key, value in call.items())
    return [
        f"sfumato export {shlex.quote(run.path)} {shlex.quote(point.name)} --out guided",
        f'pipe = sfumato.load("guided"); pipe("a dog"{arguments})',
    ]


def _entry(definition: dict[str, Any]) -> str:
    text = yaml.safe_dump([definition], default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True)
    return f"evaluation.points: - {text.strip()[1:-1]}"


def _guided(config: GuidancePoint) -> str:
    """The line of Python that blends as the point does."""
    values = config.build().to_dict() | {"blend": config.blend}
    usual = {"cap": 1.0, "clock": "index", "blend": "predictions"}
    words = [f"{key}={value!r}" for key, value in values.items() if usual.get(key) != value]
    savings = config.savings.model_dump(exclude_defaults=True)
    return f"with sfumato.annealed_guidance(pipe, {', '.join([*words, *([f'savings={savings}'] if savings else [])])}):"
