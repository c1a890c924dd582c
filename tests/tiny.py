"""Tiny random pipelines of five families, made in memory: real diffusers classes, a few thousand weights, no download.

`pipeline("sdxl")` gives a fresh pipeline, `call("sdxl")` the arguments of a quick call of it. The text encoders are
real too, over byte-level vocabularies, so that prompts work everywhere.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from sfumato.pipelines.adapters import add_lora, denoiser

FAMILIES = ("sd", "sdxl", "sd3", "flux", "pixart")
TOKENS = 16
"""Length of an encoded prompt."""

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_DDIM = {**_BETAS, "clip_sample": False, "steps_offset": 1}
SCHEDULERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", _DDIM, {"eta": 0.0}),
    "ddim-eta-1": ("DDIMScheduler", _DDIM, {"eta": 1.0}),
    "pndm": ("PNDMScheduler", {**_BETAS, "skip_prk_steps": True, "steps_offset": 1}, {}),
    "euler": ("EulerDiscreteScheduler", _BETAS, {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", _BETAS, {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {**_BETAS, "algorithm_type": "dpmsolver++", "solver_order": 2}, {}),
    "heun": ("HeunDiscreteScheduler", _BETAS, {}),
    "unipc": ("UniPCMultistepScheduler", _BETAS, {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "flow-stochastic": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "stochastic_sampling": True}, {}),
}
"""Name -> class in diffusers, its configuration, and the pipeline arguments that go with it."""
STOCHASTIC = ("ddim-eta-1", "euler-ancestral", "flow-stochastic")
WITH_HISTORY = ("pndm", "dpm++2m", "heun", "unipc")


def pipeline(family: str, *, lora: bool = False, scheduler: str | None = None) -> Any:
    """A fresh pipeline, always with the same weights.

    Args:
        lora: add a LoRA with alpha = 2 r, of which both matrices are far from 0.
        scheduler: a key of `SCHEDULERS` in place of the family's own scheduler.
    """
    pipe = copy.deepcopy(_built(family, lora))
    if scheduler is not None:
        pipe.scheduler = make_scheduler(scheduler)
    return pipe


@functools.cache
def shared(family: str, *, lora: bool = False, scheduler: str | None = None) -> Any:
    """The same pipeline at every call, for tests that leave it as it is: a copy takes longer than a sample."""
    return pipeline(family, lora=lora, scheduler=scheduler)


def call(family: str, count: int = 2, steps: int = 3, **arguments: Any) -> dict[str, Any]:
    """The arguments of a quick pipeline call for `count` images, without generators and output type."""
    prompts = [f"{word} {family}" for word in ("red", "a green", "blue")]
    own = {
        "flux": {"max_sequence_length": TOKENS, "guidance_scale": 3.5, "height": 16, "width": 16},
        "sd3": {"guidance_scale": 3.0, "height": 16, "width": 16},
        "pixart": {"max_sequence_length": TOKENS, "clean_caption": False, "use_resolution_binning": False},
    }
    prompt = [prompts[i % len(prompts)] for i in range(count)]
    return {"prompt": prompt, "num_inference_steps": steps, **own.get(family, {}), **arguments}


def embedded(pipe: Any, family: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The call with its prompts replaced by their embeddings, as `encode_prompt` gives them."""
    more = {
        "sd": {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True},
        "sd3": {"prompt_2": None, "prompt_3": None},
        "flux": {"prompt_2": None, "max_sequence_length": TOKENS},
        "pixart": {"max_sequence_length": TOKENS},
    }
    with torch.no_grad():
        encoded = pipe.encode_prompt(prompt=arguments["prompt"], **more.get(family, {}))
    names = {
        "sd": ("prompt_embeds", "negative_prompt_embeds"),
        "flux": ("prompt_embeds", "pooled_prompt_embeds"),
        "pixart": (
            "prompt_embeds",
            "prompt_attention_mask",
            "negative_prompt_embeds",
            "negative_prompt_attention_mask",
        ),
    }
    pooled = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    found = dict(zip(names.get(family, pooled), encoded, strict=False))
    rest = {key: value for key, value in arguments.items() if key != "prompt"}
    return {**rest, **found, **({"negative_prompt": None} if family == "pixart" else {})}


