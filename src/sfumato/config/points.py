"""Operating points as a recipe lists them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato.config.strict import Strict
from sfumato.grids import CLOCKS
from sfumato.schedules import FORMULAS, Schedule, schedule


class BasePoint(Strict):
    """The model before tuning."""

    kind: Literal["base"] = Field("base", description="base")


class TunedPoint(Strict):
    """A training's result, or one of its checkpoints; optionally sampled at another guidance_scale."""

    kind: Literal["tuned"] = Field("tuned", description="tuned")
    training: str = Field("tuned", description="which training: `tuned` or the name of a variant")
    checkpoint: int | None = Field(None, description="the checkpoint after this update; null means the result")
    guidance_scale: float | None = Field(None, description="instead of `sampling.guidance_scale`")


class LoraScalePoint(Strict):
    """Weights between base and tuned model or beyond, the same at all steps; of whole denoisers this is WiSE-FT."""

    kind: Literal["lora_scale"] = Field("lora_scale", description="lora_scale")
    scale: float = Field(description="a in base + a (tuned - base)")


class BestOfPoint(Strict):
    """The base model, of n images the one that the reward likes best: what the same compute buys without tuning."""

    kind: Literal["best_of"] = Field("best_of", description="best_of")
    n: int = Field(ge=2, description="candidates per image")


class SavingsConfig(Strict):
    """Fewer forwards at less exactness; fields as in `sfumato.Savings`."""

    tolerance: float = Field(0.0, ge=0, lt=0.5, description="a model whose weight is at most this is not run")
    reuse: int = Field(1, ge=1, description="steps for which a difference of tuned and base is used")
    drift: float | None = Field(None, gt=0, description="adapts that number, up to `reuse`, to this relative change")
    share_unconditional: bool = Field(False, description="one model computes the unconditional rows")
    one_forward: bool = Field(False, description="base and tuned rows in one forward")


class GuidancePoint(Strict):
    """Base and tuned blended while sampling; fields as in `sfumato.annealed_guidance`."""

    kind: Literal["guidance"] = Field("guidance", description="guidance")
    schedule: str = Field("power", description=f"g(u): {', '.join(FORMULAS)}")
    parameters: dict[str, float | list[tuple[float, float]]] = Field(
        {}, description="of the schedule: `p` of power, `f` of step, `points` of table, ..."
    )
    cap: float = Field(1.0, description="g is multiplied by this")
    clock: str = Field("index", description=f"what u is: {', '.join(CLOCKS)}")
    blend: Literal["predictions", "weights"] = Field("predictions", description="what is blended")
    savings: SavingsConfig = Field(SavingsConfig(), description="fewer forwards at less exactness")

    @model_validator(mode="after")
    def _schedule_exists(self) -> GuidancePoint:
        self.build()
        return self

    def build(self) -> Schedule:
        return schedule(self.schedule, cap=self.cap, clock=self.clock, **self.parameters)


PointConfig = Annotated[
    BasePoint | TunedPoint | LoraScalePoint | GuidancePoint | BestOfPoint, Field(discriminator="kind")
]
"""An operating point of an evaluation; `kind` says which."""
