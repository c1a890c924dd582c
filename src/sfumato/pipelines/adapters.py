"""Base and tuned weights without a second copy: LoRA adapters that are added, switched, scaled, saved and loaded.

The layers' own list of active adapters is the switch. peft's `enable_adapters` and diffusers' `disable_adapters` are
not used, since they also turn `requires_grad` on. Adapters other than the tuned one (an LCM or a style LoRA, say)
stay as they are in both modes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from sfumato.runs import atomic_path
from sfumato.trained import WEIGHTS_NAME

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers looks for the adapter's configuration in the safetensors header."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The names that diffusers gives to the projections of its attention layers; what a LoRA adapts by default."""


def denoiser_name(pipe: Any) -> str:
    """The pipeline's attribute that holds the denoiser: `"transformer"` or `"unet"`.

    Raises:
        TypeError: the pipeline has neither.
    """
    for name in ("transformer", "unet"):
        if getattr(pipe, name, None) is not None:
            return name
    raise TypeError(f"{type(pipe).__name__} has neither a transformer nor a unet: sfumato cannot find its denoiser")


def denoiser(pipe: Any) -> Any:
    """The network that predicts noise or velocity, free of any `torch.compile` wrapper."""
    module = getattr(pipe, denoiser_name(pipe))
    return getattr(module, "_orig_mod", module)


def tuner_layers(module: nn.Module, adapter: str) -> list[Any]:
    """The peft layers of `module` that carry `adapter`."""
    layers = _all_tuner_layers(module)
    return [layer for layer in layers if any(adapter in getattr(layer, n) for n in layer.adapter_layer_names)]


