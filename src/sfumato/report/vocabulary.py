"""The words and marks of a report: what a figure is called and means, how a number is written, how a method looks."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a report speaks of one figure."""

    label: str
    meaning: str
    higher_is_better: bool = True


METRICS = {
    "reward": Metric("Reward", "The proxy that tuning maximised, averaged over images."),
    "gold": Metric("Gold reward", "What was really wanted, measured by a judge that tuning never saw."),
    "vendi": Metric(
        "Vendi score",
        "The effective number of different images among those of one prompt (Friedman and Dieng, 2022): "
        "1 if all are alike, their number if none resembles another.",
    ),
    "distance": Metric("Pairwise distance", "Mean distance between two images of one prompt in feature space."),
    "precision": Metric(
        "Precision",
        "Share of images that lie where the base model's images lie (Kynkäänniemi et al., 2019); "
        "the reference images have seeds of their own.",
    ),
    "recall": Metric(
        "Recall",
        "Share of the base model's images that this point still reaches (Kynkäänniemi et al., 2019); "
        "the reference images have seeds of their own, so that the base model itself stays below 1.",
    ),
    "style_entropy": Metric(
        "Style entropy", "How evenly the images of a prompt spread over the styles the judge sees, in nats."
    ),
    "subcategory_entropy": Metric(
        "Subcategory entropy",
        "How evenly the images of a prompt spread over the kinds of object the judge sees, in nats.",
    ),
    "forwards": Metric("Forwards per image", "Passes through the denoiser that one image costs.", False),
    "loss": Metric("Loss", "What the optimiser descends.", False),
    "reward_std": Metric("Spread of the reward", "Standard deviation of the reward within an update's batch."),
    "kl": Metric("KL penalty", "Mean square of tuned minus base prediction, before its coefficient.", False),
    "grad_norm": Metric("Gradient norm", "Norm of the gradient before clipping.", False),
    "lr": Metric("Learning rate", "Step size of the optimiser."),
    "seconds": Metric("Seconds per update", "Wall-clock time of an update.", False),
}

METHODS = (
    "AIG",
    "LoRA scale",
    "KL",
    "early checkpoint",
    "guidance scale",
    "annealed weights",
    "switch",
    "constant blend",
)

# Marks as SVG paths around the origin, equal in area by eye.
CIRCLE = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z"
SHAPES = (
    "M0-6.2L6.2 0L0 6.2L-6.2 0Z",
    "M-4.6-4.6H4.6V4.6H-4.6Z",
    "M0-5.9L5.8 4.5H-5.8Z",
    "M0 5.9L5.8-4.5H-5.8Z",
    "M-2-5.6H2V-2H5.6V2H2V5.6H-2V2H-5.6V-2H-2Z",
    "M0-5.8L5.6-1.7L3.5 4.8H-3.5L-5.6-1.7Z",
    "M-3-5.4H3L6 0L3 5.4H-3L-6 0Z",
    "M-6-3.6H6V3.6H-6Z",
)


def metric(key: str) -> Metric:
    """The entry of `key`; a metric that this table does not know is called by its key."""
    return METRICS.get(key) or Metric(key.replace("_", " ").replace("/", " ").capitalize(), "")


def styles(methods: list[str]) -> dict[str, str]:
    """A style class for every method: "base", "tuned", or "m0" to "m7".

    The methods that sfumato ships look the same in every report, others take what is free.
    """
    found = {name: name for name in methods if name in ("base", "tuned")}
    found |= {name: f"m{METHODS.index(name)}" for name in methods if name in METHODS}
    others = [name for name in dict.fromkeys(methods) if name not in found]
    free = [f"m{i}" for i in range(len(SHAPES)) if f"m{i}" not in found.values()] or ["m0"]
    return found | {name: free[i % len(free)] for i, name in enumerate(others)}


def shape(style: str) -> str:
    """The mark of a style class as an SVG path around the origin."""
    return CIRCLE if style in ("base", "tuned") else SHAPES[int(style[1:])]


def number(value: float | None) -> str:
    """A figure with three significant digits and a true minus sign, an en dash for a missing one."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001 or size >= 1e6:
        text = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def lower_first(text: str) -> str:
    """A label inside a sentence: "Gold reward" becomes "gold reward", "KL" and "Vendi score" stay."""
    return text[0].lower() + text[1:] if text[1:2].islower() and not text.startswith("Vendi") else text
