"""Weights and pictures that are the same wherever they are made, so that golden files hold results only."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

ALEX = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
VGG_WIDTHS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256} | dict.fromkeys((17, 19, 21, 24, 26, 28), 512)
VGG = {at: (VGG_WIDTHS[at], before, 3, 3) for before, at in zip([3, *VGG_WIDTHS.values()], VGG_WIDTHS, strict=False)}
DREAMSIM = ("ensemble_lora", "dino_vitb16_single_lora", "dinov2_vitb14_single_lora")
DREAMSIM += ("clip_vitb32_single_lora", "open_clip_vitb32_single_lora")
LPIPS = {"alex": (ALEX, (64, 192, 384, 256, 256)), "vgg": (VGG, (64, 128, 256, 512, 512))}
WIDTH, PROJECTED, RANK = 24, 16, 4
"""Of the small DreamSim: its transformers are as deep as the published ones, but narrow."""


def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A parameter, drawn by its name and on a scale that its kind asks for."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).random(shape, dtype=np.float32)
    if name.startswith("lin") or name.endswith("gamma"):
        found = drawn
    elif len(shape) > 1:
        found = (drawn - 0.5) * np.sqrt(24 / np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        found = 0.75 + 0.5 * drawn
    else:
        found = 0.2 * (drawn - 0.5)
    return torch.from_numpy(np.asarray(found, dtype=np.float32))


def fill(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Seeded parameters of a state dict's names and shapes; counters are left out."""
    return {name: tensor(name, tuple(old.shape)) for name, old in state.items() if old.is_floating_point()}


def pictures(number: int, height: int, width: int) -> torch.Tensor:
    """8-bit pictures (B,3,H,W), uint8: coarse blocks with noise on top."""
    random = np.random.default_rng(number + 1000 * height + width)
    coarse = random.integers(0, 200, (number, 3, -(-height // 8), -(-width // 8)))
    blocks = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    return torch.from_numpy((blocks + random.integers(0, 56, blocks.shape)).astype(np.uint8))


def lpips(net: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What torchvision and the package lpips publish for LPIPS: a network, and linear layers."""
    convolutions, channels = LPIPS[net]
    shapes = {f"features.{number}.weight": shape for number, shape in convolutions.items()}
    shapes |= {f"features.{number}.bias": shape[:1] for number, shape in convolutions.items()}
    trunk = {name: tensor(net + name, shape) for name, shape in shapes.items()}
    linear = {f"lin{stage}.model.1.weight": (1, width, 1, 1) for stage, width in enumerate(channels)}
    return trunk, {name: tensor(name, shape) for name, shape in linear.items()}


def transformer(name: str, patch: int, side: int, clip: bool, scaled: bool) -> dict[str, torch.Tensor]:
    """A narrow vision transformer of twelve blocks in DINO's names; CLIP's has another norm, DINOv2's scaled layers."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, side * side + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in [f"blocks.{number}." for number in range(12)]:
        for layer, (outputs, inputs) in linear.items():
            shapes[f"{block}{layer}.weight"] = (outputs * WIDTH, inputs * WIDTH)
            shapes[f"{block}{layer}.bias"] = (outputs * WIDTH,)
        shapes |= {f"{block}{norm}.{part}": (WIDTH,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        if scaled:
            shapes |= {f"{block}{layer}.gamma": (WIDTH,) for layer in ("ls1", "ls2")}
    if scaled:
        shapes["mask_token"] = (1, WIDTH)
    if clip:
        shapes |= {"pos_drop.weight": (WIDTH,), "pos_drop.bias": (WIDTH,), "proj": (WIDTH, PROJECTED)}
    return {key: tensor(name + key, shape) for key, shape in shapes.items()}


def dreamsim(models: Path, lora: str) -> Path:
    """Write a folder as the package dreamsim downloads it, with narrow backbones; gives the LoRA's folder."""
    folder = models / lora
    folder.mkdir(parents=True)
    (models / "checkpoints").mkdir(exist_ok=True)
    torch.save(transformer("dino", 16, 14, False, False), models / "checkpoints" / "dino_vitbase16_pretrain.pth")
    torch.save(transformer("dinov2", 14, 37, False, True), models / "dinov2_vitb14_pretrain.pth")
    for name in ("clip", "open_clip"):
        for patch in (16, 32):
            state = transformer(name, patch, 224 // patch, True, False)
            torch.save({"state_dict": state}, models / f"{name}_vitb{patch}_pretrain.pth.tar")
    config = {"r": RANK, "lora_alpha": 0.5, "lora_dropout": 0.3, "bias": "none", "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    weights = {}
    for branch in range(3 if lora == "ensemble_lora" else 1):
        for block in range(12):
            name = f"base_model.model.extractor_list.{branch}.model.blocks.{block}.attn.qkv.lora_"
            weights[f"{name}A.weight"] = tensor(f"{name}A.weight", (RANK, WIDTH))
            weights[f"{name}B.weight"] = tensor(f"{name}B.weight", (3 * WIDTH, RANK))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
