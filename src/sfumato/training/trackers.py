"""What the trackers of accelerate get of a record: its numbers, and the contact sheet where they take pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image


def track(accelerator: Accelerator, record: dict[str, Any], folder: Path) -> None:
    """Send a record of the log to all trackers.

    Args:
        folder: the training's; `eval/image` is relative to it.
    """
    numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
    accelerator.log(numbers, step=record["update"])
    takers = [tracker for tracker in accelerator.trackers if hasattr(tracker, "log_images")]
    if takers and accelerator.is_main_process and "eval/image" in record:
        with Image.open(folder / record["eval/image"]) as file:
            sheet = file.convert("RGB")
        for tracker in takers:
            tracker.log_images({"eval/image": _as_taken_by(tracker.name, sheet)}, step=record["update"])


def _as_taken_by(tracker: str, sheet: Image.Image) -> Any:
    """Trackers agree on the name of `log_images` only: TensorBoard wants (N,3,H,W), Aim one picture, others a list."""
    forms = {"tensorboard": np.asarray(sheet).transpose(2, 0, 1)[None], "aim": sheet}
    return forms.get(tracker, [sheet])
