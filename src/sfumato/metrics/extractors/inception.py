"""The Inception network of FID, as TensorFlow's 2015 graph computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sfumato.metrics.features import Distance, fingerprint
from sfumato.weights import load_weights

SIZE = 299

Pool = Callable[[torch.Tensor], torch.Tensor]
Step = tuple[str, int, int | tuple[int, int], int]
"""A convolution: name, channels out, kernel, stride. With stride 1 it keeps the size; with 2 it is not padded."""

_average: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_largest: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halve: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)


class InceptionFeatures:
    """The 2048 features of FID: the last pooled layer ("pool3") of the Inception network of 2015 (1512.00567).

    Images are rounded to 8 bits and resized to 299x299, whatever their shape, by TensorFlow 1's bilinear filter, which
    neither antialiases nor centres its samples: as in the original code (Heusel et al. 2017, 1706.08500) and in
    torch-fidelity. The features are not negative.

    Args:
        weights: the converted file `pt_inception-2015-12-05-6726825d.pth`; or a folder or hub id with it as
            `model.safetensors`.
        device: where to run.

    Raises:
        OSError: there is no such file.
        ValueError: it holds other weights, is damaged or not in safetensors.
    """

    distance: Distance = "cosine"

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        state, _ = load_weights(weights, "inception")
        self.model = Inception()
        self.model.load_state_dict(published(state), strict=False)
        self.model.eval().requires_grad_(False).to(device)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("FID Inception pool3, 8 bit, TensorFlow 1 bilinear 299", self.model.state_dict())

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B,2048), float32, of images (B,3,H,W) in [0, 1]."""
        pixels = images.to(next(self.model.parameters())) * 255
        pixels = (pixels.round() + (pixels - pixels.detach())).clamp(0, 255)  # the gradient passes straight through
        return self.model((_resize(pixels) - 128) / 128)


def published(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What `InceptionFeatures` needs of the published state dict, float32; names are kept.

    Raises:
        ValueError: it is another network's.
    """
    found = {name: tensor.float() for name, tensor in state.items() if isinstance(tensor, torch.Tensor) and _used(name)}
    expected = {name: tensor.shape for name, tensor in Inception().state_dict().items() if _used(name)}
    if {name: tensor.shape for name, tensor in found.items()} != expected:
        raise ValueError("these are not the weights of FID's Inception: take pt_inception-2015-12-05-6726825d.pth")
    return found


class Inception(nn.Module):
    """Pixel values (B,3,299,299) in [-1, 1) to features (B,2048); parameters are named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = Mixed(
            288,
            _halve,
            [("branch3x3", 384, 3, 2)],
            [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)],
        )
        self.Mixed_6b, self.Mixed_6c = _block_c(128), _block_c(160)
        self.Mixed_6d, self.Mixed_6e = _block_c(160), _block_c(192)
        self.Mixed_7a = Mixed(
            768,
            _halve,
            [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)],
            [
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, (1, 7), 1),
                ("branch7x7x3_3", 192, (7, 1), 1),
                ("branch7x7x3_4", 192, 3, 2),
            ],
        )
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, _average), _block_e(2048, _largest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], **how: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **how)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their channels joined, and a pool at the end.

    Args:
        inputs: channels in.
        pool: of the last branch.
        branches: each a list of steps; a tuple of two steps, which only a branch's end may have, runs both of them on
            the same input.
        projection: channels of the convolution `branch_pool` after the pool; 0 for none.
    """

    def __init__(self, inputs: int, pool: Pool, *branches: list[Step | tuple[Step, Step]], projection: int = 0) -> None:
        super().__init__()
        self.pool, self.names = pool, []
        for branch in branches:
            channels, stages = inputs, []
            for entry in branch:
                steps: tuple[Any, ...] = entry if isinstance(entry[0], tuple) else (entry,)
                for name, outputs, kernel, stride in steps:
                    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
                    padding = (height // 2, width // 2) if stride == 1 else 0
                    self.add_module(name, Convolution(channels, outputs, kernel, stride=stride, padding=padding))
                channels = steps[-1][1]
                stages.append([step[0] for step in steps])
            self.names.append(stages)
        if projection:
            self.branch_pool = Convolution(inputs, projection, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = []
        for stages in self.names:
            y = x
            for names in stages:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            joined.append(y)
        pooled = self.pool(x)
        return torch.cat([*joined, self.branch_pool(pooled) if hasattr(self, "branch_pool") else pooled], 1)


def _block_a(inputs: int, projection: int) -> Mixed:
    return Mixed(
        inputs,
        _average,
        [("branch1x1", 64, 1, 1)],
        [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)],
        projection=projection,
    )


def _block_c(inner: int) -> Mixed:
    return Mixed(
        768,
        _average,
        [("branch1x1", 192, 1, 1)],
        [("branch7x7_1", inner, 1, 1), ("branch7x7_2", inner, (1, 7), 1), ("branch7x7_3", 192, (7, 1), 1)],
        [
            ("branch7x7dbl_1", inner, 1, 1),
            ("branch7x7dbl_2", inner, (7, 1), 1),
            ("branch7x7dbl_3", inner, (1, 7), 1),
            ("branch7x7dbl_4", inner, (7, 1), 1),
            ("branch7x7dbl_5", 192, (1, 7), 1),
        ],
        projection=192,
    )


def _block_e(inputs: int, pool: Pool) -> Mixed:
    return Mixed(
        inputs,
        pool,
        [("branch1x1", 320, 1, 1)],
        [("branch3x3_1", 384, 1, 1), (("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1))],
        [
            ("branch3x3dbl_1", 448, 1, 1),
            ("branch3x3dbl_2", 384, 3, 1),
            (("branch3x3dbl_3a", 384, (1, 3), 1), ("branch3x3dbl_3b", 384, (3, 1), 1)),
        ],
        projection=192,
    )


def _resize(pixels: torch.Tensor) -> torch.Tensor:
    """To 299x299 as TensorFlow 1's `resize_bilinear` without aligned corners does it: along rows, then columns."""
    return _stretch(_stretch(pixels, 3), 2)


def _stretch(pixels: torch.Tensor, axis: int) -> torch.Tensor:
    length = pixels.shape[axis]
    where = torch.arange(SIZE, dtype=torch.float32, device=pixels.device) * torch.tensor(length / SIZE)
    low = where.long()
    low_values = pixels.index_select(axis, low)
    high_values = pixels.index_select(axis, (low + 1).clamp_max(length - 1))
    share = (where - low).view([-1 if dimension == axis else 1 for dimension in range(4)])
    return low_values + (high_values - low_values) * share


def _used(name: str) -> bool:
    """Whether pool3 features need it: not the classifier, not the counters of training."""
    return not name.startswith("fc.") and not name.endswith("num_batches_tracked")
