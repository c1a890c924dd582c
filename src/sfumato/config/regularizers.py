"""What may stand beside an objective: penalties that hold the model near its base, and what is done to rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sfumato.config.strict import Strict


class KLConfig(Strict):
    """A distance between tuned and base model at the same x_t, along the tuned model's own trajectory."""

    coefficient: float = Field(gt=0, description="the penalty is multiplied by this")
    form: Literal["predictions", "gaussian", "flow_grpo"] = Field(
        "predictions",
        description="`predictions`: mean of (eps_tuned - eps_base)^2 (DRaFT+); `gaussian`: the exact KL divergence of "
        "stochastic steps, summed over them; `flow_grpo`: that of Flow-GRPO's code, which is another",
    )
    span: tuple[float, float] | None = Field(
        None,
        description="only steps whose progress u lies in here, 0 = pure noise, 1 = image; null means those that carry "
        "the reward's gradient",
    )


class DistillationConfig(Strict):
    """A distance between what tuned and base model take for the image at the same x_t."""

    coefficient: float = Field(gt=0, description="the mean of (x0_tuned - x0_base)^2 is multiplied by this")
    span: tuple[float, float] | None = Field(None, description="as that of `kl`")


class DiversityConfig(Strict):
    """A bonus on the reward for images that differ from the others of their prompt; needs images_per_prompt >= 2."""

    coefficient: float = Field(gt=0, description="the mean distance to the others is multiplied by this")
    features: str = Field(
        "judge", description="in which images differ, as `evaluation.features`; better not those of the evaluation"
    )


class DataConfig(Strict):
    """The denoising loss on given images, as many as the update has (ImageReFL, arXiv 2505.22569: 0.01)."""

    coefficient: float = Field(0.01, gt=0, description="the loss is multiplied by this")
    images: str | None = Field(None, description="JSONL file of images with prompts: docs/training.md")
    pairs: str | None = Field(None, description="instead, JSONL file of pairs, whose preferred images are taken")
    noise_levels: int | None = Field(
        500, ge=1, description="size of the grid of noise levels, of which each image gets one; null means sampling's"
    )

    @model_validator(mode="after")
    def _one_file(self) -> DataConfig:
        if (self.images is None) == (self.pairs is None):
            raise ValueError("regularizers.data needs a file: give either images or pairs")
        return self


class RegularizersConfig(Strict):
    """Penalties and a bonus, each with its own coefficient; absent ones cost nothing."""

    kl: KLConfig | None = Field(None, description="hold predictions or transitions near the base model's")
    distillation: DistillationConfig | None = Field(None, description="hold predicted images near the base model's")
    diversity: DiversityConfig | None = Field(None, description="reward differences between images of one prompt")
    data: DataConfig | None = Field(None, description="hold the model near given images")


class ShapingConfig(Strict):
    """What is done to rewards before they are maximised; logs show them as they are."""

    normalize: bool = Field(
        False,
        description="subtract the running mean and divide by the running standard deviation of all rewards so far",
    )
    clip: tuple[float | None, float | None] = Field(
        (None, None), description="lowest and highest value, after `normalize`; no gradient beyond. ReFL: [null, 2]"
    )