def _all_tuner_layers(module: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def adapter_names(module: nn.Module) -> list[str]:
    """The names of all adapters on `module`, in alphabetical order."""
    return sorted(getattr(module, "peft_config", {}))


def tuned_adapter(pipe: Any, adapter: str | None = None) -> str:
    """The adapter that counts as "tuned": the named one, or the only one there is.

    Raises:
        ValueError: there is none, there are several and none is named, the named one is not there or not active, it is
            fused into the weights, or it changes the base model's own biases or modules, so that "adapter off" is not
            the base model.
    """
    module = denoiser(pipe)
    names = adapter_names(module)
    where = f"the {denoiser_name(pipe)} of this {type(pipe).__name__}"
    if not names:
        raise ValueError(f"{where} carries no LoRA: load one with pipe.load_lora_weights(...) first")
    if adapter is None and len(names) > 1:
        raise ValueError(f"{where} carries several adapters ({', '.join(names)}): say which is tuned with adapter=NAME")
    name = adapter or names[0]
    if name not in names:
        raise ValueError(f"{where} has no adapter {name!r}; it has: {', '.join(names)}")
    config = module.peft_config[name]
    if getattr(config, "bias", "none") != "none" or getattr(config, "modules_to_save", None):
        raise ValueError(
            f"adapter {name!r} changes biases or whole modules of the base model, so it cannot be switched off "
            "exactly: train it with bias='none' and without modules_to_save, or pass the base model as base="
        )
    layers = tuner_layers(module, name)
    fused = sorted({merged for layer in layers for merged in layer.merged_adapters})
    if fused:
        raise ValueError(f"adapter {', '.join(fused)} is fused into the weights: call pipe.unfuse_lora() first")
    if any(layer.disable_adapters or name not in layer.active_adapters for layer in layers):
        raise ValueError(f"adapter {name!r} is loaded but not active: call pipe.set_adapters([{name!r}, ...]) first")
    return name


def tuned_adapters(pipe: Any, adapters: str | Sequence[str] | None) -> list[str]:
    """The adapters that count as tuned: one, as in `tuned_adapter`, or all of a list."""
    if adapters is None or isinstance(adapters, str):
        return [tuned_adapter(pipe, adapters)]
    if not adapters:
        raise ValueError("adapter={} names no adapter")
    return [tuned_adapter(pipe, name) for name in adapters]


class AdapterSwitch:
    """Turns one adapter of a module off and on without touching the others or any `requires_grad`.

    The layers are looked up once, since walking a large model costs milliseconds.
    """

    def __init__(self, module: nn.Module, adapter: str):
        self.adapter = adapter
        self.layers = tuner_layers(module, adapter)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The module predicts as if the adapter had never been loaded."""
        before = [layer._active_adapter for layer in self.layers]
        for layer in self.layers:
            layer._active_adapter = [name for name in layer.active_adapters if name != self.adapter]
        try:
            yield
        finally:
            for layer, active in zip(self.layers, before, strict=True):
                layer._active_adapter = active

    def check_linear(self) -> None:
        """Raise ValueError unless the weights are linear in the adapter's scale."""
        if any(getattr(layer, "use_dora", {}).get(self.adapter) for layer in self.layers):
            raise ValueError(
                f"adapter {self.adapter!r} is a DoRA, whose weights are not linear in its scale: blend predictions"
            )

    @contextmanager
    def scaled(self, scale: float) -> Iterator[None]:
        """The adapter's weight change is multiplied by `scale`."""
        before = [layer.scaling[self.adapter] for layer in self.layers]
        for layer, scaling in zip(self.layers, before, strict=True):
            layer.scaling[self.adapter] = scaling * scale
        try:
            yield
        finally:
            for layer, scaling in zip(self.layers, before, strict=True):
                layer.scaling[self.adapter] = scaling


@contextmanager
def base_weights(pipe: Any, adapter: str | None = None) -> Iterator[None]:
    """Run `pipe` as the base model: the tuned adapter of its denoiser is off."""
    with AdapterSwitch(denoiser(pipe), tuned_adapter(pipe, adapter)).off():
        yield


@contextmanager
def lora_scale(pipe: Any, scale: float, adapter: str | None = None) -> Iterator[None]:
    """Run `pipe` with the weights base + scale · ΔW: LoRA scaling, the same at all noise levels."""
    switch = AdapterSwitch(denoiser(pipe), tuned_adapter(pipe, adapter))
    switch.check_linear()
    with switch.scaled(scale):
        yield


def add_lora(
    pipe: Any,
    *,
    rank: int = 8,
    alpha: float | None = None,
    targets: Sequence[str] = ATTENTION,
    adapter: str = "default",
    seed: int = 0,
) -> list[nn.Parameter]:
    """Add a fresh LoRA to the denoiser, freeze everything else, and return the trainable parameters.

    Adapters that are active stay active.

    Args:
        rank: rank r of the update.
        alpha: the update is scaled by alpha / r; `None` means alpha = r.
        targets: suffixes of the names of the linear and convolutional layers to adapt. Those that the model does not
            have are passed over.
        seed: seeds the initial weights, without touching the global random state.

    Raises:
        ValueError: the model has none of the targets, or an adapter of that name already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    module = denoiser(pipe)
    present = present_targets(pipe, targets)
    check_free(pipe, adapter)
    old = {id(parameter) for parameter in module.parameters()}
    freeze(pipe)
    scale: Any = alpha or rank  # peft's annotation says int, its arithmetic takes any number
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=present, init_lora_weights="gaussian")
    with beside_others(module, adapter):
        torch.manual_seed(seed)
        if hasattr(module, "add_adapter"):
            module.add_adapter(config, adapter)
        else:
            inject_adapter_in_model(config, module, adapter)
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) not in old)
    return trainable(module)


def freeze(pipe: Any) -> None:
    """Let no weight of the pipeline have a gradient."""
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False)


@contextmanager
def beside_others(module: nn.Module, adapter: str) -> Iterator[None]:
    """Let peft add an adapter, which it would make the only active one, with weights from the global random state."""
    active = {layer: list(layer.active_adapters) for layer in _all_tuner_layers(module)}
    with torch.random.fork_rng(devices=[]):
        yield
    for layer in _all_tuner_layers(module):
        layer._active_adapter = [*active.get(layer, []), adapter]


def check_free(pipe: Any, adapter: str) -> None:
    """Raise ValueError if the denoiser has an adapter of that name."""
    if adapter in adapter_names(denoiser(pipe)):
        raise ValueError(
            f"the {denoiser_name(pipe)} has an adapter {adapter!r} already: give the new one another name with adapter="
        )


def present_targets(pipe: Any, targets: Sequence[str]) -> list[str]:
    """Those of the suffixes that name a linear or convolutional layer of the denoiser.

    Raises:
        ValueError: none does.
    """
    layers = denoiser(pipe).named_modules()
    names = [name.removesuffix(".base_layer") for name, layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    present = [t for t in targets if any(name == t or name.endswith(f".{t}") for name in names)]
    if not present:
        raise ValueError(f"the {denoiser_name(pipe)} has no layer named {', '.join(targets)}: set other LoRA targets")
    return present


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a training changes."""
    return [p for p in module.parameters() if p.requires_grad]


def save_lora(pipe: Any, folder: str | Path, adapter: str | None = None) -> Path:
    """Write the adapter as `pytorch_lora_weights.safetensors`, with its configuration in the header.

    Without that header alpha ≠ r would be lost. `pipe.load_lora_weights(folder)` reads it back exactly. If text
    encoders carry the adapter too, their part goes into the same file.
    """
    from peft import get_peft_model_state_dict

    name = tuned_adapter(pipe, adapter)
    tensors: dict[str, torch.Tensor] = {}
    about: dict[str, Any] = {}
    for prefix, part in lora_parts(pipe, name).items():
        config = {key: sorted(v) if isinstance(v, set) else v for key, v in part.peft_config[name].to_dict().items()}
        about |= {f"{prefix}.{key}": value for key, value in config.items()}
        state = get_peft_model_state_dict(part, adapter_name=name)
        tensors |= {f"{prefix}.{key}": tensor.contiguous() for key, tensor in state.items()}
    header = {"format": "pt", METADATA_KEY: json.dumps(about, sort_keys=True)}
    with atomic_path(Path(folder) / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(_serialised(tensors, header))
    return Path(folder) / WEIGHTS_NAME


def lora_parts(pipe: Any, adapter: str) -> dict[str, Any]:
    """The parts of the pipeline that carry the adapter, by their names: the denoiser, and maybe text encoders."""
    parts = {**pipe.components, denoiser_name(pipe): denoiser(pipe)}
    return {name: part for name, part in parts.items() if adapter in getattr(part, "peft_config", {})}


def _serialised(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file that depends on its content alone; the library itself shuffles the metadata."""
    content = save(tensors, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def load_lora(pipe: Any, path: str | Path, adapter: str = "default") -> str:
    """Load a LoRA file or folder into the denoiser, after checking that it was made for this architecture.

    Adapters that are active stay active.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, an adapter for another model, or there is an adapter of that name already.
    """
    path = Path(path)
    path = path / WEIGHTS_NAME if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"there is no LoRA at {path}")
    check_lora(pipe, path)
    check_free(pipe, adapter)
    if not hasattr(pipe, "load_lora_weights"):
        _load_into_denoiser(pipe, path, adapter)
        return adapter
    with beside_others(denoiser(pipe), adapter):
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=adapter)
    return adapter


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a safetensors file; raises ValueError if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}): copy or train it again") from error


def check_lora(pipe: Any, path: Path) -> None:
    """Raise ValueError unless every matrix in a LoRA file fits a layer of the pipeline's denoiser."""
    prefix = f"{denoiser_name(pipe)}."
    shapes = read_shapes(path)
    ours = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    if not ours:
        found = ", ".join(sorted({key.split(".")[0] for key in shapes})) or "nothing"
        raise ValueError(f"{path} has no weights for the {prefix[:-1]} of this {type(pipe).__name__}; it has: {found}")
    check_shapes(pipe, ours, path)


def check_shapes(pipe: Any, shapes: dict[str, list[int]], path: Path, part: nn.Module | None = None) -> None:
    """Raise ValueError unless LoRA matrices with these names and shapes fit the denoiser's layers, or `part`'s."""
    layers = dict((part or denoiser(pipe)).named_modules())
    for key, shape in shapes.items():
        name, _, matrix = key.rpartition(".lora_")
        if matrix not in ("A.weight", "B.weight"):
            continue
        layer = getattr(layers.get(name), "base_layer", layers.get(name))
        side, width = ("in", shape[1]) if matrix == "A.weight" else ("out", shape[0])
        ours_width = getattr(layer, f"{side}_features", getattr(layer, f"{side}_channels", None))
        if width != ours_width:
            has = "no such layer" if ours_width is None else f"{ours_width} there"
            raise ValueError(
                f"{path} was made for another model: {name} has {width} {side}puts in the file, "
                f"this {type(pipe).__name__} has {has}"
            )


def _load_into_denoiser(pipe: Any, path: Path, adapter: str) -> None:
    """`load_lora_weights` for pipelines that do not have it (PixArt)."""
    from peft import LoraConfig

    prefix = f"{denoiser_name(pipe)}."
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    if not header:
        raise ValueError(f"{path} does not say how its LoRA was made (no {METADATA_KEY} in its header)")
    config = LoraConfig(**{key.removeprefix(prefix): value for key, value in header.items()})
    state = {key.removeprefix(prefix): tensor for key, tensor in load_file(path).items()}
    inject_lora(pipe, config, state, adapter)


def inject_lora(pipe: Any, config: Any, state: dict[str, torch.Tensor], adapter: str) -> None:
    """Add a LoRA with peft's configuration and weights to the denoiser; adapters that are active stay active."""
    from peft import inject_adapter_in_model, set_peft_model_state_dict

    module = denoiser(pipe)
    with beside_others(module, adapter):
        inject_adapter_in_model(config, module, adapter)
    set_peft_model_state_dict(module, state, adapter_name=adapter)
    if hasattr(module, "_hf_peft_config_loaded"):
        module._hf_peft_config_loaded = True  # without it diffusers' set_adapters refuses to work


def unload_lora(pipe: Any, adapter: str) -> None:
    """Remove an adapter from the denoiser; the others stay."""
    module = denoiser(pipe)
    if hasattr(module, "delete_adapters"):
        module.delete_adapters(adapter)
        return
    for layer in tuner_layers(module, adapter):
        layer.delete_adapter(adapter)
    del module.peft_config[adapter]
