"""The words and marks of a report: what a figure is called and means, how a number is written, how a method looks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

REWARDS, DIVERSITY, LIKENESS, COST = "Rewards", "Diversity", "Likeness to the base", "Cost"
POOLED, DRIFTED = "Pooled over all prompts", "Drift on unrelated prompts"
GROUPS = (REWARDS, DIVERSITY, LIKENESS, POOLED, DRIFTED, COST)


@dataclass(frozen=True)
class Metric:
    """How a report speaks of one figure; `group` is one of `GROUPS`."""

    label: str
    meaning: str
    group: str = REWARDS
    higher_is_better: bool = True


METRICS = {
    "reward": Metric("Reward", "The proxy that tuning maximised, averaged over images."),
    "gold": Metric("Gold reward", "What was really wanted, measured by a judge that tuning never saw."),
    "vendi": Metric(
        "Vendi score",
        "The effective number of different images among those of one prompt (Friedman and Dieng, 2022): "
        "1 if all are alike, their number if none resembles another.",
        DIVERSITY,
    ),
    "kept": Metric("Diversity kept", "Vendi score less 1, as a share of the base's.", DIVERSITY),
    "vendi_corrected": Metric(
        "Vendi score, corrected",
        "The Vendi score with what few images hide added back; see the documentation of the statistics.",
        DIVERSITY,
    ),
    "distance": Metric("Pairwise distance", "Mean distance between two images of one prompt.", DIVERSITY),
    "recall": Metric(
        "Recall",
        "Share of the base model's images that this point still reaches (Kynkäänniemi et al., 2019); "
        "the reference images have seeds of their own, so that the base model itself stays below 1.",
        DIVERSITY,
    ),
    "coverage": Metric(
        "Coverage",
        "Share of the base model's images with an image of this point in their neighbourhood (Naeem et al., 2020).",
        DIVERSITY,
    ),
    "style_entropy": Metric(
        "Style entropy",
        "How evenly the images of a prompt spread over the styles the judge sees, in nats.",
        DIVERSITY,
    ),
    "subcategory_entropy": Metric(
        "Subcategory entropy",
        "How evenly the images of a prompt spread over the kinds of object the judge sees, in nats.",
        DIVERSITY,
    ),
    "tce": Metric("Truncated entropy", "Entropy of a Gaussian fit to the features along its widest axes.", DIVERSITY),
    "precision": Metric(
        "Precision",
        "Share of images that lie where the base model's images lie (Kynkäänniemi et al., 2019); "
        "the reference images have seeds of their own.",
        LIKENESS,
    ),
    "density": Metric(
        "Density",
        "How many neighbourhoods of base images hold an image of this point (Naeem et al., 2020): about 1 for equal "
        "sets, more where images crowd the densest part.",
        LIKENESS,
    ),
    "spectral": Metric(
        "Spectral distance",
        "Difference in spread between this point and the base, whatever the shift or rotation in feature space.",
        LIKENESS,
        False,
    ),
    "fid": Metric("FID", "Fréchet distance of features from the base's (Heusel et al., 2017).", LIKENESS, False),
    "kid": Metric("KID", "Kernel distance of features from the base's (Bińkowski et al., 2018).", LIKENESS, False),
    "cmmd": Metric(
        "CMMD",
        "Kernel distance of features from the base's (Jayasumana et al., 2024).",
        LIKENESS,
        False,
    ),
    "forwards": Metric("Forwards per image", "Passes through the denoiser that one image costs.", COST, False),
    "loss": Metric("Loss", "What the optimiser descends.", COST, False),
    "reward_std": Metric("Spread of the reward", "Standard deviation of the reward within an update's batch."),
    "kl": Metric("KL penalty", "Mean square of tuned minus base prediction, before its coefficient.", COST, False),
    "data": Metric("Loss on given images", "Denoising loss on given images, before its coefficient.", COST, False),
    "implicit_accuracy": Metric("Pairs got right", "Share of pairs of which the tuned model prefers the right image."),
    "margin": Metric("Margin of pairs", "How far the tuned model prefers the right image of a pair, in log-odds."),
    "strength": Metric(
        "Strength of the regularizers", "What the feedback on diversity multiplies all of them by.", COST, False
    ),
    "approx_kl": Metric("Change of the policy", "Half the mean square of the log-ratio to the weights that sampled."),
    "clip_fraction": Metric("Clipped ratios", "Share of probability ratios beyond the clip range."),
    "ratio_deviation": Metric("Distance of ratios from 1", "Mean of |ratio - 1|, which is 0 on the first pass."),
    "idle": Metric("Images without advantage", "Share of images of prompts with equal rewards, which train nothing."),
    "grad_norm": Metric("Gradient norm", "Norm of the gradient before clipping.", COST, False),
    "lr": Metric("Learning rate", "Step size of the optimiser."),
    "seconds": Metric("Seconds per update", "Wall-clock time of an update.", COST, False),
}

DRIFT = {
    "distance_to_base": Metric(
        "Distance from the base's image",
        "Mean distance of an image from the base's of the same prompt and seed, on prompts far from what was tuned on: "
        "how much tuning changed that it had no reason to change.",
        DRIFTED,
        False,
    )
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
    "best of n",
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
    "M0-6.8L1.8-2.4L6.5-2.1L2.9 0.9L4 5.5L0 3L-4 5.5L-2.9 0.9L-6.5-2.1L-1.8-2.4Z",
)


def metric(key: str) -> Metric:
    """The entry of `key`.

    pooled/KEY, drift/KEY, vendi_FEATURES, distance_FEATURES, LABEL_entropy and LABEL_coverage follow a pattern; what
    follows none is taken for a reward and called by its key.
    """
    if key in METRICS:
        return METRICS[key]
    head, _, tail = key.partition("/")
    if head == "pooled" and tail:
        return replace(metric(tail), label=f"{metric(tail).label}, pooled", group=POOLED)
    if head == "drift" and tail:
        change = replace(metric(tail), label=f"{metric(tail).label}, change", group=DRIFTED)
        return DRIFT.get(tail) or change
    measure, _, features = key.partition("_")
    if measure in ("vendi", "distance") and features:
        return replace(METRICS[measure], label=f"{METRICS[measure].label} in {features}")
    label = key.replace("_", " ").replace("/", " ").capitalize()
    if key.endswith("_entropy"):
        return Metric(label, "How evenly the images of a prompt spread over these labels, in nats.", DIVERSITY)
    if key.endswith("_coverage"):
        return Metric(
            label, "Share of the labels among the base's reference images that this point reaches.", DIVERSITY
        )
    return Metric(label, "")


def floor(key: str) -> float:
    """The value of a measure of diversity when nothing is left of it: a Vendi score counts from 1."""
    return 1.0 if key.startswith("vendi") else 0.0


def styles(methods: list[str]) -> dict[str, str]:
    """A style class for every method: "base", "tuned", or "m0" to "m8".

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
    if size < 1e-12:
        return "0"
    if size < 0.001 or size >= 1e6:
        text = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def lower_first(text: str) -> str:
    """A label inside a sentence: "Gold reward" becomes "gold reward", "KL" and "Vendi score" stay."""
    return text[0].lower() + text[1:] if text[1:2].islower() and not text.startswith("Vendi") else text


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float) -> str:
    """A share as "61 %"."""
    return f"{round(100 * share)}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def plural(count: int, noun: str) -> str:
    """ "1 point", "2 points"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def capitalise(text: str) -> str:
    """The text with a capital first letter and nothing else changed."""
    return text[:1].upper() + text[1:]


def quoted(prompt: str) -> str:
    """A prompt inside a sentence."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}"
