"""Operating points: the ways to sample from one tuned model that a frontier is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.config import BestOfPoint, GuidancePoint, LoraScalePoint, PointConfig, Recipe, TunedPoint
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.trained import tuned
from sfumato.runs import Run
from sfumato.trained import weights_in


@dataclass(frozen=True)
class OperatingPoint:
    """One way to sample.

    Attributes:
        name: unique, fit for a file name.
        label: for people.
        method: what family of points it belongs to; a method's points together make its frontier.
        config: what it is.
    """

    name: str
    label: str
    method: str
    config: PointConfig


def operating_points(recipe: Recipe) -> list[OperatingPoint]:
    """The recipe's operating points, in its order.

    Raises:
        ValueError: two are the same, or base or tuned is missing.
    """
    assert recipe.evaluation is not None
    points = [_describe(config, recipe) for config in recipe.evaluation.points]
    names = [point.name for point in points]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"operating points are listed twice: {', '.join(twice)}")
    for needed in ("base", "tuned"):
        if needed not in names:
            raise ValueError(f"evaluation.points needs the {needed} model: add {{kind: {needed}}}")
    return points


def _describe(config: PointConfig, recipe: Recipe) -> OperatingPoint:
    match config:
        case LoraScalePoint(scale=scale) if recipe.training.lora is None:
            return OperatingPoint(f"wise-ft-{scale:g}", f"WiSE-FT {scale:g}", "WiSE-FT", config)
        case LoraScalePoint(scale=scale):
            return OperatingPoint(f"lora-{scale:g}", f"LoRA {scale:g}", "LoRA scale", config)
        case GuidancePoint():
            return _describe_guidance(config)
        case TunedPoint():
            return _describe_tuned(config, recipe)
        case BestOfPoint():
            return OperatingPoint(f"best-of-{config.n}", f"base, best of {config.n}", "best of n", config)
        case _:
            return OperatingPoint("base", "base", "base", config)


def _describe_tuned(config: TunedPoint, recipe: Recipe) -> OperatingPoint:
    name, method = config.training, config.training
    label = config.training
    kl = recipe.trainings[config.training].regularizers.kl
    if config.training != "tuned" and kl:
        method, label = "KL", f"KL {kl.coefficient:g}"
    if config.checkpoint is not None:
        name, label, method = f"{name}-{config.checkpoint}", f"{label}, update {config.checkpoint}", "early checkpoint"
    if config.guidance_scale is not None:
        name, label = f"{name}-cfg-{config.guidance_scale:g}", f"{label}, CFG {config.guidance_scale:g}"
        method = "guidance scale"
    return OperatingPoint(name, label, method, config)


def _describe_guidance(config: GuidancePoint) -> OperatingPoint:
    numbers = [_number(value) for _, value in sorted(config.parameters.items())]
    words = [config.schedule, *numbers]
    method = {"constant": "constant blend", "step": "switch"}.get(config.schedule, "AIG")
    if config.blend == "weights":
        method = "annealed weights"
    label = " ".join([method, *([] if method in ("constant blend", "switch") else [config.schedule]), *numbers])
    if config.cap != 1:
        words.append(f"cap-{config.cap:g}")
        label += f", cap {config.cap:g}"
    if config.clock != "index":
        words.append(config.clock)
        label += f", {config.clock} clock"
    for key, value in config.savings.model_dump(exclude_defaults=True).items():
        saving = " ".join([key.replace("_", " "), *([] if value is True else [f"{value:g}"])])
        words.append(saving.replace(" ", "-"))
        label += f", {saving}"
    return OperatingPoint("-".join(["aw" if config.blend == "weights" else "aig", *words]), label, method, config)


def _number(value: float | list[tuple[float, float]]) -> str:
    """A parameter of a schedule, fit for a file name; a table's points as `u-g_u-g`."""
    return "_".join(f"{u:g}-{g:g}" for u, g in value) if isinstance(value, list) else f"{value:g}"


def weights_folder(point: OperatingPoint, run: Run) -> Path | None:
    """The folder of the training or checkpoint whose weights a point samples with; None for the base model."""
    if point.config.kind in ("base", "best_of"):
        return None
    training = getattr(point.config, "training", "tuned")
    checkpoint = getattr(point.config, "checkpoint", None)
    folder = run.training(training)
    return folder if checkpoint is None else folder / f"checkpoint-{checkpoint:06d}"


def check_trained(points: list[OperatingPoint], run: Run) -> None:
    """Raise FileNotFoundError unless all weights that the points need have been written."""
    for point in points:
        path = weights_folder(point, run)
        if path is not None and weights_in(path) is None:
            what = f"which is not there yet: run `sfumato train {run.path}` first"
            if run.early_result(path.parent.name) is not None:
                what = "and the training went too far before that update: take the point out of evaluation.points"
            raise FileNotFoundError(f"operating point {point.name!r} needs the tuned model in {path}, {what}")


@contextmanager
def applied(pipe: Any, point: OperatingPoint, run: Run) -> Iterator[dict[str, Any]]:
    """Make `pipe` sample at an operating point; yields what to change in the arguments of its call.

    Raises:
        FileNotFoundError: the training or checkpoint is not there yet.
    """
    path = weights_folder(point, run)
    with ExitStack() as stack:
        models = stack.enter_context(tuned(pipe, path)) if path is not None else {}
        match point.config:
            case LoraScalePoint(scale=scale):
                stack.enter_context(annealed_guidance(pipe, "constant", w=scale, blend="weights", **models))
            case GuidancePoint() as config:
                how = {"blend": config.blend, "savings": config.savings.model_dump(), **models}
                stack.enter_context(annealed_guidance(pipe, config.build(), **how))
        cfg = getattr(point.config, "guidance_scale", None)
        yield {} if cfg is None else {"guidance_scale": cfg}
