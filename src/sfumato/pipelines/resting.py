"""Models that lie on the CPU except while they are used."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from sfumato.pipelines.patching import patched


class Resting:
    """Modules that can leave their device and come back.

    Args:
        modules: each on the device that it comes back to; a module without weights is left alone.
    """

    def __init__(self, modules: Sequence[nn.Module]):
        found = [(module, next(module.parameters(), None)) for module in modules]
        self.homes = [(module, weight.device) for module, weight in found if weight is not None]
        self.users = 1

    def come(self) -> None:
        """Someone needs them on their device."""
        self.users += 1
        if self.users == 1:
            for module, device in self.homes:
                module.to(device)

    def go(self) -> None:
        """Someone needs them no longer; after the last they leave."""
        self.users -= 1
        if self.users == 0:
            for module, _ in self.homes:
                module.to("cpu")

    @contextmanager
    def used(self) -> Iterator[None]:
        """They are on their device."""
        self.come()
        try:
            yield
        finally:
            self.go()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """They are on the CPU, but where they are used."""
        self.go()
        try:
            yield
        finally:
            self.come()


class TextEncoders:
    """A pipeline's text encoders, which its `encode_prompt` alone needs."""

    def __init__(self, pipe: Any):
        parts = pipe.components.items()
        self.pipe = pipe
        self.parts = {n: part for n, part in parts if n.startswith("text_encoder") and isinstance(part, nn.Module)}
        self.modules = Resting(list(self.parts.values()))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """The pipeline has none, so that it takes the device of its other parts for its own, but while it encodes."""
        encode = self.pipe.encode_prompt

        @functools.wraps(encode)
        def encode_with_them(*args: Any, **kwargs: Any) -> Any:
            with self.modules.used(), self._replaced(**self.parts):
                return encode(*args, **kwargs)

        nothing: dict[str, Any] = dict.fromkeys(self.parts)
        with self.modules.resting(), self._replaced(**nothing, encode_prompt=encode_with_them):
            yield

    @contextmanager
    def _replaced(self, **attributes: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for name, value in attributes.items():
                stack.enter_context(patched(self.pipe, name, value))
            yield
