"""From the weights that an author published to the safetensors file that sfumato loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sfumato.metrics.extractors import dreamsim, inception, lpips
from sfumato.weights import read_published, save_weights

Converted = tuple[dict[str, torch.Tensor], dict[str, str], Sequence[Path]]
"""Tensors by name, metadata beside kind and hashes, and the files that they come from."""


@dataclass(frozen=True)
class Kind:
    """A kind of published weights.

    Attributes:
        wants: the sources to give, in words.
        convert: from the sources to what is written.
    """

    wants: str
    convert: Callable[[Sequence[Path]], Converted]


def convert_weights(kind: str, sources: Sequence[str | Path], out: str | Path) -> Path:
    """Convert published weights, pickles among them, into one safetensors file.

    A pickle is read as tensors and plain values only, so that no code in it can run.

    Args:
        kind: a key of `KINDS`.
        sources: files or a folder, as the kind wants them.
        out: file to write; ends with .safetensors.

    Returns:
        The file that was written.

    Raises:
        OSError: a source does not exist.
        ValueError: there is no such kind, or the sources are not what it wants.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of weights {kind!r}: choose one of {', '.join(KINDS)}")
    if (out := Path(out)).suffix != ".safetensors":
        raise ValueError(f"{out} must end with .safetensors")
    tensors, about, files = KINDS[kind].convert([Path(source) for source in sources])
    save_weights(out, tensors, kind, files, **about)
    return out


def _inception(sources: Sequence[Path]) -> Converted:
    return inception.published(_joined(sources)), {}, sources


def _lpips(sources: Sequence[Path]) -> Converted:
    return lpips.published(_joined(sources)), {}, sources


def _dreamsim(sources: Sequence[Path]) -> Converted:
    if len(sources) != 1:
        raise ValueError(f"DreamSim is converted from one folder: give {KINDS['dreamsim'].wants}")
    tensors, branches, files = dreamsim.published(sources[0])
    return tensors, {"branches": branches}, files


def _joined(sources: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The state dicts of several files in one.

    Raises:
        ValueError: a file holds something else than a state dict.
    """
    joined: dict[str, torch.Tensor] = {}
    for source in sources:
        state = read_published(source)
        if not isinstance(state, dict):
            raise ValueError(f"{source} holds a {type(state).__name__}, not tensors by name")
        joined |= state
    return joined


KINDS = {
    "inception": Kind("pt_inception-2015-12-05-6726825d.pth", _inception),
    "lpips": Kind("torchvision's checkpoint (alexnet-owt-*.pth or vgg16-*.pth) and lpips/weights/v0.1/*.pth", _lpips),
    "dreamsim": Kind("a LoRA folder that the package dreamsim downloaded, such as models/ensemble_lora", _dreamsim),
}
