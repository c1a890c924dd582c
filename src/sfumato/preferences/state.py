"""Tensors and plain values in one safetensors file, which a kill leaves whole: the state of a training, its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sfumato.runs import atomic_path

FACTS = "facts"


def save_state(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Replace the file in one step."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({key: t.detach().contiguous() for key, t in tensors.items()}, temporary, {FACTS: json.dumps(facts)})


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `save_state` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[FACTS])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118  it is no mapping
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to begin this part of the training again") from None
