"""What a training left, put onto a pipeline and taken off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from sfumato.pipelines.adapters import denoiser, denoiser_name, unload_lora
from sfumato.pipelines.formats import load_tuned
from sfumato.trained import atomic_folder


@contextmanager
def tuned(pipe: Any, folder: Path, adapter: str = "tuned") -> Iterator[dict[str, Any]]:
    """Make `pipe` the tuned model for a while, frozen.

    Args:
        pipe: the base pipeline.
        folder: that of a training or of a checkpoint.
        adapter: name for a LoRA.

    Yields:
        What tells `annealed_guidance` the base from the tuned model: `adapter`, or for a whole denoiser `base`, the
        pipeline's own one, which stays on its device.

    Raises:
        FileNotFoundError, ValueError: as for `load_tuned`; `pipe` is as it was.
    """
    base: nn.Module | None = load_tuned(pipe, folder, adapter)
    denoiser(pipe).requires_grad_(False)
    try:
        yield {"adapter": adapter} if base is None else {"base": base}
    finally:
        if base is None:
            unload_lora(pipe, adapter)
        else:
            setattr(pipe, denoiser_name(pipe), base)


def save_denoiser(pipe: Any, folder: str | Path) -> Path:
    """Write the whole denoiser into a folder of its own there, `unet/` or `transformer/`, as diffusers does."""
    path = Path(folder) / denoiser_name(pipe)
    with atomic_folder(path) as temporary:
        denoiser(pipe).save_pretrained(temporary)
    return path
