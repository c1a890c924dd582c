"""A gradient against central differences along one direction."""

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sfumato.pipelines.adapters import denoiser


def trained(pipe):
    """The parameters of a pipeline's LoRA."""
    return [parameter for parameter in denoiser(pipe).parameters() if parameter.requires_grad]


def agrees(leaves, loss, size, tolerance):
    """Whether the gradient of `loss()` by the leaves is that of differences of this size; it is not 0."""
    gradients = torch.autograd.grad(loss(), leaves, allow_unused=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
    gradient, start = torch.cat([g.flatten() for g in filled]), parameters_to_vector(leaves).detach()
    noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=gradient.dtype)
    direction = gradient / gradient.norm() + noise / noise.norm()
    ends = []
    for sign in (1, -1):
        vector_to_parameters(start + sign * size * direction, leaves)
        ends.append(loss().detach())
    vector_to_parameters(start, leaves)
    return bool(gradient.any()) and torch.allclose((ends[0] - ends[1]) / (2 * size), gradient @ direction, tolerance, 0)
