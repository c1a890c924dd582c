"""The ways to tune, one typed section each; `training.objective.name` chooses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sfumato.config.strict import Strict

PAIRS: Any = Field(
    None,
    description="JSONL file of pairs: docs/rewards.md; null means two images of the base model for each prompt, of "
    "which the reward prefers one",
)
NOISE_LEVELS: Any = Field(
    500, ge=1, description="size of the grid from which noise levels are drawn; null means that of sampling"
)
NOISE_DRAWS: Any = Field(
    1, ge=1, description="noise levels, and noise, at which each pair is looked at; cheaper than more pairs"
)


class DraftConfig(Strict):
    """DRaFT-K (arXiv 2309.17400); with `regularizers.kl` it is DRaFT+ (arXiv 2409.06493)."""

    name: Literal["draft"] = Field("draft", description="which objective")
    last_steps: int = Field(1, ge=1, description="K: scheduler steps at the end that carry gradient")


class DraftLVConfig(Strict):
    """DRaFT-LV (arXiv 2309.17400): DRaFT-1, and more last steps from the image with fresh noise."""

    name: Literal["draft_lv"] = Field("draft_lv", description="which objective")
    noisings: int = Field(2, ge=1, description="n: how often the last step is run again for each image")


class AlignPropConfig(Strict):
    """AlignProp (arXiv 2310.03739): DRaFT-K with K drawn anew for each update."""

    name: Literal["align_prop"] = Field("align_prop", description="which objective")
    truncation: Literal["uniform", "gaussian"] = Field(
        "uniform", description="`uniform`: K from low to high; `gaussian`: K from N(mean, std²), clipped to that range"
    )
    low: int = Field(1, ge=1, description="the smallest K")
    high: int | None = Field(None, ge=1, description="the largest K; null means the number of steps")
    mean: float = Field(8.0, description="of `gaussian`; the authors' is 8, with std 5, for 50 steps")
    std: float = Field(5.0, ge=0, description="of `gaussian`")


class ReFLConfig(Strict):
    """ReFL (arXiv 2304.05977): sampling ends at a random late step, whose prediction of x0 is the image."""

    name: Literal["refl"] = Field("refl", description="which objective")
    span: tuple[float, float] = Field(
        (0.75, 1.0),
        description="progress u of the steps to draw from, 0 = pure noise, 1 = image; the published steps are 30 to 39 "
        "of 0 to 39",
    )


class AdjointMatchingConfig(Strict):
    """Adjoint Matching (arXiv 2409.08861): towards p_base · exp(reward / beta), for samplers that draw noise."""

    name: Literal["adjoint_matching"] = Field("adjoint_matching", description="which objective")
    beta: float = Field(gt=0, description="β: the smaller, the more reward and the less diversity")
    steps: int | None = Field(None, ge=1, description="stochastic steps trained per update; null means all")
    noise_level: float | None = Field(
        None, gt=0, description="of a flow SDE to sample with, 1.414 is memoryless; null means the pipeline's scheduler"
    )


class PolicyConfig(Strict):
    """What the policy gradients have in common."""

    baseline: Literal["prompt", "update", "leave_one_out", "none"] = Field(
        "prompt",
        description="subtracted from rewards: the mean over the prompt's images in this update, over all its images, "
        "over the prompt's other images, or nothing",
    )
    normalize: Literal["prompt", "update"] | None = Field(
        "prompt", description="divide by the standard deviation of the prompt's rewards, of all, or by nothing"
    )
    advantage_clip: float | None = Field(5.0, gt=0, description="largest absolute advantage")
    clip_range: float = Field(1e-4, gt=0, description="of PPO: how far from 1 a ratio of probabilities has a gradient")
    inner_epochs: int = Field(1, ge=1, description="passes over the images of an update")
    minibatches: int = Field(1, ge=1, description="steps of the optimiser in a pass; micro-batches are a multiple")
    steps: int | None = Field(None, ge=1, description="stochastic steps trained per update, drawn anew; null means all")
    average: bool = Field(
        True,
        description="log-probabilities are means over dims and the loss is one over steps, as published; false for "
        "sums, the gradient of the expected reward",
    )
    unconditional_gradient: bool = Field(
        True, description="false leaves out the gradient of the unconditional half of classifier-free guidance"
    )


class DDPOConfig(PolicyConfig):
    """DDPO (arXiv 2305.13301): a policy gradient for rewards without gradient, on schedulers that draw noise."""

    name: Literal["ddpo"] = Field("ddpo", description="which objective")


class FlowGRPOConfig(PolicyConfig):
    """Flow-GRPO (arXiv 2505.05470): a policy gradient for flow models, which are sampled by an SDE."""

    name: Literal["flow_grpo"] = Field("flow_grpo", description="which objective")
    normalize: Literal["prompt", "update"] | None = Field(
        "update", description="divide by the standard deviation of the prompt's rewards, of all, or by nothing"
    )
    noise_level: float = Field(0.7, gt=0, description="a of the SDE")
    window: int | None = Field(
        None, ge=1, description="the fast variant: so many steps in a row are stochastic; null means all but the last"
    )
    window_range: tuple[int, int] = Field(
        (0, 5), description="the window's first possible step, and the step before which it ends; drawn for each update"
    )


class DiffusionDPOConfig(Strict):
    """Diffusion-DPO (arXiv 2311.12908): from pairs of images, one of which was preferred."""

    name: Literal["diffusion_dpo"] = Field("diffusion_dpo", description="which objective")
    beta: float = Field(5000.0, gt=0, description="the larger, the nearer to the base; as in the authors' code")
    pairs: str | None = PAIRS
    noise_levels: int | None = NOISE_LEVELS
    noise_draws: int = NOISE_DRAWS


class SFTConfig(Strict):
    """The denoising loss on the preferred image of each pair, the baseline of Diffusion-DPO."""

    name: Literal["sft"] = Field("sft", description="which objective")
    pairs: str | None = PAIRS
    candidates: int = Field(
        2, ge=2, description="without a file: so many images of the base model, of which the reward prefers one"
    )
    noise_levels: int | None = NOISE_LEVELS
    noise_draws: int = NOISE_DRAWS


def _draft_unless_named(value: Any) -> Any:
    return {"name": "draft", **value} if isinstance(value, dict) else value


ObjectiveConfig = Annotated[
    DraftConfig
    | DraftLVConfig
    | AlignPropConfig
    | ReFLConfig
    | AdjointMatchingConfig
    | DDPOConfig
    | FlowGRPOConfig
    | DiffusionDPOConfig
    | SFTConfig,
    Field(discriminator="name"),
    BeforeValidator(_draft_unless_named),
]
"""The settings of any objective; `name` says which, draft unless given."""
