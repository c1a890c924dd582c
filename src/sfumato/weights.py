"""Files of weights: safetensors in use, and the one place where a published pickle may be read, to convert it.

`convert_weights` in `sfumato.convert` joins the two: it reads what an author published and writes what sfumato loads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sfumato.runs import atomic_path

FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
"""What does not end like this can be a hub id."""


def read_published(path: str | Path) -> Any:
    """The content of a published checkpoint: tensors by name, in whatever nesting the author chose, on the CPU.

    A pickle is read with `weights_only=True`, which makes tensors and plain values and runs no code.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _load(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the bytes of another kind of file lead to
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {code[1]}, which may be code" if code else "it is damaged, or another kind of file"
        raise ValueError(f"{path} is no checkpoint of tensors and plain values: {reason}") from error


def save_weights(
    path: str | Path, tensors: Mapping[str, torch.Tensor], kind: str, sources: Iterable[Path], **about: str
) -> None:
    """Write a safetensors file that says what it is.

    Args:
        path: file to write, in one step.
        tensors: by name.
        kind: what reads it, such as "inception".
        sources: the files that the tensors come from; their names and SHA-256 go into the metadata.
        about: more for the metadata.
    """
    hashes = {source.name: _sha256(source) for source in sources}
    metadata = {"format": "pt", "kind": kind, "sha256": json.dumps(hashes), **about}
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary, metadata=metadata)


def load_weights(source: str | Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a safetensors file.

    Args:
        source: a file; a folder, or a hub id, with `model.safetensors`.
        kind: what is going to read it.

    Raises:
        OSError: there is no such file.
        ValueError: it is not in safetensors, is damaged, or says that it is of another kind.
    """
    path = _find(str(source))
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is not safetensors: run `sfumato convert-weights {kind} {path} {kind}.safetensors`")
    tensors = _load(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("kind", kind) != kind:
        raise ValueError(f"{path} holds weights of the kind {metadata['kind']}, not {kind}")
    return tensors, metadata


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): copy, download or convert it again") from error


def _find(source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        return path / "model.safetensors"
    if path.exists() or path.suffix in FILES or source.count("/") != 1:
        return path
    from huggingface_hub import hf_hub_download

    with naming(source):
        return Path(hf_hub_download(source, "model.safetensors"))


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Have an OSError of the hub's libraries say what could not be loaded, which not all of theirs do."""
    try:
        yield
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise OSError(f"cannot load {source}: give a folder, or a hub id that can be reached ({reason})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
