"""Halves of a batch in two single-threaded processes that share the weights and meet once per update.

On a busy machine this holds up far better than threads that wait for each other in every operation.
"""

from multiprocessing.connection import Connection

import torch
import torch.multiprocessing as mp
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def backward(model: nn.Module, batch: Batch, share: float) -> float:
    """Gradient of ``share`` times the mean squared error of model(noisy, timesteps, tokens) against the target."""
    noisy, timesteps, tokens, target = batch
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    loss = share * (model(noisy, timesteps, tokens) - target).square().mean()
    loss.backward()
    return loss.item()


def serve(model: nn.Module, gradients: list[torch.Tensor], pipe: Connection) -> None:
    """The helper: answer each batch with its loss, leaving the gradients in shared memory, until the pipe closes."""
    torch.set_num_threads(1)
    while True:
        try:
            arrays, share = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        loss = backward(model, tuple(torch.from_numpy(array) for array in arrays), share)
        torch._foreach_copy_(gradients, [parameter.grad for parameter in model.parameters()])
        model.zero_grad(set_to_none=True)
        pipe.send(loss)


class Pair:
    """This process and one helper, each with half of every batch."""

    def __init__(self, model: nn.Module) -> None:
        torch.set_num_threads(1)
        self.model = model.share_memory()
        self.gradients = [torch.zeros_like(parameter).share_memory_() for parameter in model.parameters()]
        context = mp.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.helper = context.Process(target=serve, args=(model, self.gradients, other), daemon=True)
        self.helper.start()
        other.close()

    def backward(self, batch: Batch) -> float:
        """Leave the gradient of the mean loss on the model and return that loss."""
        self.pipe.send(([tensor[1::2].numpy() for tensor in batch], 0.5))
        loss = backward(self.model, tuple(tensor[::2] for tensor in batch), 0.5)
        loss += self.pipe.recv()
        torch._foreach_add_([parameter.grad for parameter in self.model.parameters()], self.gradients)
        return loss
