"""The files that people have: tuned checkpoints found, recognised, checked against a pipeline and loaded into it.

| kind | what it is |
|---|---|
| lora | `pytorch_lora_weights.safetensors`, and kohya's and others' files that diffusers' own converters read |
| peft | `adapter_model.safetensors` beside `adapter_config.json`, as `PeftModel.save_pretrained` writes them |
| denoiser | a whole UNet or transformer, alone or inside a pipeline's folder |

Only safetensors are read. A file that is damaged or made for another model is refused before anything is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from sfumato.pipelines.adapters import (
    WEIGHTS_NAME,
    adapter_names,
    beside_others,
    check_free,
    check_shapes,
    denoiser,
    denoiser_name,
    inject_lora,
    load_lora,
    read_shapes,
    unload_lora,
)

MANIFEST = "sfumato.json"
"""What `sfumato.save` writes beside a LoRA."""
PEFT_CONFIG = "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_BESIDE = ("config.json", PEFT_CONFIG)
_ABOUT = ("scheduler/scheduler_config.json", "vae/config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A tuned checkpoint on the disk.

    Attributes:
        kind: `"lora"`, `"peft"` or `"denoiser"`.
        files: its safetensors files; several if it is sharded.
        shapes: the shape of every tensor in them.
    """

    kind: str
    files: tuple[Path, ...]
    shapes: dict[str, list[int]]


def locate(source: str | Path) -> Path:
    """The file or folder that `source` names; what is needed of a model on the Hugging Face hub is downloaded.

    Args:
        source: a path, or `owner/name` on the hub, or `owner/name/file or folder inside`.

    Raises:
        FileNotFoundError: there is no such path, and no such model on the hub or no way to reach it.
        ValueError: the model on the hub holds nothing that can be read; the message says why.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/(.+?))?/?", str(source))
    if hub is None:
        raise FileNotFoundError(f"there is no file or folder {str(source)!r}")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError

    repository, inside = hub[1], hub[2] or ""
    try:
        try:
            wanted = _wanted(HfApi().list_repo_files(repository), inside, str(source))
        except (OSError, HTTPError) as error:
            try:  # what an earlier call has downloaded
                return Path(snapshot_download(repository, local_files_only=True)) / inside
            except OSError:
                raise error from None
        return Path(snapshot_download(repository, allow_patterns=wanted)) / inside
    except (OSError, HTTPError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"there is no file or folder {str(source)!r} here, and it cannot be had from the hub: {reason}"
        ) from error


def _wanted(names: Sequence[str], inside: str, where: str) -> list[str]:
    """The files to download of a model on the hub that has files of these names."""
    if inside in names:
        return [inside, str(Path(inside).with_name(PEFT_CONFIG))]
    prefix = f"{inside}/" if inside else ""
    ours = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    if MANIFEST in ours:
        return [f"{prefix}*.json", f"{prefix}*.safetensors"]
    files = _weight_files(ours, where)
    folder = files[0].rpartition("/")[0]
    beside = [f"{folder}/{name}" if folder else name for name in _BESIDE]
    return [prefix + name for name in [*files, *beside, *_ABOUT]]


def recognise(path: Path) -> Checkpoint:
    """What kind of checkpoint a file or folder holds.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: nothing in it can be read, it is a pickle, it is damaged, or it is not clear which file is meant.
    """
    if path.is_dir():
        names = [str(p.relative_to(path).as_posix()) for pattern in ("*", "*/*") for p in sorted(path.glob(pattern))]
        files = tuple(path / name for name in _weight_files(names, str(path)))
    elif path.suffix in _PICKLES:
        raise ValueError(_pickled(str(path), path.name))
    elif path.exists():
        files = (path,)
    else:
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    shapes = {key: shape for file in files for key, shape in read_shapes(file).items()}
    if any(key.startswith(_PEFT_PREFIX) for key in shapes) and (files[0].parent / PEFT_CONFIG).exists():
        return Checkpoint("peft", files, shapes)
    adapter = any(re.search(r"lora|lokr_|hada_", key) for key in shapes)
    return Checkpoint("lora" if adapter else "denoiser", files, shapes)


def _weight_files(names: Sequence[str], where: str) -> list[str]:
    """Those of a folder's files that hold the tuned weights; raises ValueError if that is none or not clear."""
    for name in (WEIGHTS_NAME, "adapter_model.safetensors"):
        if name in names:
            return [name]
    for folder in ("", "unet/", "transformer/"):
        variants: dict[str, list[str]] = {}
        for name in sorted(names):
            part = re.fullmatch(rf"{folder}diffusion_pytorch_model(\.\w+)?(-\d+-of-\d+)?\.safetensors", name)
            if part:
                variants.setdefault(part[1] or "", []).append(name)
        if variants:
            return _whole(variants[min(variants)], where)
    loose = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if len(loose) == 1:
        return loose
    if loose:
        raise ValueError(f"{where} holds several checkpoints ({', '.join(loose)}): give the path of one of them")
    pickled = [name for name in names if name.endswith(_PICKLES)]
    if pickled:
        raise ValueError(_pickled(where, ", ".join(pickled[:3])))
    raise ValueError(f"{where} holds no LoRA, no unet and no transformer in safetensors files")


