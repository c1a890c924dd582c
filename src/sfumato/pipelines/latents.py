"""Images into a pipeline's own latents and back, by the pipeline's own code.

Between its last step and its decoder a pipeline unpacks, scales and shifts its latents, each family in its own way.
That is run here without any step: on given latents to decode them, and on zeros to read off how to go backwards.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch

from sfumato.pipelines.calls import per_image, undone
from sfumato.pipelines.patching import patched
from sfumato.pipelines.recording import Watch
from sfumato.pipelines.rollout import run


def decode(pipe: Any, latents: torch.Tensor, *, grad: bool = False, **arguments: Any) -> torch.Tensor:
    """The images of clean latents, as the pipeline makes them after its last step; the denoiser is not run.

    Args:
        latents: (B, ...) in the pipeline's own layout, such as `predicted_original` or `encode_images` gives.
        grad: whether the images keep the gradient of the latents.
        **arguments: of the pipeline's call, such as `rollout.arguments`.

    Returns:
        (B, 3, H, W) in [0, 1], clamped.

    Raises:
        RuntimeError: the pipeline decodes something else than its latents.
    """
    return _without_steps(pipe, len(latents), arguments, grad, latents)


def encode_images(pipe: Any, images: torch.Tensor, *, grad: bool = False, **arguments: Any) -> torch.Tensor:
    """The clean latents of images, in the pipeline's own layout: the mean of what its VAE's encoder gives.

    Args:
        images: (B, 3, H, W) in [0, 1].
        grad: whether the latents keep the gradient of the images.
        **arguments: of the pipeline's call, such as `rollout.arguments`; the images say `height` and `width`.

    Returns:
        (B, ...), such as `noised` takes, of the dtype in which the pipeline prepares its latents.

    Raises:
        ValueError: the pipeline has no VAE with an encoder, one that overflows in half precision, or images of a size
            that the arguments contradict.
        RuntimeError: the pipeline does more to its latents than to scale, shift and move them.
    """
    _check_encoder(pipe)
    sizes = {"height": images.shape[-2], "width": images.shape[-1]}
    known = inspect.signature(type(pipe).__call__).parameters
    arguments = {**{name: size for name, size in sizes.items() if name in known}, **arguments}
    tail = _tail(pipe, len(images), arguments)
    with torch.set_grad_enabled(grad):
        return tail.inverted(_encoded(pipe.vae, images, tail.decoded.detach())).to(tail.dtype)


@dataclass(frozen=True)
class _Tail:
    """What a pipeline does to its latents before it decodes them: an affine map, each element moved to some place.

    Attributes:
        zeros: latents in the pipeline's layout, a leaf.
        decoded: what was to be decoded for them, with its graph.
        dtype: of the pipeline's latents.
    """

    zeros: torch.Tensor
    decoded: torch.Tensor
    dtype: torch.dtype

    def back(self, weights: torch.Tensor) -> torch.Tensor:
        """The transposed linear part: where element i goes to j times s, `weights[j]` comes back to i times s."""
        graph = torch.is_grad_enabled()
        (found,) = torch.autograd.grad(self.decoded, self.zeros, weights, retain_graph=True, create_graph=graph)
        return found

    def inverted(self, decoded: torch.Tensor) -> torch.Tensor:
        """The latents from which `decoded` is made."""
        return self.back(decoded.to(self.decoded.dtype) - self.decoded.detach()) / self.scale().square()

    def scale(self) -> torch.Tensor:
        """The factor s of each element, in the layout of the latents.

        Raises:
            RuntimeError: the elements are mixed. By the Cauchy-Schwarz inequality the squares below agree only where
                every element goes to one place.
        """
        ones = torch.ones_like(self.decoded)
        ramp = torch.linspace(1, 2, ones.numel(), dtype=ones.dtype, device=ones.device).view_as(ones)
        one, first, second = (self.back(weights) for weights in (ones, ramp, ramp.square()))
        if one.numel() != ones.numel() or not torch.allclose(first.square(), second * one, rtol=1e-4):
            raise RuntimeError("this pipeline mixes its latents before it decodes them, so they cannot be found again")
        return one


class _Caught(Exception):
    """Carries what a pipeline wanted to decode out of its call."""


class _Catcher:
    """Stands in the place of a VAE and catches what it is to decode, in the precision `dtype`."""

    def __init__(self, vae: Any, dtype: torch.dtype):
        self._vae, self.dtype = vae, dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode(self, latents: torch.Tensor, *_: Any, **__: Any) -> None:
        raise _Caught(latents)


def _tail(pipe: Any, count: int, arguments: dict[str, Any]) -> _Tail:
    prepare, seen = pipe.prepare_latents, []

    @functools.wraps(prepare)
    def zeros(*args: Any, **kwargs: Any) -> Any:
        made = prepare(*args, **kwargs)
        latents = made[0] if isinstance(made, tuple) else made
        wide = torch.promote_types(latents.dtype, torch.float32)
        seen.extend([latents.dtype, torch.zeros_like(latents, dtype=wide).requires_grad_()])
        return (seen[1], *made[1:]) if isinstance(made, tuple) else seen[1]

    wide = torch.promote_types(pipe.vae.dtype, torch.float32)
    try:
        with patched(pipe, "prepare_latents", zeros), patched(pipe, "vae", _Catcher(pipe.vae, wide)):
            _without_steps(pipe, count, arguments, True)
    except _Caught as caught:
        return _Tail(seen[1], caught.args[0], seen[0])
    raise RuntimeError(f"a {type(pipe).__name__} decodes nothing by its VAE")


def _without_steps(
    pipe: Any, count: int, arguments: dict[str, Any], grad: bool, latents: torch.Tensor | None = None
) -> torch.Tensor:
    """A pipeline call that takes no step."""
    generators = [torch.Generator("cpu") for _ in range(count)]
    watch = Watch(pipe, generators, section=lambda steps: range(steps, steps), last_steps=0 if grad else None)
    try:
        with undone(pipe):
            return run(pipe, per_image(arguments, count), watch, latents)
    except UnboundLocalError as error:
        raise RuntimeError(f"a {type(pipe).__name__} decodes what its last step gave: without one it cannot") from error


def _encoded(vae: Any, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The mean of the encoder's distribution, in the layout of `like`; videos have an axis more, of one frame."""
    pixels = (2 * images - 1).to(vae.device, vae.dtype)
    encoded = vae.encode(pixels[:, :, None] if like.ndim == 5 else pixels, return_dict=False)[0]
    encoded = encoded if isinstance(encoded, torch.Tensor) else encoded.mode()
    if encoded.shape != like.shape:
        sizes = [tuple(x.shape[1:]) for x in (encoded, like)]
        raise ValueError(f"these images are encoded to {sizes[0]}, but this call decodes {sizes[1]}: give their size")
    return encoded


def _check_encoder(pipe: Any) -> None:
    vae = getattr(pipe, "vae", None)
    if vae is None or getattr(vae, "encoder", None) is None:
        raise ValueError(f"this {type(pipe).__name__} has no VAE with an encoder, so images cannot be brought into it")
    if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        raise ValueError("this VAE overflows in float16: load the pipeline in bfloat16")
