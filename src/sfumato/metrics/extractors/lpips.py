"""LPIPS as features: their squared Euclidean distance is the perceptual distance itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sfumato.metrics.features import Distance, fingerprint
from sfumato.weights import load_weights

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Trunk:
    """A stack of convolutions with ReLU, cut into the stages whose outputs are compared.

    Attributes:
        stages: per stage, whether a max pool comes first, and the numbers of its convolutions in torchvision's
            `features`.
        channels: of each stage's output.
        pool: edge of the max pools, whose stride is 2.
        first: kernel, stride and padding of the first convolution; the others keep the size.
        smallest: the shortest edge of an image that passes all pools.
    """

    stages: tuple[tuple[bool, tuple[int, ...]], ...]
    channels: tuple[int, ...]
    pool: int
    first: tuple[int, int, int]
    smallest: int


ALEX = Trunk(
    stages=((False, (0,)), (True, (3,)), (True, (6,)), (False, (8,)), (False, (10,))),
    channels=(64, 192, 384, 256, 256),
    pool=3,
    first=(11, 4, 2),
    smallest=31,
)
VGG = Trunk(
    stages=((False, (0, 2)), (True, (5, 7)), (True, (10, 12, 14)), (True, (17, 19, 21)), (True, (24, 26, 28))),
    channels=(64, 128, 256, 512, 512),
    pool=2,
    first=(3, 1, 1),
    smallest=16,
)


class LPIPSFeatures:
    """Features whose squared Euclidean distance is LPIPS 0.1 (Zhang et al. 2018, 1801.03924, equation 1).

    LPIPS sums over layers the mean over positions of w_c (x_c - y_c)², with x and y scaled to length 1 over channels;
    so the features are sqrt(w_c / positions) x_c, flattened. There are many: 640,128 for AlexNet and 7,995,392 for VGG
    on images of 256x256, so images are brought down to that size first.

    Args:
        weights: the converted file of the AlexNet or VGG version; or a folder or hub id with it as
            `model.safetensors`.
        device: where to run.
        size: images with a longer shorter edge are resized to it, antialiased; None leaves all as they are.

    Raises:
        OSError: there is no such file.
        ValueError: it holds other weights, is damaged or not in safetensors.
    """

    distance: Distance = "squared"

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu", size: int | None = 256) -> None:
        state, _ = load_weights(weights, "lpips")
        self.weights = {name: tensor.to(device) for name, tensor in published(state).items()}
        self.trunk, self.size = _trunk(self.weights), size

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(f"LPIPS 0.1 {self.size}", self.weights)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,D), float32, of images (B,3,H,W) in [0, 1]; D depends on H and W.

        Raises:
            ValueError: the images are too small for the network.
        """
        images = self._shrunk(images.to(self.weights["features.0.weight"]))
        if min(images.shape[-2:]) < self.trunk.smallest:
            height, width = images.shape[-2:]
            raise ValueError(f"LPIPS needs images of at least {self.trunk.smallest} pixels, not {height}x{width}")
        parts = []
        for stage, x in enumerate(self._activations(images)):
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            weight = self.weights[f"lin{stage}.model.1.weight"] / (x.shape[2] * x.shape[3])
            parts.append((unit * weight.sqrt()).flatten(1))
        return torch.cat(parts, 1)

    def _shrunk(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        short = min(height, width)
        if self.size is None or short <= self.size:
            return images
        size = [round(edge * self.size / short) for edge in (height, width)]
        return F.interpolate(images, size, mode="bilinear", antialias=True)

    def _activations(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        x = (images * 2 - 1 - images.new_tensor(SHIFT).view(-1, 1, 1)) / images.new_tensor(SCALE).view(-1, 1, 1)
        for pools, convolutions in self.trunk.stages:
            if pools:
                x = F.max_pool2d(x, self.trunk.pool, stride=2)
            for number in convolutions:
                weight, bias = (self.weights[f"features.{number}.{part}"] for part in ("weight", "bias"))
                _, stride, padding = self.trunk.first if number == 0 else (0, 1, weight.shape[-1] // 2)
                x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            yield x


def published(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What `LPIPSFeatures` needs of torchvision's network and the package's linear layers together, float32.

    Raises:
        ValueError: they are not those of AlexNet or VGG16, or a linear weight is negative.
    """
    trunk = _trunk(state)
    names = [
        f"features.{number}.{part}" for _, group in trunk.stages for number in group for part in ("weight", "bias")
    ]
    linear = [f"lin{stage}.model.1.weight" for stage in range(len(trunk.channels))]
    if missing := [name for name in (*names, *linear) if name not in state]:
        raise ValueError(f"LPIPS lacks {missing[0]}: give torchvision's checkpoint and the lpips package's file")
    for name, channels in zip(linear, trunk.channels, strict=True):
        if state[name].shape != (1, channels, 1, 1) or (state[name] < 0).any():
            raise ValueError(f"{name} is not LPIPS's: take both files of one network, alex or vgg, version 0.1")
    return {name: state[name].float() for name in (*names, *linear)}


def _trunk(state: Mapping[str, Any]) -> Trunk:
    first = tuple(state["features.0.weight"].shape) if "features.0.weight" in state else None
    for trunk in (ALEX, VGG):
        if first == (64, 3, trunk.first[0], trunk.first[0]):
            return trunk
    raise ValueError("these are not the weights of LPIPS's AlexNet or VGG16: give torchvision's checkpoint of either")
