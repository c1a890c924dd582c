"""What denoisers take and give: trees of tuples, lists, dicts and model outputs with tensors as leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a denoiser."""


def mapped(function: Callable[..., torch.Tensor], *trees: Any) -> Any:
    """`function` of the corresponding tensors of equal trees; other leaves are those of the first tree."""
    first = trees[0]
    if isinstance(first, torch.Tensor):
        return function(*trees)
    if isinstance(first, dict):
        return type(first)(**{key: mapped(function, *(tree[key] for tree in trees)) for key in first})
    if isinstance(first, tuple | list):
        return type(first)(mapped(function, *parts) for parts in zip(*trees, strict=True))
    return first


def leaves(tree: Any) -> list[torch.Tensor]:
    """The tensors of a tree, in order."""
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    mapped(note, tree)
    return found


def mixed(weights: Sequence[float], trees: Sequence[Any]) -> Any:
    """Σ w_i x_i of every tensor, for weights that sum to 1."""
    if len(trees) == 2:
        return mapped(lambda a, b: torch.lerp(a, b, weights[1]), *trees)

    def total(*tensors: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(tensors[0].dtype, torch.float32)
        return sum(w * x.to(wide) for w, x in zip(weights, tensors, strict=True)).to(tensors[0].dtype)  # type: ignore[union-attr]

    return mapped(total, *trees)


class Batch(NamedTuple):
    """How many rows a denoiser call has, and whether it takes its inputs as lists, one item a row (Z-Image)."""

    size: int
    lists: bool


def batch_of(call: Call) -> Batch:
    """The batch of a denoiser call, as told by its first argument that is a list or has at least three axes."""
    for value in (*call[0], *call[1].values()):
        if isinstance(value, list) or (isinstance(value, torch.Tensor) and value.ndim > 2):
            return Batch(len(value), isinstance(value, list))
    raise ValueError("cannot tell the batch size of the denoiser's inputs: use neither one_forward nor sharing")


def rows(tree: Any, batch: Batch, parts: Sequence[slice]) -> Any:
    """The given rows of everything in a tree that has one for each of the batch, part after part."""
    if isinstance(tree, torch.Tensor):
        return torch.cat([tree[part] for part in parts]) if tree.ndim and len(tree) == batch.size else tree
    if isinstance(tree, list) and len(tree) == batch.size and (batch.lists or not isinstance(tree[0], torch.Tensor)):
        return [item for part in parts for item in tree[part]]
    if isinstance(tree, dict):
        return type(tree)(**{key: rows(value, batch, parts) for key, value in tree.items()})
    if isinstance(tree, tuple | list):
        return type(tree)(rows(item, batch, parts) for item in tree)
    return tree
