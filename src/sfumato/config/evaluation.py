"""What is sampled and measured after training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sfumato.config.points import PointConfig
from sfumato.config.prompts import Prompts
from sfumato.config.sections import RewardSection
from sfumato.config.strict import Strict


class EvaluationConfig(Strict):
    """What is sampled and measured after training."""

    prompts: Prompts = Field(description="prompts, or a text file with one on each line")
    images_per_prompt: int = Field(12, ge=2, description="for every point, with the same seeds")
    batch_size: int = Field(12, ge=1, description="images at a time")
    seed: int = Field(1_000_000, ge=0, description="first of the evaluated seeds; the reference uses others")
    features: str = Field("judge", description="'judge' (bundled), or any vision model by folder or hub id")
    gold: RewardSection | None = Field(None, description="a reward that is never trained on")
    diversity: Literal["vendi", "distance", "recall", "style_entropy", "subcategory_entropy"] = Field(
        "vendi", description="the metric on the diversity axis; the entropies need the judge's features"
    )
    neighbours: int = Field(3, ge=1, description="k of precision and recall; less than images_per_prompt")
    points: list[PointConfig] = Field(min_length=2, description="the operating points: base, tuned and any others")

    @field_validator("prompts")
    @classmethod
    def _can_be_compared(cls, prompts: list[str]) -> list[str]:
        twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        if len(prompts) < 3:
            raise ValueError(f"a frontier needs at least 3 prompts, to compare methods over; there are {len(prompts)}")
        return prompts

    @model_validator(mode="after")
    def _can_be_measured(self) -> EvaluationConfig:
        if self.images_per_prompt <= self.neighbours:
            raise ValueError(
                f"images_per_prompt is {self.images_per_prompt}, but recall with neighbours: {self.neighbours} needs "
                "more images than that for each prompt: raise the one or lower the other"
            )
        if self.diversity.endswith("_entropy") and self.features != "judge":
            raise ValueError(f"diversity: {self.diversity} is counted by the judge: set features: judge")
        return self
