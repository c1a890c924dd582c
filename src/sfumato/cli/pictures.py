"""Draw pictures, and save an operating point to draw with elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.shared import app, silence


@app.command()
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    pipeline: Annotated[
        str, typer.Option(help="emoji64, a folder, a model id on the hub, or a folder of `sfumato export`.")
    ] = "emoji64",
    lora: Annotated[
        Path | None, typer.Option(help="A tuned model: a LoRA's file or folder, a training folder, a whole UNet.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Blend base and tuned: base, power:2, sigmoid:10,0.5, table:0=0,0.5=0.1,1=0.4."),
    ] = None,
    cap: Annotated[float, typer.Option(help="Multiply the schedule by this.")] = 1.0,
    clock: Annotated[str, typer.Option(help="What the schedule runs on: index, timestep, sigma, logsnr.")] = "index",
    blend: Annotated[str | None, typer.Option(help="predictions or weights. [default: predictions]")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first image; the others count up.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="num_inference_steps.")] = 20,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 3.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. [default: what was saved, else float32]")
    ] = None,
    out: Annotated[Path, typer.Option(help="A PNG with all images in a row.")] = Path("sample.png"),
) -> None:
    """Draw images, with or without a tuned LoRA and a guidance schedule.

    Example: sfumato sample "cat face" --lora runs/mine/training/tuned --schedule power:2
    """
    silence()
    from sfumato.config import PipelineConfig
    from sfumato.sampling import draw, parse_schedule

    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype is float32, bfloat16 or float16, not {dtype!r}")
    config = PipelineConfig(path=pipeline, **({"dtype": dtype} if dtype else {}))
    if schedule is None and (cap != 1 or clock != "index"):
        raise ValueError("--cap and --clock belong to a schedule: give one with --schedule")
    plan = parse_schedule(schedule, cap, clock) if schedule else None
    call = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
    print(draw(config, prompt, list(range(seed, seed + images)), call, out, lora, plan, blend))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose training is finished.")],
    point: Annotated[
        str, typer.Argument(help="An operating point by name (aig-power-2), its definition, or a point.yaml.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    push: Annotated[str | None, typer.Option(help="Upload it to this model (owner/name) on the hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new model on the hub private.")] = False,
) -> None:
    """Save an operating point of a run as a guided pipeline, which sfumato.load(FOLDER) loads, with a model card.

    Example: sfumato export runs/mine aig-power-2 --out guided --push me/my-model
    """
    silence()
    from sfumato.bundle import push_to_hub
    from sfumato.export import save_run

    print(save_run(folder, point, out))
    if push:
        print(push_to_hub(out, push, private=private or None))
