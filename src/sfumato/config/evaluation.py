"""What is sampled and measured after training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from sfumato.config.points import PointConfig
from sfumato.config.prompts import Prompts
from sfumato.config.sections import RewardSection
from sfumato.config.strict import Strict

DIVERSITY = ("vendi", "vendi_corrected", "distance", "recall", "coverage", "style_entropy", "subcategory_entropy")
MOST_CORRECTED = 64
"""Images per prompt up to which the Vendi score is corrected for their number: that decomposes N matrices."""
RESERVED = {"reward", "gold", "features", "vendi", "distance", "precision", "recall", "density", "coverage", "spectral"}
RESERVED |= {"fid", "kid", "cmmd", "tce", "forwards", "images", "corrected", "to_base", "kept", "scores", "image"}
"""Names of figures, of what a look while training has, or what would make one of `vendi_NAME` or `distance_NAME`."""
TAKEN = re.compile(r"(vendi|distance)_.*|.*_(entropy|coverage)")
SEEDS_FROM, SEEDS_TO = 2_000_000, 4_000_000
"""Seeds of the monitor and of searches for a schedule."""
LARGEST_SEED = 2**31
"""Leaves room for the candidates of best-of-n below 2**32, where torch's generators stop telling seeds apart."""


def _names(values: dict[str, object]) -> dict[str, object]:
    for name in values:
        if name in RESERVED or TAKEN.fullmatch(name) or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f"{name!r} cannot be a name here: it is taken, or has other signs than letters and digits")
    return values


def _flat(points: Any) -> Any:
    if not isinstance(points, list):
        return points
    return [point for entry in points for point in (entry if isinstance(entry, list) else [entry])]


class EvaluationConfig(Strict):
    """What is sampled and measured after training."""

    prompts: Prompts = Field(description="prompts, a file of them, or a set: docs/prompts.md")
    images_per_prompt: int = Field(12, ge=2, description="for every point, with the same seeds")
    batch_size: int = Field(12, ge=1, description="images at a time")
    seed: int = Field(
        1_000_000, ge=0, le=LARGEST_SEED, description="first of the evaluated seeds; the reference's follow"
    )
    features: str = Field("judge", description="what diversity is measured in: 'judge' (bundled) or docs/features.md")
    further_features: Annotated[dict[str, str], AfterValidator(_names)] = Field(
        {}, description="name -> other features in which Vendi score and distance are measured too"
    )
    gold: RewardSection | None = Field(None, description="a reward that is never trained on")
    rewards: Annotated[dict[str, RewardSection], AfterValidator(_names)] = Field(
        {}, description="name -> further rewards that are never trained on"
    )
    diversity: str = Field(
        "vendi",
        description=f"the metric on the diversity axis: {', '.join(DIVERSITY)}, or vendi_NAME or distance_NAME in "
        "further features; the entropies need the judge's features",
    )
    neighbours: int = Field(3, ge=1, description="k of precision, recall, density, coverage; < images_per_prompt")
    unrelated: Prompts | None = Field(None, description="prompts far from the training's, to see what drifted there")
    unrelated_images: int = Field(8, ge=1, description="images of each unrelated prompt")
    points: Annotated[list[PointConfig], BeforeValidator(_flat)] = Field(
        min_length=2,
        description="the operating points: base, tuned and any others; a list among them stands for its points, so "
        "that YAML anchors can share them",
    )

    @field_validator("prompts")
    @classmethod
    def _can_be_compared(cls, prompts: list[str]) -> list[str]:
        _refuse_twins(prompts)
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
        known = [*DIVERSITY, *(f"{kind}_{name}" for name in self.further_features for kind in ("vendi", "distance"))]
        if self.diversity not in known:
            raise ValueError(f"diversity: {self.diversity!r} is none of {', '.join(known)}")
        if self.diversity == "vendi_corrected" and self.images_per_prompt > MOST_CORRECTED:
            raise ValueError(f"vendi_corrected is for up to {MOST_CORRECTED} images per prompt: set diversity: vendi")
        if self.diversity.endswith("_entropy") and self.features != "judge":
            raise ValueError(f"diversity: {self.diversity} is counted by the judge: set features: judge")
        if self.seed < SEEDS_TO and self.seed + 2 * max(self.images_per_prompt, self.unrelated_images) > SEEDS_FROM:
            raise ValueError(
                f"seed: {self.seed} and those after it are the monitor's or a search's: keep below {SEEDS_FROM:,} or "
                f"take {SEEDS_TO:,} or more"
            )
        if self.unrelated is not None:
            _refuse_twins([*self.prompts, *self.unrelated])
            if len(self.unrelated) < 2:
                raise ValueError("unrelated: intervals over prompts need at least 2 of them")
        return self


def _refuse_twins(prompts: Sequence[str]) -> None:
    twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")
