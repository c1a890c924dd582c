"""Images to learn from: of a file, or for each prompt some of the base model, between which the reward decides."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from numpy.random import default_rng

from sfumato.config import TrainingConfig
from sfumato.images import image_size, load_image
from sfumato.pipelines.latents import encode_images
from sfumato.preferences.pairs import load_captioned, load_pairs
from sfumato.training.objective import Batch
from sfumato.training.update import Update

ORDER, OTHER_SEEDS = 2, 3
"""Which of an update's random numbers are used for what."""
REMEMBERED = 2**30
"""Bytes of encoded images that are kept in memory."""


@dataclass(frozen=True)
class Row:
    """One or two images of a prompt.

    Attributes:
        prompt: what they show.
        images: their paths.
        weights: how much each counts; of a pair its label y and 1 - y.
    """

    prompt: str
    images: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Examples:
    """Clean images of a micro-batch, those of one row side by side.

    Attributes:
        latents: (E, ...), in the pipeline's own layout.
        prompts: one per image.
        rows: which row of the micro-batch each belongs to.
        weights: (E,), how much each counts; those of a row sum to 1.
    """

    latents: torch.Tensor
    prompts: list[str]
    rows: list[int]
    weights: torch.Tensor

    def __getitem__(self, chosen: Sequence[int]) -> Examples:
        """Some of the images."""
        prompts, rows = [self.prompts[i] for i in chosen], [self.rows[i] for i in chosen]
        return Examples(self.latents[list(chosen)], prompts, rows, self.weights[list(chosen)])


class Source(Protocol):
    """Where examples come from, as many rows as the micro-batch has prompts."""

    def check(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        """Raise ValueError if they cannot be had for this pipeline, sampled like this."""

    def __call__(self, update: Update, batch: Batch, whole: bool) -> Examples:
        """The examples of a micro-batch, a function of (seed, update) alone.

        Args:
            update: the whole update.
            batch: one of its micro-batches.
            whole: whether to give images of weight 0 as well.
        """


class FromFile:
    """Images of a file: no row comes twice before all have come, and an image is encoded when it is first wanted.

    Args:
        path: what errors call it.
        rows: what is in it.

    Raises:
        ValueError: there are no rows.
    """

    def __init__(self, path: str, rows: list[Row]):
        if not rows:
            raise ValueError(f"{path} is empty: give at least one line")
        self.path, self.rows = path, rows
        self.latents: dict[str, torch.Tensor] = {}
        self.order = lru_cache(maxsize=2)(self._order)

    def check(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        sizes = {path: self._size(path) for row in self.rows for path in row.images}
        (first, size), *others = sizes.items()
        for path, other in others:
            if other != size:
                raise ValueError(
                    f"{path} has {other[1]} x {other[0]} pixels and {first} has {size[1]} x {size[0]}: scale and crop "
                    f"the images of {self.path} to the size at which sampling makes them"
                )
        known = inspect.signature(type(pipe).__call__).parameters
        usual = {name: known[name].default for name in ("height", "width") if name in known}
        own = dict(zip(("height", "width"), size, strict=True)) if usual else {}
        encode = partial(encode_images, pipe, load_image(first)[None])
        encode(**{**call, "prompt": prompt, **own})
        try:
            encode(**{**usual, **call, "prompt": prompt})
        except ValueError:
            raise ValueError(
                f"{self.path} has images of {size[1]} x {size[0]} pixels, and sampling makes others: scale and crop "
                "them, or set sampling.arguments.height and width"
            ) from None

    def __call__(self, update: Update, batch: Batch, whole: bool) -> Examples:
        count, total = len(self.rows), len(update.prompts)
        places = range((update.number - 1) * total, update.number * total)[batch.place]
        rows = [self.rows[self.order(update.seed, place // count)[place % count]] for place in places]
        chosen = [
            (i, row.prompt, image, weight)
            for i, row in enumerate(rows)
            for image, weight in zip(row.images, row.weights, strict=True)
            if weight or whole
        ]
        device = batch.pipe.device
        latents = torch.stack([self._encoded(batch, image, prompt).to(device) for _, prompt, image, _ in chosen])
        weights = torch.tensor([weight for *_, weight in chosen], device=device)
        return Examples(latents, [prompt for _, prompt, *_ in chosen], [i for i, *_ in chosen], weights)

    def _size(self, path: str) -> tuple[int, int]:
        try:
            return image_size(path)
        except FileNotFoundError:
            raise ValueError(f"{self.path} names {path}, which does not exist") from None

    def _order(self, seed: int, epoch: int) -> list[int]:
        return default_rng([seed, epoch, ORDER]).permutation(len(self.rows)).tolist()

    def _encoded(self, batch: Batch, path: str, prompt: str) -> torch.Tensor:
        """Each alone, so that the latents do not depend on their company."""
        if path in self.latents:
            return self.latents[path]
        latents = encode_images(batch.pipe, load_image(path)[None], prompt=prompt, **batch.call)[0].cpu()
        if (len(self.latents) + 1) * latents.nbytes <= REMEMBERED:
            self.latents[path] = latents
        return latents


@dataclass(frozen=True)
class FromBase:
    """Images of the base model for each prompt, sampled anew in every update; that of the highest reward is preferred.

    Attributes:
        candidates: so many for each prompt.
    """

    candidates: int = 2

    def check(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        pass

    def __call__(self, update: Update, batch: Batch, whole: bool) -> Examples:
        shape = (self.candidates - 1, len(update.prompts))
        others = update.random(OTHER_SEEDS).integers(2**32, size=shape)[:, batch.place].tolist()
        with batch.base(), torch.no_grad():
            found = [each.sample(record=True) for each in (batch, *(replace(batch, seeds=seeds) for seeds in others))]
            scores = torch.stack([batch.score(each.images) for each in found], 1)
        best = (scores == scores.amax(1, keepdim=True)).to(scores)
        count = len(batch.prompts)
        examples = Examples(
            torch.stack([each.steps[-1].next_sample for each in found], 1).flatten(0, 1),
            [prompt for prompt in batch.prompts for _ in found],
            [row for row in range(count) for _ in found],
            (best / best.sum(1, keepdim=True)).flatten(),
        )
        return examples if whole else examples[examples.weights.nonzero().flatten().tolist()]


def from_pairs(path: str | None, candidates: int = 2) -> Source:
    """Pairs of a file, or so many candidates of the base model where there is none.

    Raises:
        ValueError: there is no such file, or it is empty or has a line that is no pair.
    """
    return FromBase(candidates) if path is None else _from_file(path, _pair_rows)


def from_images(path: str) -> Source:
    """Images of a file; raises ValueError as `from_pairs`."""
    return _from_file(path, _image_rows)


def check_regularizers(config: TrainingConfig, method: str) -> None:
    """Raise ValueError if one looks at images of the tuned model, of which `method` samples none."""
    asked = [name for name, section in config.regularizers if section is not None and name != "data"]
    if asked:
        raise ValueError(
            f"training.regularizers.{asked[0]} looks at images of the tuned model, of which {method} samples none: set "
            "it to null; training.regularizers.data can be used"
        )


def _from_file(path: str, read: Callable[[str], list[Row]]) -> FromFile:
    try:
        return FromFile(path, read(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def _pair_rows(path: str) -> list[Row]:
    return [Row(p.prompt, (p.image_0, p.image_1), (p.label, 1 - p.label)) for p in load_pairs(path)]


def _image_rows(path: str) -> list[Row]:
    return [Row(each.prompt, (each.image,), (1.0,)) for each in load_captioned(path)]
