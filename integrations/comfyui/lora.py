"""LoRA files as ComfyUI reads them, and LoRA matrices that are added to a layer's output instead of to its weights."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

PEFT_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight")
PEFT_PREFIXES = ("base_model.model.", "unet.", "transformer.")


def load_patches(model: Any, path: str) -> dict[Any, Any]:
    """The patches of a LoRA file for a MODEL, read by ComfyUI's own loader. Weights of text encoders are left out.

    Raises:
        ValueError: nothing in the file fits the model, or the file needs DoRA's magnitudes, which its format hides.
    """
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils

    state, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    state = in_comfy_names(state, known, peft_config(path, metadata or {}))
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), known, log_missing=False)
    if not patches:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise ValueError(f"{path} has no weights for this {type(model.model).__name__}; it has: {some}")
    return patches


def peft_config(path: str, metadata: dict[str, str]) -> dict[str, Any]:
    """How peft made a LoRA: from the file's header, or from `adapter_config.json` beside it, else empty."""
    beside = Path(path).with_name("adapter_config.json")
    if "lora_adapter_metadata" in metadata:
        config = json.loads(metadata["lora_adapter_metadata"])
        return {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in config.items()}
    return json.loads(beside.read_text()) if beside.exists() else {}


def in_comfy_names(state: dict[str, Any], known: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A peft or diffusers LoRA under the layer names that ComfyUI knows, with its alpha.

    ComfyUI's loader does not know peft's names for UNets and ignores where peft keeps alpha, so that an update with
    alpha = 2 r would have half its strength. Keys of other formats stay as they are.

    Args:
        state: the file's tensors.
        known: the layer names that ComfyUI's loader looks for.
        config: peft's configuration, empty if there is none.
    """
    if config.get("use_dora"):
        raise ValueError("this LoRA was trained with DoRA, which peft stores in a way that ComfyUI cannot read")
    named: dict[str, Any] = {}
    unscaled = False
    for key, tensor in state.items():
        match = PEFT_KEY.fullmatch(key)
        if not match:
            named[key] = tensor
            continue
        layer = _comfy_layer(match["layer"], known)
        named[f"{layer}.lora_{match['side']}.weight"] = tensor
        if match["side"] == "A" and f"{match['layer']}.alpha" not in state:
            if config:
                named[f"{layer}.alpha"] = torch.tensor(_alpha(match["layer"], len(tensor), config))
            unscaled |= not config
    if unscaled:
        logging.warning("sfumato: this LoRA does not say its alpha, r is assumed; if it was trained with another, set "
                        "strength to alpha / r, or put its adapter_config.json beside it")  # fmt: skip
    return named


def _comfy_layer(layer: str, known: dict[str, Any]) -> str:
    bare = layer
    for prefix in PEFT_PREFIXES:
        bare = bare.removeprefix(prefix)
    names = (layer, f"transformer.{bare}", f"lora_unet_{bare.replace('.', '_')}")
    return next((name for name in names if name in known), layer)


def _alpha(layer: str, rank: int, config: dict[str, Any]) -> float:
    patterns = config.get("alpha_pattern") or {}
    alpha = next((a for pattern, a in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", layer)), None)
    alpha = config["lora_alpha"] if alpha is None else alpha
    return float(alpha * math.sqrt(rank) if config.get("use_rslora") else alpha)


@dataclass
class Factors:
    """One low-rank update of a layer.

    Attributes:
        down: [rank, in], for a convolution [rank, in * kernel].
        up: [out, rank].
        scale: what the update is multiplied by.
        rows: first row and number of rows of the layer's output that it changes; None for all.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    rows: tuple[int, int] | None = None
    _placed: tuple[torch.Tensor, torch.Tensor] | None = field(default=None, repr=False)

    def add(self, layer: torch.nn.Module, x: torch.Tensor, output: torch.Tensor, weight: float) -> torch.Tensor:
        """`output` of the layer for the input `x`, plus `weight` times the update."""
        down, up = self._at(x)
        if hasattr(layer, "_conv_forward"):
            hidden = layer._conv_forward(x, down.reshape(len(down), -1, *layer.kernel_size), None)
            update = (up @ hidden.flatten(2)).unflatten(2, hidden.shape[2:])
        else:
            update = linear(linear(x, down), up)
        if self.rows is None:
            return output + self.scale * weight * update
        output = output.clone()
        output.narrow(1 if hasattr(layer, "_conv_forward") else -1, *self.rows).add_(self.scale * weight * update)
        return output

    def _at(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._placed is None or (self._placed[0].device, self._placed[0].dtype) != (x.device, x.dtype):
            self._placed = self.down.to(x), self.up.to(x)
        return self._placed

    def release(self) -> None:
        """Give back the copy on the accelerator."""
        self._placed = None


def factors(patch: tuple[Any, ...], key: str, layer: torch.nn.Module) -> Factors:
    """A patch of ComfyUI's ModelPatcher as factors.

    Raises:
        ValueError: it is not a plain LoRA, or not of this layer's size.
    """
    strength, adapter, strength_model, offset, function = patch
    kind = getattr(adapter, "name", "merge")
    up, down, alpha, *special = adapter.weights if kind == "lora" else (None, None, None)
    if any(part is not None for part in special) or getattr(layer, "groups", 1) != 1:
        kind = "LoRA of a special kind (DoRA, Tucker, or of a grouped convolution)"
    if kind != "lora" or strength_model != 1.0:
        raise ValueError(
            f"{key}: this is a {kind}, not a plain LoRA. Save the tuned model as a checkpoint, load it, and blend its "
            "predictions with the base's"
        )
    if offset is not None and offset[0] != 0:
        raise ValueError(f"{key}: this LoRA changes a part of the layer's inputs, which is not supported")
    up = up.flatten(1) if function is None else function(up.flatten(1))
    down = down.flatten(1)
    rows = None if offset is None else (offset[1], offset[2])
    _check_size(down, up, rows, key, layer)
    return Factors(down, up, strength * (1.0 if alpha is None else alpha / len(down)), rows)


def _check_size(down: torch.Tensor, up: torch.Tensor, rows: tuple[int, int] | None, key: str, layer: Any) -> None:
    if hasattr(layer, "_conv_forward"):
        size = layer.out_channels, layer.in_channels * math.prod(layer.kernel_size)
    else:
        size = layer.out_features, layer.in_features
    wanted = (rows[1] if rows else size[0], size[1])
    if (len(up), down.shape[1]) != wanted or up.shape[1] != len(down):
        raise ValueError(f"{key}: the LoRA was made for another model: it is {len(up)} x {down.shape[1]} there, the "
                         f"layer {wanted[0]} x {wanted[1]}")  # fmt: skip


class LoraLayers:
    """The low-rank updates of a model, which act while `at` says so and are silent otherwise.

    They are added to the layers' outputs by forward hooks, so that weights stay shared between base and tuned model
    whatever their format, nothing is rounded into them, and changing the weight costs nothing. `inject` and `eject`
    are called by ComfyUI's ModelPatcher, which may call each more than once.
    """

    def __init__(self, layers: dict[str, list[Factors]]):
        self.layers = layers
        self._weight = 0.0
        self._ran = False
        self._handles: dict[int, list[Any]] = {}

    def inject(self, patcher: Any) -> None:
        self.eject(patcher)
        self._handles[id(patcher)] = [
            patcher.model.get_submodule(name).register_forward_hook(partial(self._add, updates))
            for name, updates in self.layers.items()
        ]

    def eject(self, patcher: Any) -> None:
        for handle in self._handles.pop(id(patcher), []):
            handle.remove()
        for updates in self.layers.values():
            for update in updates:
                update.release()

    @contextmanager
    def at(self, weight: float) -> Iterator[None]:
        """Inside, the model runs with `weight` times the updates.

        Raises:
            RuntimeError: no layer ran that has one, so that the result is the base model's.
        """
        self._weight, self._ran = weight, False
        try:
            yield
        finally:
            self._weight = 0.0
        if weight != 0.0 and not self._ran:
            raise RuntimeError("the LoRA had no effect, because its layers did not run: is another node replacing or "
                               "compiling the model?")  # fmt: skip

    def _add(self, updates: list[Factors], layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> Any:
        if self._weight == 0.0:
            return None
        self._ran = True
        for update in updates:
            output = update.add(layer, args[0], output, self._weight)
        return output