def _whole(files: list[str], where: str) -> list[str]:
    shards = re.search(r"-of-(\d+)\.safetensors$", files[0])
    if shards and len(files) != int(shards[1]):
        raise ValueError(f"{where} is incomplete: it has {len(files)} of {int(shards[1])} shards; copy it again")
    return files


def _pickled(where: str, names: str) -> str:
    return (
        f"{where} has its weights in pickles ({names}), which can run any code when they are opened, so sfumato reads "
        "none: take the safetensors files of the same model, or convert it (https://huggingface.co/spaces/safetensors/"
        "convert does that on the hub)"
    )


def load_tuned(pipe: Any, path: Path, adapter: str = "tuned", offload_base: bool = False) -> nn.Module | None:
    """Make `pipe` the tuned model, from any checkpoint that `recognise` knows.

    Args:
        pipe: the base pipeline. Adapters that are active on it stay active.
        path: a file or folder, see `locate`.
        adapter: name for a LoRA.
        offload_base: move the base's denoiser to the CPU, where a whole tuned denoiser takes its place.

    Returns:
        None for a LoRA; for a whole denoiser the base's own, which is to be given to guidance as `base=`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the checkpoint is damaged, a pickle, or made for another model; `pipe` is as it was.
    """
    checkpoint = recognise(path)
    if checkpoint.kind == "denoiser":
        return _replace_denoiser(pipe, checkpoint, offload_base)
    check_free(pipe, adapter)
    if checkpoint.kind == "peft":
        _load_peft(pipe, checkpoint, adapter)
    elif _in_our_format(pipe, checkpoint):
        load_lora(pipe, checkpoint.files[0], adapter)
    else:
        _load_foreign(pipe, checkpoint, adapter)
    return None


def _in_our_format(pipe: Any, checkpoint: Checkpoint) -> bool:
    """Whether `load_lora` can check the file itself: it has diffusers' names and peft's matrices."""
    prefix = f"{denoiser_name(pipe)}."
    ours = [key for key in checkpoint.shapes if key.startswith(prefix)]
    return bool(ours) and all(".lora_" in key for key in ours)


def _load_peft(pipe: Any, checkpoint: Checkpoint, adapter: str) -> None:
    from peft import LoraConfig, PeftConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    file = checkpoint.files[0]
    try:
        config = PeftConfig.from_pretrained(str(file.parent))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file.parent / PEFT_CONFIG} is damaged or of no known kind: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{file} is a {config.peft_type} adapter: sfumato guides LoRA adapters")
    if config.bias != "none" or config.modules_to_save:
        raise ValueError(f"{file} changes biases or whole modules of the base model, so it cannot be switched off")
    shapes = {key.removeprefix(_PEFT_PREFIX): shape for key, shape in checkpoint.shapes.items()}
    check_shapes(pipe, shapes, file)
    named = {key.rpartition(".lora_")[0] for key in shapes}
    layers = [(name.removesuffix(".base_layer"), layer) for name, layer in denoiser(pipe).named_modules()]
    wanted = {n for n, layer in layers if hasattr(layer, "weight") and check_target_module_exists(config, n)}
    if named != wanted:
        raise ValueError(
            f"{file} and its {PEFT_CONFIG} disagree about the layers they adapt, for example {min(named ^ wanted)}: "
            "copy both from the same model"
        )
    state = {key.removeprefix(_PEFT_PREFIX): tensor for key, tensor in load_file(file).items()}
    inject_lora(pipe, config, state, adapter)


def _load_foreign(pipe: Any, checkpoint: Checkpoint, adapter: str) -> None:
    """Load kohya's and other LoRA files through diffusers' converters, after checking what they make of them."""
    file, name = checkpoint.files[0], denoiser_name(pipe)
    if not hasattr(pipe, "load_lora_weights"):
        raise ValueError(f"{file} is in a format that a {type(pipe).__name__} cannot read: convert it to peft's format")
    where = {"weight_name": file.name, "use_safetensors": True}
    try:
        found = pipe.lora_state_dict(str(file.parent), unet_config=denoiser(pipe).config, **where)
        shapes = _shapes_of_parts(pipe, found[0] if isinstance(found, tuple) else found)
    except Exception as error:  # the converters raise whatever they trip over
        raise ValueError(f"{file} cannot be read as a LoRA of a {type(pipe).__name__}: {error}") from error
    if name not in shapes:
        kinds = ", ".join(sorted({re.split(r"[._]", key)[0] for key in checkpoint.shapes}))
        raise ValueError(f"{file} has no weights for the {name} of this {type(pipe).__name__}; it has: {kinds}")
    for part in shapes:
        check_shapes(pipe, shapes[part], file, denoiser(pipe) if part == name else getattr(pipe, part))
    with ExitStack() as stack:
        for module in pipe.components.values():
            if isinstance(module, nn.Module):
                stack.enter_context(beside_others(module, adapter))
        pipe.load_lora_weights(str(file.parent), adapter_name=adapter, **where)