def generators(seeds: list[int]) -> list[torch.Generator]:
    """One CPU generator per image, as `rollout` makes them."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def images(pipe: Any, seeds: list[int], **arguments: Any) -> torch.Tensor:
    """The images of a plain `pipe(...)`, (B, 3, H, W)."""
    return pipe(**arguments, generator=generators(seeds), output_type="pt").images


def make_scheduler(name: str) -> Any:
    """A fresh scheduler of `SCHEDULERS`."""
    cls, config, _ = SCHEDULERS[name]
    return getattr(diffusers, cls)(**config)


def perturbed_lora(pipe: Any, adapter: str = "default", seed: int = 0, **options: Any) -> list[torch.nn.Parameter]:
    """Add a LoRA with alpha = 2 r whose B is far from 0 too; returns its parameters."""
    parameters = add_lora(pipe, **{"rank": 2, "alpha": 4.0, "adapter": adapter, "seed": seed, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return parameters


def counted(module: torch.nn.Module) -> list[int]:
    """A list that grows by the batch size at every pass through a denoiser, seen at its first layer."""
    sizes: list[int] = []
    names = ("conv_in", "x_embedder", "pos_embed")
    first = next(getattr(module, name) for name in names if isinstance(getattr(module, name, None), torch.nn.Module))
    first.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


def footprint(pipe: Any) -> dict[str, Any]:
    """Everything that a context around a pipeline could leave behind, to be compared before and after."""
    module = denoiser(pipe)
    layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
    return {
        "pipe": _identities(pipe),
        "denoiser": _identities(module),
        "scheduler": sorted(vars(pipe.scheduler)),
        "scheduler class": type(pipe.scheduler),
        "components": dict(pipe.config),
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "training": [part.training for part in module.modules()],
        "adapters": [(copy.copy(layer._active_adapter), layer.disable_adapters) for layer in layers],
        "scaling": [dict(layer.scaling) for layer in layers],
        "gradient": torch.is_grad_enabled(),
        "random": torch.get_rng_state().tolist(),
    }


def _identities(thing: Any) -> dict[str, Any]:
    plain = (int, float, str, bool, dict, type(None))
    return {name: value if isinstance(value, plain) else id(value) for name, value in vars(thing).items()}


@functools.cache
def _built(family: str, lora: bool) -> Any:
    if lora:
        pipe = copy.deepcopy(_built(family, False))
        perturbed_lora(pipe)
        return pipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = BUILDERS[family]()
        for parameter in denoiser(pipe).parameters():  # some start at 0, which would hide what lies behind them
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _clip(width: int = 8, projected: bool = False) -> tuple[Any, Any]:
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval(), tokenizer


def _t5(width: int = 8) -> tuple[Any, Any]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((chr(c), -2.0) for c in range(33, 127))]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)
    config = T5Config(vocab_size=len(pieces), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval(), tokenizer


def _vae(channels: int = 4, **options: Any) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=16,
        **options,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(0.3)  # pixels within (0, 1), where clamping keeps no gradient back
    return vae.eval()


def _unet(**options: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    ).eval()


def _sd() -> Any:
    text_encoder, tokenizer = _clip()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        unet=_unet(cross_attention_dim=8),
        scheduler=make_scheduler("ddim"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    (first, tokenizer), (second, tokenizer_2) = _clip(), _clip(projected=True)
    unet = _unet(
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8,
        transformer_layers_per_block=(1, 2),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        unet=unet,
        scheduler=make_scheduler("euler"),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        add_watermarker=False,
    )


def _sd3() -> Any:
    (first, tokenizer), (second, tokenizer_2) = _clip(16, projected=True), _clip(16, projected=True)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=_vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=make_scheduler("flow"),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _flux() -> Any:
    (clip, tokenizer), (t5, tokenizer_2) = _clip(), _t5()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        vae=_vae(shift_factor=0.05),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer_2,
    )


def _pixart() -> Any:
    t5, tokenizer = _t5()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=8,
        cross_attention_dim=24,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        use_additional_conditions=False,
    )
    return diffusers.PixArtSigmaPipeline(
        vae=_vae(),
        transformer=transformer.eval(),
        scheduler=make_scheduler("ddim"),
        text_encoder=t5,
        tokenizer=tokenizer,
    )


BUILDERS: dict[str, Callable[[], Any]] = {"sd": _sd, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux, "pixart": _pixart}
