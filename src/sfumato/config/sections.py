"""The model, how it samples, what rewards it and how it is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sfumato.config.memory import MemoryConfig
from sfumato.config.objectives import DraftConfig, ObjectiveConfig
from sfumato.config.regularizers import RegularizersConfig, ShapingConfig
from sfumato.config.strict import Strict
from sfumato.config.watching import FloorConfig, WatchConfig


class PipelineConfig(Strict):
    """Which diffusers pipeline to load."""

    path: str = Field("emoji64", description="bundled 'emoji64' or 'emoji64-flow', a folder, or a model id on the hub")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of all weights but the LoRA's")
    scheduler: str | None = Field(None, description="class name of a diffusers scheduler to use instead")
    scheduler_arguments: dict[str, Any] = Field({}, description="settings of the scheduler to change")


class SamplingConfig(Strict):
    """How pictures are sampled, in training and in evaluation."""

    num_inference_steps: int = Field(20, ge=1, description="denoising steps")
    guidance_scale: float = Field(5.0, description="of classifier-free guidance")
    arguments: dict[str, Any] = Field({}, description="further arguments of the pipeline's call, such as eta or height")

    def call(self, **changes: Any) -> dict[str, Any]:
        """The pipeline arguments, with changes."""
        own = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        return {**own, **self.arguments, **changes}


class LoraConfig(Strict):
    """The LoRA that is trained."""

    rank: int = Field(8, ge=1, description="r of the update B A")
    alpha: float | None = Field(None, description="the update is scaled by alpha / rank; null means alpha = rank")
    targets: list[str] | None = Field(None, description="suffixes of layer names; null means the attention projections")


class PrefixConfig(Strict):
    """How sampling steps without gradient are run, where others of the same images carry it.

    docs/training.md says what each setting saves, and what it does to the gradient.
    """

    merge: bool = Field(True, description="add the LoRA to the weights meanwhile, the same but for rounding")
    dtype: Literal["auto", "bfloat16", "float16"] | None = Field(
        "auto",
        description="compute in this dtype; `auto` is bfloat16 for weights in float32 on hardware that has it",
    )
    denoiser_every: int = Field(
        2, ge=1, description="run the denoiser in every n-th step, and foresee the others; 1 changes no image"
    )


class TrainingConfig(Strict):
    """One training. The same settings give the same weights, however often it is interrupted."""

    objective: ObjectiveConfig = Field(DraftConfig(), description="how the reward is maximised")
    regularizers: RegularizersConfig = Field(RegularizersConfig(), description="what holds the model near its base")
    shaping: ShapingConfig = Field(ShapingConfig(), description="what is done to rewards before they are maximised")
    lora: LoraConfig | None = Field(LoraConfig(), description="what is trained; null means the whole denoiser")
    steps: int = Field(100, ge=1, description="optimiser updates")
    batch_size: int = Field(8, ge=1, description="images per update, over all processes")
    images_per_prompt: int = Field(1, ge=1, description="images of one prompt in an update; batch_size is a multiple")
    micro_batch_size: int | None = Field(None, ge=1, description="images at a time; null means the whole batch")
    lr: float = Field(3e-4, gt=0, description="learning rate of AdamW")
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="adamw_8bit: that of bitsandbytes, on a GPU")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up, down to 0")
    warmup_steps: int = Field(0, ge=0, description="updates in which lr rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are clipped to this norm")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="keep and save an exponential moving average")
    prefix: PrefixConfig = Field(PrefixConfig(), description="sampling before the steps that carry gradient")
    gradient_checkpointing: bool | None = Field(
        None,
        description="less memory for a third more compute in steps with gradient; null: if those are 1/16 or less",
    )
    memory: MemoryConfig = Field(MemoryConfig(), description="how to need less of it")
    seed: int = Field(0, ge=0, description="of the LoRA's first weights, the order of prompts and the images")
    checkpoint_every: int = Field(20, ge=1, description="updates between checkpoints; the last update has one too")
    monitor_every: int | None = Field(20, ge=1, description="updates between looks at held-out prompts; null for never")
    monitor_prompts: int = Field(4, ge=1, description="how many of the evaluation prompts the monitor looks at")
    monitor_images: int = Field(4, ge=2, description="images per prompt that the monitor looks at")
    watch: WatchConfig | None = Field(None, description="stop, or say so, when looks show that it went too far")
    floor: FloorConfig | None = Field(None, description="hold a share of the base's diversity by the regularizers")
    trackers: list[str] = Field([], description="trackers of accelerate beside metrics.jsonl: tensorboard, wandb, ...")

    @model_validator(mode="after")
    def _whole_groups(self) -> TrainingConfig:
        if self.batch_size % self.images_per_prompt:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of images_per_prompt {self.images_per_prompt}"
            )
        if self.regularizers.diversity and self.images_per_prompt < 2:
            raise ValueError("regularizers.diversity compares images of one prompt: set images_per_prompt to 2 or more")
        return self

    @model_validator(mode="after")
    def _floor_has_a_hold(self) -> TrainingConfig:
        if self.floor and self.regularizers == RegularizersConfig():
            raise ValueError(
                "floor holds diversity by the regularizers, and there is none: give one, such as "
                "regularizers.kl.coefficient: 0.1"
            )
        return self

    def looks(self, update: int) -> bool:
        """Whether held-out prompts are looked at after an update: every `monitor_every`-th, and the last."""
        return self.monitor_every is not None and (update % self.monitor_every == 0 or update == self.steps)

    def saves(self, update: int) -> bool:
        """Whether there is a checkpoint after an update: every `checkpoint_every`-th, the last, and where a look may
        turn out to be the last good one."""
        if self.watch and self.watch.action != "warn" and self.looks(update):
            return update <= self.steps
        return 0 < update <= self.steps and (update % self.checkpoint_every == 0 or update == self.steps)


def _reward_section(value: Any) -> Any:
    parts = value if isinstance(value, list) and value else [value]
    if not all(isinstance(part, str | dict) for part in parts):
        raise ValueError(f"a reward is a name, a name with options, or a list of these, not {value!r}")
    return [{"name": part} if isinstance(part, str) else part for part in parts] if isinstance(value, list) else value


RewardSection = Annotated[str | dict[str, Any] | list[dict[str, Any]], BeforeValidator(_reward_section)]
"""See `sfumato.rewards.build_reward`."""