def _shapes_of_parts(pipe: Any, state: dict[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Part of the pipeline -> the shapes of its LoRA matrices under peft's names, as diffusers will rename them."""
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    found = {}
    for part, module in pipe.components.items():
        ours = {key.removeprefix(f"{part}."): tensor for key, tensor in state.items() if key.startswith(f"{part}.")}
        if not ours:
            continue
        if part != denoiser_name(pipe):
            ours = convert_state_dict_to_peft(convert_state_dict_to_diffusers(ours))
            flat = "" if hasattr(module, "text_model") else "text_model."
            ours = {key.removeprefix(flat): tensor for key, tensor in ours.items()}
        elif not any(".lora_A" in key for key in ours):
            ours = convert_unet_state_dict_to_peft(ours)
        found[part] = {key: list(tensor.shape) for key, tensor in ours.items()}
    return found


def unload(pipe: Any, adapter: str) -> None:
    """Remove an adapter from every part of the pipeline that carries it."""
    for part in pipe.components.values():
        if part is denoiser(pipe):
            unload_lora(pipe, adapter)
        elif adapter in getattr(part, "peft_config", {}):
            part.delete_adapter(adapter)


def _replace_denoiser(pipe: Any, checkpoint: Checkpoint, offload_base: bool) -> nn.Module:
    base = denoiser(pipe)
    if adapter_names(base):
        raise ValueError(
            f"the pipeline's {denoiser_name(pipe)} carries LoRAs, which a whole tuned denoiser would not: remove them "
            "with pipe.unload_lora_weights() first"
        )
    _check_relatives(pipe, checkpoint)
    tuned = _empty_like(base, checkpoint)
    _check_denoiser(tuned, checkpoint)
    likes = {
        name.replace(".base_layer.", "."): tensor for name, tensor in [*base.named_parameters(), *base.named_buffers()]
    }
    state = {key: tensor for file in checkpoint.files for key, tensor in load_file(file).items()}
    tuned.load_state_dict({key: tensor.to(likes[key].dtype) for key, tensor in state.items()}, assign=True)
    for name, buffer in tuned.named_buffers():
        buffer.data = buffer.data.to(likes[name].dtype)
    device = next(base.parameters()).device
    if offload_base:
        base.to("cpu")
    setattr(pipe, denoiser_name(pipe), tuned.eval().to(device))
    return base


def _empty_like(base: Any, checkpoint: Checkpoint) -> Any:
    """A denoiser of the base's class without weights, with the checkpoint's own configuration where it has one."""
    from accelerate import init_empty_weights

    path = checkpoint.files[0].parent / "config.json"
    own = _read_json(path) if path.exists() else {}
    name = own.get("_class_name", type(base).__name__)
    if name != type(base).__name__:
        raise ValueError(f"{path} describes a {name}, the pipeline's denoiser is a {type(base).__name__}")
    config: Any = {**base.config, **own}
    try:
        with init_empty_weights():
            return type(base).from_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no {name} that this diffusers can make: {error}") from error


def _check_denoiser(tuned: nn.Module, checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the checkpoint holds exactly the weights of the denoiser."""
    wanted = {key: list(tensor.shape) for key, tensor in tuned.state_dict().items()}
    file, name = checkpoint.files[0], type(tuned).__name__
    foreign = sorted(checkpoint.shapes.keys() - wanted.keys())
    if foreign and not checkpoint.shapes.keys() & wanted.keys():
        raise ValueError(
            f"{file} names its weights differently (such as {foreign[0]}). If it is a {name} in the original format of "
            f"its authors, convert it: {name}.from_single_file(...).save_pretrained(FOLDER)"
        )
    for key in sorted(wanted.keys() | checkpoint.shapes.keys()):
        has, needs = checkpoint.shapes.get(key), wanted.get(key)
        if has != needs:
            raise ValueError(f"{file} was made for another model: {key} is {has} in the file, {needs} in the {name}")


def _check_relatives(pipe: Any, checkpoint: Checkpoint) -> None:
    """Raise ValueError if the checkpoint's pipeline predicts something else or scales its latents otherwise."""
    folder = checkpoint.files[0].parent
    root = folder.parent if folder.name in ("unet", "transformer") else folder
    for name, keys in (
        ("scheduler/scheduler_config.json", ("prediction_type",)),
        ("vae/config.json", ("scaling_factor", "shift_factor", "latent_channels")),
    ):
        theirs = _read_json(root / name) if (root / name).exists() else {}
        ours = getattr(getattr(pipe, name.partition("/")[0], None), "config", {})
        for key in keys:
            if key in theirs and key in ours and theirs[key] != ours[key]:
                raise ValueError(
                    f"{root} has {key} = {theirs[key]}, the pipeline {ours[key]}: base and tuned cannot be mixed"
                )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return value
