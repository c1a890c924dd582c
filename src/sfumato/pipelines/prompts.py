"""Prompts are encoded once: the pipeline's own `encode_prompt` with a memory."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sfumato.pipelines.patching import patched


class PromptCache:
    """Remembers what `encode_prompt` gave for each prompt, whatever else it was called with.

    Prompts are encoded one at a time, so that a prompt's embedding does not depend on the batch it came in. What a
    pipeline gives per batch instead of per prompt (FLUX's text ids) is taken from the first prompt.

    Args:
        limit: bytes; prompts that come when so much is remembered are encoded anew each time.
    """

    def __init__(self, limit: int = 2**31) -> None:
        self.memory: dict[tuple, tuple] = {}
        self.left = limit

    @contextmanager
    def on(self, pipe: Any) -> Iterator[None]:
        """Let `pipe` encode through the memory; pipelines without `encode_prompt` are left alone."""
        encode = getattr(pipe, "encode_prompt", None)
        if encode is None:
            yield
            return

        @functools.wraps(encode)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(encode).bind(*args, **kwargs).arguments
            prompts = given.get("prompt")
            if any(isinstance(value, torch.Tensor) for value in given.values()) or not isinstance(prompts, list):
                return encode(*args, **kwargs)
            rows = [self._one(encode, given, i, len(prompts)) for i in range(len(prompts))]
            joined = _join(rows)
            return encode(*args, **kwargs) if joined is None else joined

        with patched(pipe, "encode_prompt", remembered):
            yield

    def _one(self, encode: Any, given: dict[str, Any], i: int, count: int) -> tuple:
        single = {k: [v[i]] if isinstance(v, list) and len(v) == count else v for k, v in given.items()}
        key = tuple((k, tuple(v) if isinstance(v, list) else str(v)) for k, v in sorted(single.items()))
        if key in self.memory:
            return self.memory[key]
        with torch.no_grad():
            encoded = encode(**single)
        size = sum(tensor.nbytes for tensor in encoded if isinstance(tensor, torch.Tensor))
        if size <= self.left:
            self.memory[key] = encoded
            self.left -= size
        return encoded


def _join(rows: list[tuple]) -> tuple | None:
    """The outputs of single prompts as one batch; None where they cannot be joined (unequal lengths)."""
    if len(rows) == 1:
        return rows[0]
    columns = list(zip(*rows, strict=True))
    joined = []
    for column in columns:
        first = column[0]
        if not isinstance(first, torch.Tensor) or first.shape[0] != 1:
            joined.append(first)
        elif all(tensor.shape == first.shape for tensor in column):
            joined.append(torch.cat(column))
        else:
            return None
    return tuple(joined)
