"""Replacing an attribute of one instance for a while, and leaving nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def patched(instance: Any, name: str, value: Any) -> Iterator[None]:
    """Set `instance.name` to `value` on the instance alone, and undo it at the end, also after an exception.

    The attribute is written into the instance's `__dict__`, past `__setattr__`: a diffusers pipeline would otherwise
    rewrite its config. Where the instance had no attribute of its own, it has none afterwards.
    """
    attributes = vars(instance)
    before = attributes.get(name, _ABSENT)
    attributes[name] = value
    try:
        yield
    finally:
        if before is _ABSENT:
            attributes.pop(name, None)
        else:
            attributes[name] = before
