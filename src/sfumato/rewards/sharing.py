"""What several rewards of the same images compute once: the pass of a backbone that they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_Seen = dict[tuple[int, int, bool], tuple[object, torch.Tensor, torch.Tensor]]
_seen: ContextVar[_Seen | None] = ContextVar("seen", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let `once` remember, until the outermost of these contexts ends. `score` opens one around every reward."""
    if _seen.get() is not None:
        yield
        return
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def once(owner: object, images: torch.Tensor, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `owner` computes of `images`: within `sharing` only the first time that it is asked about this very tensor.

    All who ask get the same result with its graph, so that gradients of several rewards add up before they go back
    through the backbone, once.

    Args:
        owner: what computes, such as a backbone.
        images: the tensor object that it is about.
        compute: does it; with and without gradient are two results.
    """
    seen = _seen.get()
    if seen is None:
        return compute()
    key = (id(owner), id(images), torch.is_grad_enabled())
    if key not in seen:
        seen[key] = (owner, images, compute())  # both are kept alive, so that no other object gets their ids
    return seen[key][-1]
