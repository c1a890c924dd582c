"""From the weights that an author published to the safetensors that sfumato loads: a file, or a model's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato.metrics.extractors import dreamsim, inception, lpips
from sfumato.rewards import aesthetic, image_reward, open_clip
from sfumato.runs import write_json
from sfumato.weights import read_published, save_weights

Converted = tuple[dict[str, torch.Tensor], dict[str, str], Sequence[Path]]
"""Tensors by name, metadata beside kind and hashes, and the files that they come from."""


@dataclass(frozen=True)
class Kind:
    """A kind of published weights.

    Attributes:
        wants: the sources to give, in words.
        convert: from the sources to what is written.
        config: what the tensors need as `config.json` beside them, where a transformers model is written, in a folder.
    """

    wants: str
    convert: Callable[[Sequence[Path]], Converted]
    config: Callable[[dict[str, torch.Tensor]], dict[str, Any]] | None = None


def convert_weights(kind: str, sources: Sequence[str | Path], out: str | Path) -> Path:
    """Convert published weights, pickles among them, into one safetensors file, or a folder with it.

    A pickle is read as tensors and plain values only, so that no code in it can run.

    Args:
        kind: a key of `KINDS`.
        sources: files or a folder, as the kind wants them.
        out: file to write, which ends with .safetensors; a folder for hpsv2.

    Returns:
        What was written.

    Raises:
        OSError: a source does not exist.
        ValueError: there is no such kind, or the sources are not what it wants.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of weights {kind!r}: choose one of {', '.join(KINDS)}")
    out, config = Path(out), KINDS[kind].config
    if (out.suffix == ".safetensors") == bool(config):
        raise ValueError(f"{out} must {'be a folder' if config else 'end with .safetensors'}")
    tensors, about, files = KINDS[kind].convert([Path(source) for source in sources])
    if config:
        write_json(out / "config.json", config(tensors))
    save_weights(out / "model.safetensors" if config else out, tensors, kind, files, **about)
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


def _aesthetic(sources: Sequence[Path]) -> Converted:
    return aesthetic.published(_joined(sources)), {}, sources


def _hpsv2(sources: Sequence[Path]) -> Converted:
    return open_clip.published(_joined(sources)), {}, sources


def _imagereward(sources: Sequence[Path]) -> Converted:
    return image_reward.published(_joined(sources)), {}, sources


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
        joined |= state.get("state_dict", state)
    return joined


KINDS = {
    "inception": Kind("pt_inception-2015-12-05-6726825d.pth", _inception),
    "lpips": Kind("torchvision's checkpoint (alexnet-owt-*.pth or vgg16-*.pth) and lpips/weights/v0.1/*.pth", _lpips),
    "dreamsim": Kind("a LoRA folder that the package dreamsim downloaded, such as models/ensemble_lora", _dreamsim),
    "aesthetic": Kind("sac+logos+ava1-l14-linearMSE.pth", _aesthetic),
    "hpsv2": Kind("HPS_v2_compressed.pt or HPS_v2.1_compressed.pt", _hpsv2, open_clip.config),
    "imagereward": Kind("ImageReward.pt", _imagereward),
}
