"""Where a pipeline is, looked up once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def staying(pipe: Any) -> Iterator[None]:
    """Promise that a pipeline stays on its device: diffusers goes through all modules to find it, in every call."""
    cls = type(pipe)
    found = {name: getattr(pipe, name) for name in ("device", "_execution_device")}
    pipe.__class__ = type(cls.__name__, (cls,), {**found, "__module__": cls.__module__, "__doc__": cls.__doc__})
    try:
        yield
    finally:
        pipe.__class__ = cls
