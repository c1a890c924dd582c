"""What watches over a training: when it has gone too far, and how much diversity it is to keep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sfumato.config.strict import Strict


class WatchConfig(Strict):
    """When a training has gone too far, judged at every look at held-out prompts."""

    action: Literal["stop", "keep", "warn"] = Field(
        "stop",
        description="`stop`: end the training there; `keep`: train on, and the result is the last good checkpoint, as "
        "with `stop`, unless all is well again at the end; `warn`: only say so",
    )
    diversity: float | None = Field(
        0.5, gt=0, lt=1, description="least share of the base's Vendi score less 1; null means that any will do"
    )
    rewards: list[str] | None = Field(
        None,
        description="held-out rewards that may not fall while the trained one rises: `gold`, and names of "
        "`evaluation.rewards`; null means all",
    )
    noise: float = Field(4.0, ge=0, description="standard errors by which they must lie below their best")


class FloorConfig(Strict):
    """A share of the base's diversity that is held by feedback: after every look the strength of all regularizers is
    adjusted."""

    keep: float = Field(gt=0, lt=1, description="share of the base's Vendi score less 1")
    gain: float = Field(3.0, gt=0, description="a share 0.1 below `keep` multiplies the strength by exp(0.1 · gain)")
    dead_zone: float = Field(0.03, ge=0, description="a share this near to `keep` changes nothing: it may be noise")
    bounds: tuple[float, float] = Field((0.01, 100.0), description="of the strength, which begins at 1")

    @model_validator(mode="after")
    def _begins_within(self) -> FloorConfig:
        low, high = self.bounds
        if not 0 < low <= 1 <= high:
            raise ValueError(f"bounds: [{low:g}, {high:g}] must be positive and hold 1 between them")
        return self
