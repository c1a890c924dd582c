"""What may stand beside an objective: penalties that hold the model near its base, and what is done to rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sfumato.config.strict import Strict


class KLConfig(Strict):
    """A distance between tuned and base model at the same x_t, along the tuned model's own trajectory."""

    coefficient: float = Field(gt=0, description="the penalty is multiplied by this")
    form: Literal["predictions", "gaussian"] = Field(
        "predictions",
        description="`predictions`: mean of (eps_tuned - eps_base)^2 (DRaFT+); `gaussian`: the exact KL divergence of "
        "stochastic steps",
    )
    span: tuple[float, float] | None = Field(
        None,
        description="only steps whose progress u lies in here, 0 = pure noise, 1 = image; null means those that carry "
        "the reward's gradient",
    )


class RegularizersConfig(Strict):
    """Penalties, each with its own coefficient; absent ones cost nothing."""

    kl: KLConfig | None = Field(None, description="hold predictions or transitions near the base model's")


class ShapingConfig(Strict):
    """What is done to rewards before they are maximised; logs show them as they are."""

    normalize: bool = Field(
        False,
        description="subtract the running mean and divide by the running standard deviation of all rewards so far",
    )
    clip: tuple[float | None, float | None] = Field(
        (None, None), description="lowest and highest value, after `normalize`; no gradient beyond. ReFL: [null, 2]"
    )
