"""DreamSim: a perceptual distance learned from people's judgements, as features whose cosine tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato.metrics.features import Distance, fingerprint
from sfumato.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from sfumato.weights import load_weights, read_published

EDGE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Branch(BaseModel):
    """One vision transformer of a DreamSim model, and what is taken from it.

    Attributes:
        feature: "cls", the first token after the last block, not normalised; or "embedding", the first token
            normalised and projected, as CLIP's.
        heads: attention heads.
        activation: of the blocks' perceptrons.
        epsilon: of the layer normalisations.
        mean: subtracted from each channel of an image in [0, 1].
        std: divides each channel thereafter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: Literal["cls", "embedding"]
    heads: int
    activation: Literal["gelu", "quick_gelu"]
    epsilon: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


DINO = Branch(feature="cls", heads=12, activation="gelu", epsilon=1e-6, mean=IMAGENET_MEAN, std=IMAGENET_STD)
CLIP = Branch(feature="embedding", heads=12, activation="quick_gelu", epsilon=1e-5, mean=CLIP_MEAN, std=CLIP_STD)
OPEN_CLIP = CLIP.model_copy(update={"activation": "gelu"})

DINO_FILES = ("checkpoints/dino_vitbase16_pretrain.pth", "dino_vitbase16_pretrain.pth")
DINOV2_FILES = ("dinov2_vitb14_pretrain.pth", "checkpoints/dinov2_vitb14_pretrain.pth")
PUBLISHED = {
    "ensemble_lora": (
        (DINO, DINO_FILES),
        (CLIP, ("clip_vitb16_pretrain.pth.tar",)),
        (OPEN_CLIP, ("open_clip_vitb16_pretrain.pth.tar",)),
    ),
    "dino_vitb16_single_lora": ((DINO, DINO_FILES),),
    "dinov2_vitb14_single_lora": ((DINO, DINOV2_FILES),),
    "clip_vitb32_single_lora": ((CLIP, ("clip_vitb32_pretrain.pth.tar",)),),
    "open_clip_vitb32_single_lora": ((OPEN_CLIP, ("open_clip_vitb32_pretrain.pth.tar",)),),
}
"""Branches of each published LoRA folder, and where beside it the package `dreamsim` puts their backbones."""


