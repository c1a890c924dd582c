"""Guided pipelines as files, so that `sfumato.load(path)` draws what was chosen.

```
FOLDER/
  sfumato.json                            what to load and how to blend it; see `Saved`
  pytorch_lora_weights.safetensors        the tuned LoRA (further ones in adapter-1/, ...), or
  unet/ or transformer/                   the tuned denoiser, for full fine-tunes
  README.md                               the model card
```
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi
from pydantic import Field, ValidationError, field_validator

from sfumato import emoji64
from sfumato._version import __version__
from sfumato.card import NOT_OF_THE_SCHEDULE, is_hub_id, model_card, schedule_of
from sfumato.config import PipelineConfig, Strict
from sfumato.pipelines.adapters import (
    WEIGHTS_NAME,
    adapter_names,
    denoiser,
    denoiser_name,
    lora_parts,
    save_lora,
    tuned_adapters,
    tuner_layers,
)
from sfumato.pipelines.formats import MANIFEST, load_tuned, locate, unload
from sfumato.pipelines.guidance import enable_annealed_guidance
from sfumato.pipelines.load import load_pipeline
from sfumato.pipelines.models import FullModels
from sfumato.pipelines.state import GUIDANCE
from sfumato.pipelines.trained import save_denoiser
from sfumato.runs import read_json, write_json, write_text

FORMAT = 1
DEFAULT = {"schedule": "power", "p": 2.0}
"""How `load` blends a checkpoint that does not say how, unless it is told."""


class Saved(Strict):
    """The content of `sfumato.json`."""

    format: Literal[1] = Field(description="of this file")
    version: str = Field("", description="of the sfumato that wrote it")
    pipeline: PipelineConfig = Field(description="the base model and its scheduler")
    adapters: dict[str, str] = Field({}, description="LoRA -> its file in the folder, in the order they are applied")
    weights: dict[str, float] = Field({}, description="LoRA -> its weight, where that is not 1")
    denoiser: str | None = Field(None, description="folder of the tuned denoiser, for full fine-tunes")
    guidance: dict[str, Any] = Field(description="arguments of `annealed_guidance`")

    @field_validator("adapters", "denoiser")
    @classmethod
    def _inside(cls, value: Any) -> Any:
        for path in value.values() if isinstance(value, dict) else [value or "."]:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ValueError(f"{path!r} lies outside of the folder")
        return value

    @field_validator("guidance")
    @classmethod
    def _has_schedule(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            schedule_of(value)
        except TypeError as error:
            raise ValueError(f"guidance names no schedule: {error}") from None
        return value


def load(
    source: str | Path,
    base: str | None = None,
    *,
    pipe: Any = None,
    adapter: str = "tuned",
    dtype: Any = None,
    device: Any = None,
    offload_base: bool = False,
    **guidance: Any,
) -> Any:
    """A pipeline with guidance on, from what `save` wrote or from any tuned checkpoint: one line, ready to draw.

    `sfumato.load("me/my-lora")` needs no more. For a checkpoint of someone else's say what it was tuned from:
    `sfumato.load("mhdang/dpo-sd1.5-text2image-v1", base="stable-diffusion-v1-5/stable-diffusion-v1-5", p=2)`.
    `sfumato.disable_annealed_guidance(pipe)` leaves the tuned pipeline.

    Args:
        source: a file or folder, `owner/name` on the Hugging Face hub, or `owner/name/file or folder in it`: a LoRA of
            diffusers, peft or kohya, or a whole UNet or transformer.
        base: the pipeline that it was tuned from: a folder, a hub id, `"emoji64"` or `"emoji64-flow"`; by default the
            saved one.
        pipe: that pipeline as an object, which is changed; it keeps its scheduler.
        adapter: name for a LoRA, where the source does not say.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, also as torch's; by default what was saved, else float32.
        device: where to; by default an accelerator if there is one.
        offload_base: keep the base's denoiser on the CPU beside a tuned one on the accelerator, and stream its layers.
        **guidance: as for `annealed_guidance`; by default what was saved, else its schedule "power" with p = 2.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the source is damaged, a pickle, or made for another model; the guidance is wrong; the base is not
            known. A given `pipe` is then as it was.
    """
    if pipe is not None and not (base is None and dtype is None and device is None):
        raise ValueError("pipe= is loaded already: base=, dtype= and device= are for loading one")
    folder = locate(source)
    saved = read_saved(folder) if (folder / MANIFEST).exists() else None
    wanted = _wanted(saved, guidance, adapter)
    if pipe is None:
        pipe = _load_base(folder, saved, base, dtype, device)
    with ExitStack() as undo:
        tuned = saved.adapters if saved and saved.adapters else {adapter: saved.denoiser if saved else ""}
        for name, file in tuned.items():
            old = load_tuned(pipe, folder / (file or ""), name, offload_base)
            if old is None:
                undo.callback(unload, pipe, name)
                _set_weight(pipe, name, saved.weights.get(name, 1.0) if saved else 1.0)
            else:
                undo.callback(_restore, pipe, old)
                wanted = {key: value for key, value in wanted.items() if key != "adapter"} | {"base": old}
        enable_annealed_guidance(pipe, **wanted)
        undo.pop_all()
    return pipe


def _wanted(saved: Saved | None, given: Mapping[str, Any], adapter: str) -> dict[str, Any]:
    """The arguments of guidance: what is saved or the default, with changes; a given schedule replaces it whole."""
    known = saved.guidance if saved else {**DEFAULT, "adapter": adapter}
    kept = known if "schedule" not in given else {k: v for k, v in known.items() if k in NOT_OF_THE_SCHEDULE}
    wanted = {**kept, **given}
    schedule_of(wanted)
    return wanted


def _load_base(folder: Path, saved: Saved | None, base: str | None, dtype: Any, device: Any) -> Any:
    if saved is None and base is None:
        if (folder / "run.json").exists():
            raise ValueError(f"{folder} is a run folder: make a guided pipeline of it with `sfumato export`")
        raise ValueError(f"say which pipeline {folder} was tuned from: base='owner/name', or pipe=")
    given = {"path": base, "dtype": str(dtype).removeprefix("torch.") if dtype else None}
    known = saved.pipeline.model_dump() if saved else {}
    try:
        config = PipelineConfig(**{**known, **{key: value for key, value in given.items() if value}})
    except ValidationError as error:
        raise ValueError(f"base= or dtype= is wrong: {explained(error)}") from None
    pipe = load_pipeline(config, device)
    pipe.set_progress_bar_config(disable=False)
    return pipe


def _restore(pipe: Any, base: Any) -> None:
    setattr(pipe, denoiser_name(pipe), base.to(next(denoiser(pipe).parameters()).device))


def read_saved(folder: Path) -> Saved:
    """Read and check a folder's `sfumato.json`; raises ValueError saying what is wrong with it."""
    path = folder / MANIFEST
    try:
        values = read_json(path)
        if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise ValueError(f"it was written by sfumato {values.get('version')}, which is newer: upgrade sfumato")
        return Saved.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"cannot read {path}: {explained(error)}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def explained(error: ValidationError) -> str:
    """What is wrong, in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())


def save(pipe: Any, folder: str | Path, base: str | None = None) -> Path:
    """Write a guided pipeline so that `sfumato.load(folder)` draws the same images.

    Saved are the LoRAs that are active on the denoiser, or the tuned denoiser where a second model is the base; how
    they are blended; the scheduler; and the name of the base, not the base itself.

    Args:
        pipe: with guidance on, see `enable_annealed_guidance` and `load`.
        folder: made if it is not there; a saved pipeline in it is replaced, its README.md too.
        base: where others find the base pipeline; by default where it was loaded from.

    Raises:
        ValueError: guidance is off or cannot be written (a Python callable), or the base is not known.
    """
    guidance = getattr(pipe, GUIDANCE, None)
    if guidance is None:
        raise ValueError("guidance is off: turn it on with sfumato.enable_annealed_guidance(pipe, ...) first")
    if isinstance(guidance.models, FullModels):
        saved = _save_denoiser(pipe, guidance, Path(folder), base)
    else:
        saved = _save_loras(pipe, guidance, Path(folder), base)
    return write(Path(folder), saved, {})


def _save_denoiser(pipe: Any, guidance: Any, folder: Path, base: str | None) -> Saved:
    module, kind = denoiser(pipe), denoiser_name(pipe)
    if adapter_names(module):
        raise ValueError(f"the tuned {kind} carries LoRAs too: remove them with pipe.unload_lora_weights() first")
    savings = guidance.blender.savings.to_dict()
    saved = Saved(
        format=FORMAT,
        version=__version__,
        pipeline=_pipeline_config(pipe, base),
        denoiser=kind,
        guidance=guidance.schedule.to_dict() | {"blend": guidance.blend} | ({"savings": savings} if savings else {}),
    )
    save_denoiser(pipe, folder)
    return saved


def _save_loras(pipe: Any, guidance: Any, folder: Path, base: str | None) -> Saved:
    described, blended = guidance.to_dict(), guidance.adapter
    chosen = described.pop("adapter", None)
    tuned = tuned_adapters(pipe, list(blended) if isinstance(blended, Mapping) else blended)
    active = _active_adapters(pipe)
    order = [*tuned, *(name for name in active if name not in tuned)]
    files = {name: f"adapter-{i}/{WEIGHTS_NAME}" if i else WEIGHTS_NAME for i, name in enumerate(order)}
    weights = {name: _weight(pipe, name) for name in active}
    saved = Saved(
        format=FORMAT,
        version=__version__,
        pipeline=_pipeline_config(pipe, base or getattr(pipe, "name_or_path", None)),
        adapters={name: files[name] for name in active},
        weights={name: weight for name, weight in weights.items() if weight != 1.0},
        guidance={**described, "adapter": chosen if isinstance(blended, Mapping) else tuned[0]},
    )
    for name in active:
        save_lora(pipe, (folder / files[name]).parent, name)
    return saved


def _pipeline_config(pipe: Any, base: str | None) -> PipelineConfig:
    """The base pipeline by name, with the scheduler that is on it now."""
    if not base:
        raise ValueError("say where the base pipeline is to be found: base='owner/name' on the hub, or a folder")
    scheduler = pipe.scheduler
    kind = type(scheduler).__name__
    if not type(scheduler).__module__.startswith("diffusers."):
        raise ValueError(f"the scheduler {kind} is not one of diffusers: set one of its own before saving")
    bundled = {emoji64.pipeline_path(name): name for name in emoji64.PIPELINES}
    defaults = {name: p.default for name, p in inspect.signature(type(scheduler).__init__).parameters.items()}
    settings = {key: value for key, value in json.loads(scheduler.to_json_string()).items() if key in defaults}
    endless = [key for key, value in settings.items() if value in (math.inf, -math.inf) and value == defaults[key]]
    return PipelineConfig(
        path=bundled.get(Path(base), base),
        dtype=str(denoiser(pipe).dtype).removeprefix("torch."),
        scheduler=kind,
        scheduler_arguments={key: value for key, value in settings.items() if key not in endless},  # JSON has no inf
    )


def _active_adapters(pipe: Any) -> list[str]:
    """The adapters at work on the denoiser, in the order in which they are applied."""
    module = denoiser(pipe)
    on_denoiser = adapter_names(module)
    for part in pipe.components.values():
        lost = set(getattr(part, "peft_config", {})).difference(on_denoiser)
        if lost:
            raise ValueError(f"the adapter {min(lost)} is on a text encoder alone, which cannot be saved: remove it")
    layers = [layer for name in on_denoiser for layer in tuner_layers(module, name)]
    return list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))


def _weight(pipe: Any, adapter: str) -> float:
    """The weight that `pipe.set_adapters` gave an adapter; raises ValueError if it is not the same in all layers."""
    found = set()
    for layer in (layer for part in lora_parts(pipe, adapter).values() for layer in tuner_layers(part, adapter)):
        scaling = layer.scaling[adapter]
        layer.set_scale(adapter, 1.0)
        whole, layer.scaling[adapter] = layer.scaling[adapter], scaling
        found.add(round(scaling / whole, 9) if whole else 1.0)
    if len(found) > 1:
        raise ValueError(f"the adapter {adapter} has several weights ({found}), which cannot be saved: give it one")
    return found.pop()


def _set_weight(pipe: Any, adapter: str, weight: float) -> None:
    for part in lora_parts(pipe, adapter).values():
        for layer in tuner_layers(part, adapter):
            layer.set_scale(adapter, weight)


def write(folder: Path, saved: Saved, facts: Mapping[str, str]) -> Path:
    """Write the card and, last, what makes the folder a saved pipeline; `facts` are what else the card says."""
    values = saved.model_dump(mode="json")
    base = values["pipeline"]["path"]
    values["pipeline"]["path"] = str(Path(base).resolve()) if Path(base).exists() else base
    write_text(folder / "README.md", model_card(base, saved.guidance, bool(saved.adapters), facts))
    write_json(folder / MANIFEST, {key: value for key, value in values.items() if value})
    return folder


def push_to_hub(folder: str | Path, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Upload a saved pipeline to the Hugging Face hub, from where `sfumato.load(repository)` has it; returns its URL.

    Args:
        folder: what `save` wrote.
        repository: `owner/name`, made if it is not there.
        private: whether a new repository is private; by default what the account says.
        token: by default the one of `hf auth login`.

    Raises:
        ValueError: the folder holds no saved pipeline, or its base lies on this machine alone.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} holds no saved pipeline (no {MANIFEST}): write one with sfumato.save")
    base = read_saved(folder).pipeline.path
    if base not in emoji64.PIPELINES and not is_hub_id(base):
        raise ValueError(f"others do not have the base pipeline {base!r}: save again with base='owner/name' on the hub")
    api = HfApi(token=token)
    url = api.create_repo(repository, private=private, exist_ok=True)
    patterns = ["README.md", "*.json", "*.safetensors"]
    api.upload_folder(
        repo_id=repository, folder_path=folder, allow_patterns=patterns, commit_message="Save with sfumato"
    )
    return str(url)
