"""Bring published weights into a format that is safe to load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.shared import app


@app.command("convert-weights")
def convert_weights(
    kind: Annotated[str, typer.Argument(help="inception, lpips, dreamsim, aesthetic, hpsv2 or imagereward.")],
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="What was published: files or a folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write; a folder for hpsv2.")],
) -> None:
    """Convert published weights, pickles among them, to safetensors, for rewards and for the features of an evaluation.

    inception: pt_inception-2015-12-05-6726825d.pth; lpips: torchvision's alexnet or vgg16 and the file of the package
    lpips; dreamsim: a LoRA folder that the package dreamsim downloaded; aesthetic: sac+logos+ava1-l14-linearMSE.pth;
    hpsv2: HPS_v2_compressed.pt or HPS_v2.1_compressed.pt; imagereward: ImageReward.pt. No code in a pickle is run.

    Example: sfumato convert-weights inception pt_inception-2015-12-05-6726825d.pth inception.safetensors
    """
    from sfumato.convert import convert_weights

    print(convert_weights(kind, sources, out))
