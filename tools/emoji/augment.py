"""Seeded augmentation that makes real pictures resemble generated ones, shared by scorer and judge."""

import torch
import torch.nn.functional as F


def move(images: torch.Tensor, generator: torch.Generator, shift: float, zoom: float) -> torch.Tensor:
    """Shift (fraction of the width), scale and mirror each image, filling with white."""
    count = len(images)
    uniform = torch.rand(count, 4, generator=generator) * 2 - 1
    theta = torch.zeros(count, 2, 3)
    scale = 1 + zoom * uniform[:, 0]
    theta[:, 0, 0] = scale * torch.where(uniform[:, 1] > 0, 1.0, -1.0)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = 2 * shift * uniform[:, 2:]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return 1 - F.grid_sample(1 - images, grid, align_corners=False)


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur, add noise, shift colours: each for a random part of the batch."""
    count = len(images)

    def some(share: float, top: float) -> torch.Tensor:
        strength = torch.rand(count, 1, 1, 1, generator=generator) * top
        return strength * (torch.rand(count, 1, 1, 1, generator=generator) < share)

    blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    images = torch.lerp(images, blurred, some(0.5, 1.0))
    images = images + torch.randn(images.shape, generator=generator) * some(0.5, 0.1)
    smooth = F.interpolate(torch.randn(count, 3, 8, 8, generator=generator), images.shape[-2:], mode="bilinear")
    images = images + smooth * some(0.3, 0.1)
    tint = torch.randn(count, 3, 1, 1, generator=generator)
    return (images + tint * some(0.3, 0.05)).clamp(0, 1)


def augment(
    images: torch.Tensor, copies: torch.Tensor, generator: torch.Generator, shift: float = 0.08, zoom: float = 0.15
) -> torch.Tensor:
    """Augmented batch: 40 % are replaced by their autoencoder copies first; all in [0, 1]."""
    swap = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.4
    images = torch.where(swap, copies, images)
    return degrade(move(images, generator, shift, zoom), generator)
