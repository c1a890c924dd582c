"""What every metric asks of its features."""

from __future__ import annotations

import math

import torch


def as_features(features: torch.Tensor, name: str = "features", at_least: int = 1) -> torch.Tensor:
    """The features in float64 (on the CPU where the device has no float64), checked.

    Args:
        features: (N, D), any real dtype.
        name: what to call them in an error.
        at_least: the smallest N that will do.

    Raises:
        ValueError: not two-dimensional, empty, complex, too few rows, or a value that is not finite.
    """
    features = torch.as_tensor(features).detach()
    if features.ndim != 2:
        raise ValueError(f"{name} must have shape (N, D), one row per sample, not {tuple(features.shape)}")
    if features.numel() == 0:
        raise ValueError(f"{name} are empty: their shape is {tuple(features.shape)}")
    if features.is_complex():
        raise ValueError(f"{name} must be real numbers, not {features.dtype}")
    if len(features) < at_least:
        raise ValueError(f"{name} have {len(features)} rows, this metric needs at least {at_least}")
    if not all(math.isfinite(value) for value in features.aminmax()):  # both are NaN if any value is
        bad = ~torch.isfinite(features).all(dim=1)
        first = int(bad.nonzero()[0])
        raise ValueError(f"{name} hold NaN or infinity in {int(bad.sum())} of {len(bad)} rows, first in row {first}")
    if features.device.type == "mps":
        features = features.cpu()
    return features.to(torch.float64)


def as_feature_pair(
    real: torch.Tensor,
    fake: torch.Tensor,
    at_least: int = 1,
    names: tuple[str, str] = ("real features", "fake features"),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two checked sets of features of equal dimension, on the device of the first.

    Args:
        real: (N, D).
        fake: (M, D).
        at_least: the smallest N and M that will do.
        names: what to call them in an error.

    Raises:
        ValueError: as for `as_features`, or the dimensions differ.
    """
    real, fake = as_features(real, names[0], at_least), as_features(fake, names[1], at_least)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{names[0]} have {real.shape[1]} dimensions and {names[1]} {fake.shape[1]}: "
            "take both from the same extractor"
        )
    return real, fake.to(real.device)


def unit_rows(features: torch.Tensor, name: str = "features") -> torch.Tensor:
    """Rows scaled to length 1.

    Args:
        features: (N, D), float64.
        name: what to call them in an error.

    Raises:
        ValueError: a row is zero and so has no direction.
    """
    largest = features.abs().amax(dim=1, keepdim=True)
    features = features / torch.where(largest > 0, largest, 1)  # so that no square over- or underflows
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    if (norms == 0).any():
        raise ValueError(f"{name} row {int((norms[:, 0] == 0).nonzero()[0])} is all zeros and has no direction")
    return features / norms


def rounding(features: torch.Tensor) -> float:
    """Share of the largest below which an eigenvalue is zero, up to the rounding of the features and the arithmetic."""
    dtype = torch.as_tensor(features).dtype
    own = torch.finfo(dtype).eps ** 2 if dtype.is_floating_point else 0.0
    return max(own, torch.finfo(torch.float64).eps)
