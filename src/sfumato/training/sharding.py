"""A denoiser too large for one device: its frozen weights shared out among the processes by torch's FSDP.

`fully_shard` works in place, so the pipeline keeps its denoiser. The LoRA is left out of it: its gradients, optimiser,
checkpoints and files are what they are without sharding, and frozen weights have no gradients to exchange.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from sfumato.config import TrainingConfig
from sfumato.training.objective import Objective


def check_sharding(config: TrainingConfig, objective: Objective, processes: int) -> None:
    """Raise ValueError if the denoiser cannot be shared out among the processes of a training."""
    from torch.distributed.fsdp import fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise ValueError(f"training.memory.shard needs torch 2.7 or later, this is {torch.__version__}: leave it out")
    if processes == 1:
        raise ValueError(
            "training.memory.shard shares the denoiser out among processes, and there is one: start several by "
            "`accelerate launch` or torchrun, or leave it out"
        )
    if config.lora is None:
        raise ValueError("training.memory.shard shares out frozen weights, and without a LoRA there are none: give one")
    if config.prefix.merge:
        raise ValueError("training.memory.shard: shares cannot be changed meanwhile: set training.prefix.merge=false")
    if getattr(objective, "uneven", False):
        raise ValueError(
            f"training.memory.shard: with {type(objective).__name__} processes run the denoiser different numbers of "
            "times and would wait for one another for ever: leave it out, or choose another objective"
        )


def shard_denoiser(module: nn.Module, own: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Leave each process its share of the weights; a block's are gathered when it is run, and let go thereafter.

    Args:
        module: the denoiser; it may lie on the CPU, from where it moves to the accelerator block by block.
        own: parameters that every process keeps whole.
        accelerator: knows the processes and their devices.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    options: Any = {"mesh": mesh, "reshard_after_forward": True, "ignored_params": set(own)}
    for block in blocks(module):
        fully_shard(block, **options)
    fully_shard(module, **options)
    for parameter in own:
        parameter.data = parameter.data.to(accelerator.device)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts that are gathered at once, inner ones first: those that diffusers says are not to be split."""
    names = set(getattr(module, "_no_split_modules", None) or getattr(module, "_repeated_blocks", None) or [])
    return [part for part in reversed(list(module.modules())) if type(part).__name__ in names and part is not module]
