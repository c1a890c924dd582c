"""What a training leaves in its folder and in those of its checkpoints: its LoRA's file, or its denoiser's folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato.runs import TEMPORARY, atomic_path, flush

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
DENOISERS = ("unet", "transformer")


def weights_in(folder: Path) -> Path | None:
    """The file or folder with the tuned weights, which appears whole and in one step; None while there is none."""
    return next((folder / name for name in (WEIGHTS_NAME, *DENOISERS) if (folder / name).exists()), None)


def copy_weights(weights: Path, folder: Path) -> None:
    """Put a copy of what `weights_in` found into another folder, in one step."""
    if weights.is_dir():
        with atomic_folder(folder / weights.name) as temporary:
            shutil.copytree(weights, temporary, dirs_exist_ok=True)
    else:
        with atomic_path(folder / weights.name) as temporary:
            shutil.copyfile(weights, temporary)


def remove_weights(folder: Path) -> None:
    """Remove what `weights_in` finds."""
    weights = weights_in(folder)
    if weights is not None and weights.is_dir():
        remove_folder(weights)
    elif weights is not None:
        weights.unlink()


def weights_hash(weights: Path) -> str:
    """SHA-256 of a LoRA's file, or of those of the files of a denoiser."""
    if weights.is_dir():
        return hashlib.sha256("".join(map(weights_hash, sorted(weights.glob("*.safetensors")))).encode()).hexdigest()
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for a folder with files: yield an empty one, which replaces `path` on success."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in filter(Path.is_file, temporary.iterdir()):
            file.chmod(temporary.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
            flush(file)
        remove_folder(path)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that a kill leaves no half of it under its name."""
    if path.exists():
        aside = path.with_name(f".{path.name}.removed")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        shutil.rmtree(aside)


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill within `atomic_path` or `atomic_folder` left in a folder to which nobody else writes."""
    for path in folder.glob(".*"):
        if path.suffix in (".partial", ".removed"):
            shutil.rmtree(path)
        elif TEMPORARY.fullmatch(path.name):
            path.unlink()
