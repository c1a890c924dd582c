"""The ways to tune, one typed section each; `training.objective.name` chooses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sfumato.config.strict import Strict


class DraftConfig(Strict):
    """DRaFT-K (arXiv 2309.17400); with `regularizers.kl` it is DRaFT+ (arXiv 2409.06493)."""

    name: Literal["draft"] = Field("draft", description="which objective")
    last_steps: int = Field(1, ge=1, description="K: scheduler steps at the end that carry gradient")


def _draft_unless_named(value: Any) -> Any:
    return {"name": "draft", **value} if isinstance(value, dict) else value


ObjectiveConfig = Annotated[
    DraftConfig,
    Field(discriminator="name"),
    BeforeValidator(_draft_unless_named),
]
