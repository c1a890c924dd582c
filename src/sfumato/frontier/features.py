"""Features of a sweep's pictures, micro-batch by micro-batch.

A network's output for an image differs in its last bits with the batch that the image is in. So the images of a
micro-batch are always looked at together, and their features are kept under the content of all of them: then no figure
depends on who sampled what, and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from sfumato.frontier.plan import MicroBatch
from sfumato.images import load_image
from sfumato.metrics import Extractor, FeatureCache, extract
from sfumato.metrics.features import image_hash
from sfumato.runs import Run


def batch_features(extractor: Extractor, images: torch.Tensor, cache: FeatureCache) -> torch.Tensor:
    """Features (B,D), float32, on the CPU, of images (B,3,H,W) in [0, 1] that are looked at together."""
    images = images.float().cpu()
    content = hashlib.sha256("".join(image_hash(image) for image in images).encode()).hexdigest()
    keys = [f"{content}-{i}" for i in range(len(images))]
    known = cache.find(extractor.fingerprint, keys)
    if known.keys() != set(keys):
        rows = extract(extractor, images, batch_size=len(images))
        known = {key: row.clone() for key, row in zip(keys, rows, strict=True)}
        cache.write(extractor.fingerprint, known)
    return torch.stack([known[key] for key in keys])


def table_features(
    run: Run, batches: Sequence[MicroBatch], extractors: Mapping[str, Extractor]
) -> dict[str, torch.Tensor]:
    """Features (N, D) of all pictures of a run by the extractor's name, in the order of its table; kept in one file.

    Args:
        batches: the plan, whose order the table has; rows of points that are no longer in it come after them.
    """
    cache = cache_of(run)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in extractors}
    rows = run.images()
    with tqdm(total=len(rows), desc="taking features", unit="image", leave=False, delay=2) as bar:
        for group in _groups(rows, batches):
            images = torch.stack([load_image(run.evaluation / row["file"]) for row in group])
            for name, extractor in extractors.items():
                found[name].append(batch_features(extractor, images, cache))
            bar.update(len(group))
    features = {name: torch.cat(parts) for name, parts in found.items()}
    run.write_features({name: rows.numpy() for name, rows in features.items()})
    return features


def cache_of(run: Run) -> FeatureCache:
    """Where the features of a run's pictures are kept."""
    return FeatureCache(run.evaluation / "features")


def _groups(rows: Sequence[dict[str, Any]], batches: Sequence[MicroBatch]) -> Iterator[Sequence[dict[str, Any]]]:
    """The rows of each micro-batch, then those of points that are not planned any more, by point and prompt."""
    start = 0
    for batch in batches:
        yield rows[start : start + len(batch.seeds)]
        start += len(batch.seeds)
    others: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows[start:]:
        others.setdefault((row["point"], row["prompt"]), []).append(row)
    yield from others.values()