class DreamSimFeatures:
    """DreamSim's embedding (Fu et al. 2023, 2306.09344): 1 - cosine of two embeddings is their distance.

    Images are resized to 224x224, whatever their shape, by PIL's bicubic filter; every branch normalises them in its
    own way; the branches' outputs are joined, the mean of the D numbers is subtracted, and they are scaled to length 1.

    Args:
        weights: the converted file of a published model; or a folder or hub id with it as `model.safetensors`.
        device: where to run.

    Raises:
        OSError: there is no such file.
        ValueError: it does not say which branches it holds, is damaged or not in safetensors.
    """

    distance: Distance = "cosine"

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        state, metadata = load_weights(weights, "dreamsim")
        try:
            branches = [Branch.model_validate(branch) for branch in json.loads(metadata["branches"])]
        except (KeyError, ValueError, ValidationError) as error:
            raise ValueError(f"{weights} does not say its branches: make it by `sfumato convert-weights`") from error
        self.state = {name: tensor.float().to(device) for name, tensor in state.items()}
        self.branches = [(branch, _part(self.state, f"{number}.")) for number, branch in enumerate(branches)]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(f"DreamSim {[branch for branch, _ in self.branches]}", self.state)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (B,D), float32, of length 1, of images (B,3,H,W) in [0, 1]."""
        images = images.to(self.branches[0][1]["cls_token"])
        joined = torch.cat([_embedding(images, branch, weights) for branch, weights in self.branches], 1)
        return F.normalize(joined - joined.mean(1, keepdim=True), dim=1)


def published(folder: Path) -> tuple[dict[str, torch.Tensor], str, list[Path]]:
    """Merge a published LoRA into its backbones.

    Args:
        folder: the LoRA's folder, such as `models/ensemble_lora`, with its backbones beside it, as the package
            `dreamsim` leaves them.

    Returns:
        Tensors by branch number and name, the branches as JSON, and the files that were read.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the folder is none of `PUBLISHED`, or the LoRA does not fit.
    """
    if folder.name not in PUBLISHED:
        raise ValueError(f"{folder} is none of DreamSim's LoRA folders: give one of {', '.join(PUBLISHED)}")
    adapter = _first(folder, ("adapter_model.safetensors", "adapter_model.bin"))
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    lora, files = dict(read_published(adapter)), [adapter]
    tensors: dict[str, torch.Tensor] = {}
    for number, (_, names) in enumerate(PUBLISHED[folder.name]):
        files.append(_first(folder.parent, names))
        state = read_published(files[-1])
        weights = _merged(state.get("state_dict", state), lora, number, config["lora_alpha"] / config["r"])
        tensors |= {f"{number}.{name}": tensor for name, tensor in weights.items()}
    if lora:
        raise ValueError(f"{adapter} holds {min(lora)}, which none of the backbones takes: give a LoRA of version 0.2")
    branches = [branch.model_dump() for branch, _ in PUBLISHED[folder.name]]
    return tensors, json.dumps(branches), files


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (path := folder / name).exists():
            return path
    raise FileNotFoundError(f"{folder} has no {names[0]}: run the package dreamsim once, which downloads it")


def _merged(
    state: Mapping[str, torch.Tensor], lora: dict[str, torch.Tensor], number: int, scale: float
) -> dict[str, torch.Tensor]:
    """A backbone with its part of the LoRA, which is taken out of `lora`, in its attention weights."""
    weights = {name: tensor.float() for name, tensor in state.items() if name != "mask_token"}
    weights["pos_embed"] = _positions(weights)
    start = f"base_model.model.extractor_list.{number}.model."
    for key in [key for key in lora if key.startswith(start) and key.endswith(".lora_A.weight")]:
        target = f"{key.removeprefix(start).removesuffix('.lora_A.weight')}.weight"
        down, up = lora.pop(key).float(), lora.pop(key.replace("lora_A", "lora_B"), torch.zeros(0)).float()
        if target not in weights or (up.shape[0], down.shape[-1]) != weights[target].shape:
            raise ValueError(f"{key} does not fit the backbone: give a LoRA of DreamSim 0.2 and its own backbones")
        weights[target] = weights[target] + scale * up @ down
    return weights


def _positions(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Position embeddings for 224x224 pixels, interpolated as DINO does where they are for another size."""
    positions = weights["pos_embed"]
    side, wanted = round((positions.shape[1] - 1) ** 0.5), EDGE // weights["patch_embed.proj.weight"].shape[-1]
    if side == wanted:
        return positions
    grid = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    share = (wanted + 0.1) / side  # DINO's own offset, which the filter feels
    grid = F.interpolate(grid, scale_factor=(share, share), mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).mT], 1)


def _embedding(images: torch.Tensor, branch: Branch, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What one branch sees in images (B,3,H,W): (B,d)."""
    x = Preprocess((EDGE, EDGE), None, branch.mean, branch.std, rounds=True)(images)
    x = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], EDGE // _side(weights))
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], 1) + weights["pos_embed"]
    if "pos_drop.weight" in weights:  # CLIP normalises here
        x = _norm(x, weights, "pos_drop", branch.epsilon)
    for number in range(_depth(weights)):
        x = _block(x, branch, _part(weights, f"blocks.{number}."))
    if branch.feature == "cls":
        return x[:, 0]
    return _norm(x[:, 0], weights, "norm", branch.epsilon) @ weights["proj"]


def _block(x: torch.Tensor, branch: Branch, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A transformer's block: attention and a perceptron, each with a skip."""
    y = _linear(_norm(x, weights, "norm1", branch.epsilon), weights, "attn.qkv")
    query, key, value = y.unflatten(2, (3, branch.heads, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + _linear(y, weights, "attn.proj") * weights.get("ls1.gamma", 1)
    y = _linear(_norm(x, weights, "norm2", branch.epsilon), weights, "mlp.fc1")
    y = F.gelu(y) if branch.activation == "gelu" else y * torch.sigmoid(1.702 * y)
    return x + _linear(y, weights, "mlp.fc2") * weights.get("ls2.gamma", 1)


def _norm(x: torch.Tensor, weights: Mapping[str, torch.Tensor], name: str, epsilon: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)


def _linear(x: torch.Tensor, weights: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _part(weights: Mapping[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}


def _side(weights: Mapping[str, torch.Tensor]) -> int:
    """Patches along one edge of the image."""
    return round((weights["pos_embed"].shape[1] - 1) ** 0.5)


def _depth(weights: Mapping[str, torch.Tensor]) -> int:
    return 1 + max(int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name)))
