"""A finished run's operating point as a guided pipeline that `sfumato.load` loads."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sfumato._version import __version__
from sfumato.bundle import FORMAT, Saved, explained, write
from sfumato.config import GuidancePoint, LoraScalePoint, PointConfig, Recipe, TunedPoint
from sfumato.frontier.points import OperatingPoint, check_trained, operating_points, weights_folder
from sfumato.runs import Run
from sfumato.trained import copy_weights, weights_in
from sfumato.values import parse_yaml


def save_run(run: Run | str | Path, point: str | Mapping[str, Any], folder: str | Path) -> Path:
    """Write an operating point of a finished run so that `sfumato.load(folder)` draws as it did.

    Args:
        run: the run, or its folder.
        point: an operating point of its recipe by name (`aig-power-2`), or a definition as in `evaluation.points`, also
            as YAML text or a YAML file, such as the `point.yaml` of `sfumato tune-schedule`.
        folder: made if it is not there; a saved pipeline in it is replaced, its README.md too.

    Raises:
        FileNotFoundError: there is no such run, or its training is not finished.
        ValueError: there is no such point, or it is the base model, of which there is nothing to save.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    recipe = Recipe.model_validate(run.recipe)
    chosen = _point(recipe, point)
    source = weights_folder(chosen, run)
    if source is None:
        raise ValueError("the point 'base' is the base model: there is nothing to save")
    check_trained([chosen], run)
    weights = weights_in(source)
    assert weights is not None
    match chosen.config:
        case LoraScalePoint(scale=scale):
            guidance: dict[str, Any] = {"schedule": "constant", "w": scale, "blend": "weights"}
        case GuidancePoint() as config:
            savings = config.savings.model_dump(exclude_defaults=True)
            guidance = config.build().to_dict() | {"blend": config.blend} | ({"savings": savings} if savings else {})
        case _:
            guidance = {"schedule": "tuned"}
    copy_weights(weights, Path(folder))
    saved = Saved(
        format=FORMAT,
        version=__version__,
        pipeline=recipe.pipeline,
        **({"denoiser": weights.name} if weights.is_dir() else {"adapters": {"tuned": weights.name}}),
        guidance=guidance if weights.is_dir() else {**guidance, "adapter": "tuned"},
    )
    return write(Path(folder), saved, _facts(run, recipe, chosen))


def _point(recipe: Recipe, point: str | Mapping[str, Any]) -> OperatingPoint:
    listed = {known.name: known for known in operating_points(recipe)} if recipe.evaluation else {}
    if isinstance(point, str) and point in listed:
        return listed[point]
    value = point
    if isinstance(point, str):
        value = parse_yaml(Path(point).read_text(encoding="utf-8") if point.endswith(".yaml") else point)
    if not isinstance(value, Mapping):
        near = difflib.get_close_matches(str(point), listed, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"the run has no operating point {point!r}: {hint}There are: {', '.join(listed) or 'none'}")
    try:
        config: PointConfig = TypeAdapter(PointConfig).validate_python(dict(value))
    except ValidationError as error:
        raise ValueError(f"{point} is no operating point: {explained(error)}") from None
    return OperatingPoint("chosen", yaml.safe_dump(dict(value), default_flow_style=True).strip(), "chosen", config)


def _facts(run: Run, recipe: Recipe, point: OperatingPoint) -> dict[str, str]:
    """What the model card says of a run, heading -> text."""
    training = recipe.trainings[getattr(point.config, "training", "tuned")]
    call = recipe.sampling.call()
    if isinstance(point.config, TunedPoint) and point.config.guidance_scale is not None:
        call["guidance_scale"] = point.config.guidance_scale
    facts = {
        "Training": f"Reward: `{json.dumps(recipe.reward)}`. Objective: `{training.objective.name}`, {training.steps} "
        f"updates on {training.batch_size} images each, {len(recipe.prompts)} prompts. Operating point: {point.label}.",
        "Sampling": f"Trained and measured with `pipe(prompt, {', '.join(f'{k}={v!r}' for k, v in call.items())})`.",
    }
    if (run.evaluation / "frontier.json").exists():
        entries = {entry["name"]: entry["metrics"] for entry in run.frontier()["points"]}
        names = [name for name in ("base", "tuned", point.name) if name in entries]
        metrics = [m for m in ("reward", "gold", "vendi", "distance", "recall") if m in entries["base"]]
        rows = [
            f"| {name} | {' | '.join(format(entries[name][m]['mean'], '.4g') for m in metrics)} |"
            for name in dict.fromkeys(names)
        ]
        facts["Measured"] = "\n".join([f"| | {' | '.join(metrics)} |", "|---|" + "---|" * len(metrics), *rows])
    return facts
