"""Features of images: extractors `images in [0, 1] (B,3,H,W) -> (B,D)`, and a cache on disk, keyed by content.

Measure diversity in features that the reward does not use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sfumato.judge import Judge
from sfumato.preprocess import Preprocess
from sfumato.runs import atomic_path


class Extractor(Protocol):
    """What `extract` runs: a callable with a name for its exact weights and preprocessing."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


class JudgeFeatures:
    """The judge's penultimate features, on the device where the judge is.

    Args:
        judge: a `sfumato.judge.Judge`; the bundled one is `sfumato.emoji64.load_judge()`.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint(self.judge, "judge features")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of images (B,3,H,W) in [0, 1]."""
        return self.judge(images.to(next(self.judge.parameters()))).features


class VisionFeatures:
    """Features of any transformers vision model, or of the image tower of a CLIP-like one, preprocessed as it asks.

    CLIP, SigLIP and their kin give their joint-space embedding; others their pooled output, or the first token where a
    checkpoint comes without weights for its pooler (such as DINO's).

    Args:
        model: a local folder or a hub id with `config.json` and `preprocessor_config.json`.
        device: where to run.

    Raises:
        OSError: there is no such model, or it has no safetensors weights.
        ValueError: the checkpoint lacks weights, so that features would be partly random, or is damaged.
    """

    def __init__(self, model: str | Path, device: torch.device | str = "cpu") -> None:
        from transformers import AutoModel

        self.preprocess = Preprocess.from_pretrained(str(model))
        try:
            loaded, report = AutoModel.from_pretrained(
                str(model), dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except SafetensorError as error:
            raise ValueError(f"the weights of {model} are damaged ({error}): copy or download them again") from error
        missing = set(report["missing_keys"])
        if missing and all(".pooler." in f".{key}" for key in missing):
            loaded.pooler = None
        elif missing:
            raise ValueError(f"{model} lacks weights for {sorted(missing)[0]} and {len(missing) - 1} more")
        self.model = loaded.eval().requires_grad_(False).to(device)

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint(self.model, repr(self.preprocess))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D) of images (B,3,H,W) in [0, 1]."""
        pixels = self.preprocess(images.to(self.model.device, torch.float32))
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(pixel_values=pixels)
        else:
            output = self.model(pixel_values=pixels)
        pooled = output.pooler_output
        return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


class FeatureCache:
    """Features on disk by content: one row per image, in safetensors shards of one folder per extractor.

    Args:
        folder: created at the first write. It may be shared between runs and processes, and deleted at any time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._rows: dict[str, dict[str, torch.Tensor]] = {}
        self._read: set[Path] = set()

    def read(self, fingerprint: str) -> dict[str, torch.Tensor]:
        """All rows (D,) known for an extractor, by image hash; a damaged shard counts as absent."""
        rows = self._rows.setdefault(fingerprint, {})
        for shard in sorted(set((self.folder / fingerprint).glob("[!.]*.safetensors")) - self._read):
            self._read.add(shard)
            try:
                rows |= load_file(shard)
            except SafetensorError:
                continue
        return rows

    def write(self, fingerprint: str, rows: dict[str, torch.Tensor]) -> None:
        """Add rows (D,) by image hash, as one new shard."""
        name = hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()
        shard = self.folder / fingerprint / f"{name}.safetensors"
        with atomic_path(shard) as temporary:
            save_file(rows, temporary)
        self._rows.setdefault(fingerprint, {}).update(rows)
        self._read.add(shard)


@torch.no_grad()
def extract(
    extractor: Extractor,
    images: Iterable[torch.Tensor],
    batch_size: int = 32,
    cache: FeatureCache | None = None,
) -> torch.Tensor:
    """Features of many images, read one batch at a time.

    Args:
        extractor: gives features (B,D) and has a `fingerprint`.
        images: images (3,H,W) in [0, 1], all of one size; a tensor (N,3,H,W) will do.
        batch_size: images per call of the extractor.
        cache: look up known images and store new ones here.

    Returns:
        (N, D), float32, on the CPU, in the order of the images.

    Raises:
        ValueError: no images, or one that is not (3,H,W).
    """
    known = cache.read(extractor.fingerprint) if cache else {}
    rows: list[torch.Tensor] = []
    for batch in _batches(images, batch_size):
        keys = [image_hash(image) for image in batch]
        new = {key: image for key, image in zip(keys, batch, strict=True) if key not in known}
        if new:
            features = extractor(torch.stack(list(new.values()))).float().cpu()
            found = {key: row.clone() for key, row in zip(new, features, strict=True)}
            known |= found
            if cache:
                cache.write(extractor.fingerprint, found)
        rows += [known[key] for key in keys]
    if not rows:
        raise ValueError("there are no images to take features of")
    return torch.stack(rows)


def image_hash(image: torch.Tensor) -> str:
    """SHA-256 of an image's shape, dtype and values.

    Raises:
        ValueError: it is not one image (3,H,W).
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"an image must have shape (3, H, W), not {tuple(image.shape)}")
    return _digest([f"{tuple(image.shape)} {image.dtype}".encode(), image])


def _batches(images: Iterable[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    images = iter(images)
    while batch := list(islice(images, size)):
        yield batch


def _fingerprint(model: nn.Module, how: str) -> str:
    """Names an extractor by its class, weights and preprocessing, whatever it is called and wherever it lies."""
    parts: list[bytes | torch.Tensor] = [f"{type(model).__name__} {how}".encode()]
    for name, tensor in model.state_dict().items():
        parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), tensor]
    return _digest(parts)


def _digest(parts: Iterable[bytes | torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(part)
    return digest.hexdigest()
