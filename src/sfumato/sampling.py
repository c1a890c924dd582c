"""Draw pictures from a pipeline, with or without a tuned LoRA and a guidance schedule: what `sfumato sample` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.config import PipelineConfig
from sfumato.images import grid, save_png
from sfumato.schedules import FORMULAS, Schedule, schedule


def parse_schedule(text: str, cap: float = 1.0, clock: str = "index") -> Schedule:
    """A schedule from `NAME` or `NAME:PARAMETERS`, such as `power:2`, `sigmoid:10,0.5` or `table:0=0,0.5=0.1,1=0.4`.

    Raises:
        ValueError: unknown name, or a parameter that is missing, too many or not a number.
    """
    name, colon, value = text.partition(":")
    wanted = FORMULAS.get(name, ("", ()))[1]
    try:
        parameters: dict[str, Any] = {}
        if colon and wanted == ("points",):
            parameters = {"points": [[float(number) for number in pair.split("=")] for pair in value.split(",")]}
        elif colon:
            numbers = [float(number) for number in value.split(",")]
            names = [*wanted, *(f"number {i + 1}" for i in range(len(wanted), len(numbers)))]
            parameters = dict(zip(names, numbers, strict=False))
        return schedule(name, cap=cap, clock=clock, **parameters)
    except ValueError as error:
        raise ValueError(f"cannot read the schedule {text!r}: {error}") from None


def draw(
    config: PipelineConfig,
    prompt: str,
    seeds: list[int],
    call: dict[str, Any],
    out: Path,
    lora: Path | None = None,
    plan: Schedule | None = None,
    blend: str | None = None,
) -> Path:
    """Draw one image per seed in a row and write them to `out`.

    Args:
        config: a pipeline, or the folder of one that `sfumato.save` wrote, with its guidance.
        lora: a tuned checkpoint of any kind that `sfumato.load` takes.
        plan: how to blend base and tuned; of a saved pipeline it replaces the saved schedule.
        blend: what is blended, `"predictions"` or `"weights"`; by default what was saved, else predictions.

    Raises:
        ValueError: the prompt is empty, `out` is no PNG, a schedule was given without a LoRA or `blend` without a
            schedule, or the LoRA does not fit.
        FileNotFoundError: there is no such LoRA.
    """
    if not prompt.strip():
        raise ValueError("the prompt is empty: say what to draw")
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out} is not the name of a PNG: let it end in .png")
    if blend and not plan:
        raise ValueError("--blend says what a schedule blends: give one with --schedule")
    if lora and not lora.exists():
        raise FileNotFoundError(f"there is no LoRA at {lora}")
    from sfumato.bundle import load
    from sfumato.pipelines.formats import MANIFEST, load_tuned
    from sfumato.pipelines.guidance import enable_annealed_guidance
    from sfumato.pipelines.load import load_pipeline
    from sfumato.pipelines.rollout import rollout

    if (Path(config.path) / MANIFEST).exists():
        if lora:
            raise ValueError(f"{config.path} has a tuned model already: --lora is for a plain pipeline")
        dtype = config.dtype if "dtype" in config.model_fields_set else None
        given = (plan.to_dict() if plan else {}) | ({"blend": blend} if blend else {})
        pipe = load(config.path, dtype=dtype, **given)
    else:
        if plan and lora is None:
            raise ValueError("--schedule blends base and tuned model: say where the tuned one is with --lora")
        pipe = load_pipeline(config)
        pipe.set_progress_bar_config(disable=False)
        base = load_tuned(pipe, lora) if lora else None
        if plan:
            enable_annealed_guidance(pipe, plan, base=base, blend=blend or "predictions")
    save_png(grid([rollout(pipe, prompt=prompt, seeds=seeds, **call).images]), out)
    return out
