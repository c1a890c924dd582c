"""What people do to a pipeline before they guide it, on the tiny ones, and the proof that guidance survived it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from peft import LoraConfig

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.patching import patched
from tests import tiny

LINEAR = (0.0, 0.5, 1.0)
"""The weights of schedule "linear" at three denoiser calls."""


def picture(seed: int = 3, size: int = 16) -> torch.Tensor:
    """A random image in [0, 1], (1, 3, size, size)."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def mask(size: int = 16) -> torch.Tensor:
    """What an inpainting keeps (left half) and repaints (right half), (1, 1, size, size)."""
    kept = torch.zeros(1, 1, size, size)
    kept[..., size // 2 :] = 1.0
    return kept


def shake(module: torch.nn.Module, seed: int = 5, size: float = 0.3) -> None:
    """Change every weight a little, the zeros of a fresh ControlNet too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter.std() if parameter.numel() > 1 and parameter.any() else 0.2
            parameter.add_(size * scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def add_adapter(pipe: Any, adapter: str = "default", seed: int = 0, **options: Any) -> None:
    """A LoRA that peft configures with `options`, every matrix of it away from 0."""
    config = LoraConfig(**{"r": 2, "lora_alpha": 4, "target_modules": ["to_q", "to_k", "to_v"], **options})
    module = denoiser(pipe)
    old = {id(parameter) for parameter in module.parameters()}
    module.add_adapter(config, adapter)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if id(parameter) not in old:
                size = 1.0 / parameter.shape[-1] ** 0.5
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@contextmanager
def by_hand(pipe: Any, bare: Any, weights: Sequence[float]) -> Iterator[None]:
    """The k-th denoiser call gives (1 - g) base + g tuned with the k-th of the weights, from two separate models."""
    module, base, left = denoiser(pipe), denoiser(bare).forward, list(weights)
    tuned = module.forward

    def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        g = left.pop(0)
        return ((1 - g) * base(*args, **kwargs)[0] + g * tuned(*args, **kwargs)[0],)

    with patched(module, "forward", forward):
        yield
    assert not left, f"{len(left)} of the {len(weights)} denoiser calls did not happen"


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal up to the order of a few sums in single precision."""
    return torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def apart(*pictures: torch.Tensor) -> bool:
    """No two of them are close."""
    return all((one - other).abs().max() > 1e-4 for one, other in itertools.combinations(pictures, 2))


def prove(
    pipe: Any, bare: Any, run: Callable[[Any], torch.Tensor], weights: Sequence[float] = LINEAR, **guidance: Any
) -> None:
    """Weight 0 is `run(bare)` and weight 1 `run(pipe)`, bit for bit; the schedule "linear" is the mix made by hand.

    Args:
        weights: those of "linear" at each denoiser call.
        **guidance: more arguments of `annealed_guidance`.
    """
    base, tuned = run(bare), run(pipe)
    with by_hand(pipe, bare, weights):
        mixed = run(pipe)
    assert apart(base, tuned, mixed)
    for schedule, expected in [("base", base), ("tuned", tuned)]:
        with annealed_guidance(pipe, schedule, **guidance):
            assert torch.equal(run(pipe), expected), schedule
    with annealed_guidance(pipe, "linear", **guidance) as state:
        assert close(run(pipe), mixed)
    assert state.passes == sum(1 if g in (0.0, 1.0) else 2 for g in weights)


def sample(seeds: Sequence[int] = (1, 2), **arguments: Any) -> Callable[[Any], torch.Tensor]:
    """A function that gives the images of a pipeline called with these arguments, (B, 3, H, W)."""

    def run(pipe: Any) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # some encode their control image at random, without the generators they were given
            return tiny.images(pipe, list(seeds), **arguments)

    return run


def like(cls: type, pipe: Any, **more: Any) -> Any:
    """A pipeline of another class made of the same components and some more."""
    have = {**pipe.config, **pipe.components, **more}
    made = cls(**{name: have[name] for name in inspect.signature(cls).parameters if name in have})
    made.set_progress_bar_config(disable=True)
    return made


def with_controlnet(pipe: Any, family: str) -> Any:
    """The pipeline with a ControlNet of the size of its denoiser and random weights."""
    prefix, model, options = {
        "sd": ("StableDiffusion", diffusers.ControlNetModel, {"conditioning_embedding_out_channels": (4, 8)}),
        "sdxl": ("StableDiffusionXL", diffusers.ControlNetModel, {"conditioning_embedding_out_channels": (4, 8)}),
        "sd3": ("StableDiffusion3", diffusers.SD3ControlNetModel, {}),
        "flux": ("Flux", diffusers.FluxControlNetModel, {}),
    }[family]
    config = {**denoiser(pipe).config, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        controlnet = model(**{name: config[name] for name in inspect.signature(model).parameters if name in config})
    shake(controlnet)
    return like(getattr(diffusers, f"{prefix}ControlNetPipeline"), pipe, controlnet=controlnet.eval())


def with_ip_adapter(pipe: Any) -> Any:
    """The same pipeline after it has loaded a random IP-Adapter for image embeddings of width 8."""
    width, generator = pipe.unet.config.cross_attention_dim, torch.Generator().manual_seed(4)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    projection = {"proj.weight": random(4 * width, 8), "proj.bias": random(4 * width)}
    norm = {"norm.weight": 1 + random(width), "norm.bias": random(width)}
    places = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
    layers = [pipe.unet.get_submodule(name.removesuffix(".processor")) for name in places]
    keys = {
        f"{2 * place + 1}.to_{letter}_ip.weight": random(layer.inner_dim, width)
        for place, layer in enumerate(layers)
        for letter in "kv"
    }
    state = {"image_proj": projection | norm, "ip_adapter": keys}
    pipe.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    return pipe


def quantise(pipe: Any, kind: str) -> Any:
    """The same pipeline with the linear layers of its denoiser in few bits, by an optional library.

    Args:
        kind: `"torchao"` (8 bits), `"bitsandbytes-8"` or `"bitsandbytes-4"`. diffusers reads checkpoints by the latter
            on a GPU only, but its layers run on a CPU.
    """
    module = denoiser(pipe)
    if kind == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(module, Int8WeightOnlyConfig())
        return pipe
    import bitsandbytes

    bits = kind[-1]
    setattr(module, f"is_loaded_in_{bits}bit", True)  # as diffusers marks it, for peft
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, torch.nn.Linear):
            continue
        options = {"has_fp16_weights": False} if bits == "8" else {"quant_type": "nf4"}
        layer_class, weight_class = {
            "8": (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Int8Params),
            "4": (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Params4bit),
        }[bits]
        small = layer_class(layer.in_features, layer.out_features, layer.bias is not None, **options)
        small.weight, small.bias = weight_class(layer.weight.data, requires_grad=False, **options), layer.bias
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, small.to("cpu"))
    return pipe
