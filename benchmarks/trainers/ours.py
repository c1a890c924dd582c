"""Our side: one update of a `sfumato.training.Trainer` at a time."""

from __future__ import annotations

import tempfile
from typing import Any

from bed import PROMPTS, RANK, REWARDS, Settings, Side
from diffusers import DiffusionPipeline

from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.training import Trainer
from sfumato.training.objective import build_objective

EXACT = {"dtype": None, "denoiser_every": 1}
DRAFT = {"objective": {"name": "draft", "last_steps": 1}}
METHODS: dict[str, dict[str, Any]] = {
    "draft": DRAFT,
    "draft, float32": {**DRAFT, "prefix": {"dtype": None}},
    "draft, exact": {**DRAFT, "prefix": EXACT},
    "draft, nothing saved": {
        **DRAFT,
        "prefix": {**EXACT, "merge": False},
        "gradient_checkpointing": False,
        "memory": {"lean": False},
    },
    "draft, decoding singly": {**DRAFT, "memory": {"decode_singly": True}},
    "ddpo": {"objective": {"name": "ddpo", "baseline": "update", "normalize": "update"}},
}


def start(settings: Settings) -> Side:
    pipe = DiffusionPipeline.from_pretrained(settings.folder, safety_checker=None)
    common = {"steps": 10**6, "checkpoint_every": 10**6, "monitor_every": None, "lora": {"rank": RANK}}
    own = {"batch_size": settings.batch, "lr": settings.lr, "seed": settings.seed, "weight_decay": 1e-4}
    config = TrainingConfig.model_validate({**common, **own, **METHODS[settings.method]})
    noise = {"eta": 1.0} if settings.method == "ddpo" else {}
    sampling = SamplingConfig(num_inference_steps=settings.steps, guidance_scale=settings.guidance, arguments=noise)
    reward, folder = REWARDS[settings.reward](), tempfile.mkdtemp()
    trainer = Trainer(pipe, build_objective(config.objective), reward, PROMPTS, config, sampling, folder)
    updates = iter(trainer)
    return Side(pipe, lambda: next(updates))
