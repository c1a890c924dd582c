"""From images to features: what an extractor is, and `extract`, which runs one over many images.

Measure diversity in features that the reward does not use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Literal, Protocol

import torch

from sfumato.metrics.cache import FeatureCache

Distance = Literal["cosine", "squared"]
TOLERANCE = 1e-3  # a decoder in half precision overshoots [0, 1] by a rounding error


class Extractor(Protocol):
    """Images (B,3,H,W) in [0, 1] to features (B,D): what `extract` runs.

    Attributes:
        fingerprint: names the exact weights and preprocessing; equal fingerprints give equal features.
        distance: what tells two images apart in these features, as `mean_pairwise_distance` calls it.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def distance(self) -> Distance: ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


@torch.no_grad()
def extract(
    extractor: Extractor,
    images: Iterable[torch.Tensor],
    batch_size: int = 32,
    cache: FeatureCache | None = None,
) -> torch.Tensor:
    """Features of many images, read one batch at a time.

    On CUDA, convolutions run without TF32 and in a fixed order, so that features depend neither on the device, beyond
    rounding, nor on the run.

    Args:
        extractor: gives features (B,D) and has a `fingerprint`.
        images: images (3,H,W) in [0, 1], all of one size; a tensor (N,3,H,W) will do.
        batch_size: images per call of the extractor.
        cache: look up known images and store new ones here.

    Returns:
        (N, D), float32, on the CPU, in the order of the images.

    Raises:
        ValueError: no images, or one that is not (3,H,W) in floats; features that are not finite or not all of one
            length.
    """
    known: dict[str, torch.Tensor] = {}
    order: list[str] = []
    for batch in _batches(images, batch_size):
        keys = [image_hash(image) for image in batch]
        if cache:
            known |= cache.find(extractor.fingerprint, set(keys) - known.keys())
        new = {key: image for key, image in zip(keys, batch, strict=True) if key not in known}
        if new:
            features = _checked(extractor, torch.stack(list(new.values())), len(order))
            found = {key: row.clone() for key, row in zip(new, features, strict=True)}
            known |= found
            if cache:
                cache.write(extractor.fingerprint, found)
        order += keys
    if not order:
        raise ValueError("there are no images to take features of")
    if len(lengths := {len(row) for row in known.values()}) > 1:
        raise ValueError(
            f"{type(extractor).__name__} gives features of different lengths {sorted(lengths)}: "
            "its features depend on the size of the images, so give images of one size"
        )
    return torch.stack([known[key] for key in order])


def image_hash(image: torch.Tensor) -> str:
    """SHA-256 of an image's shape, dtype and values.

    Raises:
        ValueError: it is not one image (3,H,W) in floats in [0, 1].
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"an image must have shape (3, H, W), not {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"an image must be floats in [0, 1], not {image.dtype}: divide 8-bit images by 255")
    if image.numel() and (image.min() < -TOLERANCE or image.max() > 1 + TOLERANCE):
        raise ValueError(f"an image must lie in [0, 1], but this one spans [{image.min():.4g}, {image.max():.4g}]")
    return digest([f"{tuple(image.shape)} {image.dtype}".encode(), image])


def fingerprint(how: str, weights: Mapping[str, torch.Tensor]) -> str:
    """Names an extractor by its weights and how it uses them, whatever it is called and wherever it lies."""
    parts: list[bytes | torch.Tensor] = [how.encode()]
    for name, tensor in weights.items():
        parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), tensor]
    return digest(parts)


def digest(parts: Iterable[bytes | torch.Tensor]) -> str:
    """SHA-256 of bytes and of tensors' values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(part)
    return found.hexdigest()


def _checked(extractor: Extractor, batch: torch.Tensor, first: int) -> torch.Tensor:
    """One batch's features (B,D), float32, on the CPU; `first` is the number of images before it."""
    name = type(extractor).__name__
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        features = extractor(batch).float().cpu()
    if features.ndim != 2 or len(features) != len(batch):
        raise ValueError(f"{name} must give features ({len(batch)}, D), not {tuple(features.shape)}")
    if not features.isfinite().all():
        what = "the images are not finite" if not batch.isfinite().all() else "look at them and at the weights"
        raise ValueError(f"{name} gives features that are not finite in the batch from image {first} on: {what}")
    return features


def _batches(images: Iterable[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    images = iter(images)
    while batch := list(islice(images, size)):
        yield batch
