"""What the code in the documentation takes for granted: a folder to work in, and something in place of the hub."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml

import sfumato.bundle
import sfumato.frontier.tune
from sfumato.config import SamplingConfig, TrainingConfig, load_recipe
from sfumato.experiment import Experiment
from sfumato.images import save_png
from sfumato.pipelines.adapters import save_lora
from sfumato.training import Trainer
from tests import tiny
from tests.frontier.measured_bed import make_frontier, write_run
from tests.preferences.world import write_pairs
from tests.tiny_run import write_recipe

HUB = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd",
    "mhdang/dpo-sd1.5-text2image-v1": "sd",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA/spo_sdxl_10ep_4k-data_lora_diffusers.safetensors": "sdxl",
    "stabilityai/stable-diffusion-3.5-medium": "sd3",
    "jieliu/SD3.5M-FlowGRPO-PickScore": "sd3",
}
"""Ids of the hub, and the family of the tiny random pipeline, or of the LoRA for it, that stands in their place."""
MEASURED = {
    "prompts": ["a", "b", "d", "e", "f", "g"],
    "images_per_prompt": 8,
    "batch_size": 8,
    "neighbours": 1,
    "gold": {"name": "brightness"},
    "points": [
        {"kind": "base"},
        {"kind": "tuned"},
        {"kind": "lora_scale", "scale": 0.5},
        *({"kind": "guidance", "schedule": "power", "parameters": {"p": p}} for p in (1, 2, 4)),
    ],
}
"""The evaluation of `runs/mine`, with what the documentation asks of it: gold, AIG at three powers, recall."""
CLASSES = {
    "sd": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
    "sd3": diffusers.StableDiffusion3Pipeline,
}


@pytest.fixture(scope="session")
def shelf(world, tmp_path_factory) -> Path:
    """The files that readers are taken to have; not to be written to."""
    folder = tmp_path_factory.mktemp("shelf")
    recipe = write_recipe(folder / "tiny.yaml", world, evaluation=MEASURED | {"features": str(world / "vision")})
    experiment = Experiment(load_recipe(recipe, [f"run={folder / 'runs/mine'}"]))
    list(experiment.train())
    experiment.evaluate()
    for name in ("emoji64-frontier", "emoji64-demo"):
        shutil.copytree(folder / "runs/mine", folder / "runs" / name)
    for seed, name in enumerate(("a", "b", "c", "seed0", "seed1", "seed2")):
        write_run(folder / "runs" / name, make_frontier(noise=0.4, seed=seed), training={"seed": seed})
    (folder / "mine.yaml").write_text(yaml.safe_dump(load_recipe("emoji64-draft").resolved()))
    (folder / "mine.txt").write_text("a dog\na street\n")
    write_pairs(folder, 12, seed=1, prompts=["a", "b"], name="train")
    write_pairs(folder, 12, seed=2, prompts=["c", "d"], name="held_out")
    for name in ("cat", "dog"):
        save_png(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(len(name))), folder / f"{name}.png")
    for family in CLASSES:
        save_lora(tiny.pipeline(family, lora=True), folder / "loras" / family, "default")
    return folder


@pytest.fixture
def desk(shelf, tmp_path, monkeypatch) -> Path:
    """A copy of them in the working directory."""
    folder = shutil.copytree(shelf, tmp_path / "desk")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def stand_ins(desk, monkeypatch) -> None:
    """Tiny pipelines and LoRAs for the hub's, the CPU for a GPU, two short updates for a training."""
    hub = {name: desk / "loras" / family for name, family in HUB.items()}
    load, to, locate = (
        diffusers.DiffusionPipeline.from_pretrained,
        diffusers.DiffusionPipeline.to,
        sfumato.bundle.locate,
    )
    begin, tune = Trainer.__init__, sfumato.frontier.tune.tune_schedule
    small = {"budget": 40, "images_per_prompt": 2, "call": {"num_inference_steps": 2}}

    def from_pretrained(path: str, **options: Any) -> Any:
        if path not in HUB:
            return load(path, **options)
        pipe = tiny.pipeline(HUB[path])
        pipe.register_to_config(_name_or_path=path)
        return pipe

    class Hub:
        def __init__(self, token: str | None) -> None: ...

        def create_repo(self, repository: str, **options: Any) -> str:
            return repository

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> None:
            hub[repo_id] = shutil.copytree(folder_path, desk / "uploaded" / repo_id)

    def short(self: Trainer, pipe: Any, objective: Any, reward: Any, prompts: Any, config: TrainingConfig, *rest: Any):
        sampling = SamplingConfig(**rest[0].model_dump() | {"num_inference_steps": 4})
        less = {
            "steps": 2,
            "batch_size": 4,
            "images_per_prompt": min(2, config.images_per_prompt),
            "micro_batch_size": 1,
        }
        begin(self, pipe, objective, reward, prompts, TrainingConfig(**config.model_dump() | less), sampling, *rest[1:])

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", staticmethod(from_pretrained))
    monkeypatch.setattr(
        diffusers.DiffusionPipeline, "to", lambda self, *a, **k: self if a == ("cuda",) else to(self, *a, **k)
    )
    monkeypatch.setattr(sfumato.bundle, "locate", lambda source: hub.get(source) or locate(source))
    monkeypatch.setattr(sfumato.bundle, "HfApi", Hub)
    monkeypatch.setattr(Trainer, "__init__", short)
    monkeypatch.setattr(sfumato.frontier.tune, "tune_schedule", lambda *a, **k: tune(*a, **k | small))
    for family, cls in CLASSES.items():
        monkeypatch.setattr(cls, "load_lora_weights", _loads(cls.load_lora_weights, desk / "loras" / family))
        monkeypatch.setattr(cls, "__call__", _quick(cls.__call__))


def _loads(own: Any, lora: Path) -> Any:
    """Load a LoRA that is there, and else the one that stands in for it."""

    @functools.wraps(own)
    def load_lora_weights(self: Any, source: Any, **options: Any) -> None:
        if isinstance(source, str) and not Path(source).exists():
            source, options = lora, {key: value for key, value in options.items() if key != "weight_name"}
        own(self, source, **options)

    return load_lora_weights


def _quick(own: Any) -> Any:
    """Draw at most two images, and in four steps where the caller leaves their number to the pipeline."""

    @functools.wraps(own)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        options["num_images_per_prompt"] = min(2, options.get("num_images_per_prompt") or 1)
        return own(self, *arguments, **{"num_inference_steps": 4} | options)

    return call
