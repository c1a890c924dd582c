"""A real diffusers pipeline around the exact denoiser, and a real LoRA that turns its worlds into other worlds."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sfumato.analytic.denoiser import HEADS, AnalyticDenoiser
from sfumato.analytic.levels import noise_to_signal, prediction_type
from sfumato.analytic.worlds import Mixture
from sfumato.pipelines.adapters import add_lora, tuner_layers

Worlds = Mixture | Mapping[str, Mixture]
"""One world for the prompt "", or a world for each prompt."""


class AnalyticPipeline(DiffusionPipeline):
    """Text-to-image sampling whose every law is known; made by `analytic_pipeline`.

    The decoder is the identity: images are the final latents, neither clamped nor rescaled. Everything else is as in
    diffusers' own pipelines, so that rollout, guidance and training run on it unchanged.

    Args:
        unet: the exact denoiser.
        scheduler: any diffusers scheduler with the denoiser's prediction type.
        prompts: the known prompts, in the order of their one-hot embeddings.
    """

    unet: AnalyticDenoiser
    scheduler: Any

    def __init__(self, unet: AnalyticDenoiser, scheduler: Any, prompts: Sequence[str] = ("",)):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(prompts=list(prompts))

    def encode_prompt(self, prompt: str | list[str], device: Any = None) -> tuple[Tensor, Tensor]:
        """Embeddings (B, P) with and without the prompts: one-hot, and the mean of all one-hot ones.

        Raises:
            ValueError: a prompt that has no world.
        """
        known = list(self.config["prompts"])
        prompts = [prompt] if isinstance(prompt, str) else prompt
        for name in prompts:
            if name not in known:
                raise ValueError(f"there is no world for prompt {name!r}: choose among {', '.join(map(repr, known))}")
        rows = torch.tensor([known.index(name) for name in prompts])
        conditional = torch.eye(len(known), dtype=self.unet.dtype, device=device)[rows]
        return conditional, torch.full_like(conditional, 1 / len(known))

    def world(self, prompt: str = "") -> Mixture:
        """The law that the denoiser, LoRA included, now ascribes to the images of one prompt."""
        mixture = self.unet.world(self.encode_prompt(prompt, self.unet.device)[0])
        return Mixture(mixture.log_weights[0], mixture.means[0], mixture.variances[0])

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> Any:
        """Sample one image per prompt.

        Args:
            prompt: one or several of the pipeline's prompts.
            num_inference_steps: N.
            guidance_scale: classifier-free guidance, off at 1. With a single prompt it changes nothing.
            eta: DDIM's η.
            generator: one, or one per image.
            latents: (B, C, H, W), standard normal noise to begin with, in place of the generator's.
            output_type: "pt" or "latent", which are the same here: (B, C, H, W).
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.

        Raises:
            ValueError: an unknown prompt or output type.
        """
        if output_type not in ("pt", "latent"):
            raise ValueError(f"the images of analytic worlds are tensors: output_type is 'pt', not {output_type!r}")
        device = self._execution_device
        conditional, unconditional = self.encode_prompt(prompt, device)
        guided = guidance_scale > 1
        embeddings = torch.cat([unconditional, conditional]) if guided else conditional
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = self._start(len(conditional), generator, latents, device)
        accepted = inspect.signature(self.scheduler.step).parameters
        extra = {k: v for k, v in {"eta": eta, "generator": generator}.items() if k in accepted}
        for t in self.progress_bar(self.scheduler.timesteps):
            scale = getattr(self.scheduler, "scale_model_input", None)
            seen = scale(latents, t) if scale else latents
            seen = torch.cat([seen, seen]) if guided else seen
            prediction = self.unet(seen, t, encoder_hidden_states=embeddings, return_dict=False)[0]
            if guided:
                without, given = prediction.chunk(2)
                prediction = without + guidance_scale * (given - without)
            latents = self.scheduler.step(prediction, t, latents, **extra, return_dict=False)[0]
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(latents) if return_dict else (latents,)  # type: ignore[arg-type]

    def _start(self, count: int, generator: Any, latents: Tensor | None, device: Any) -> Tensor:
        shape = (count, *self.unet.config["shape"])
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        if latents.shape != shape:
            raise ValueError(f"latents are {(*latents.shape,)}, but this world has {shape}")
        return latents.to(device, self.unet.dtype) * getattr(self.scheduler, "init_noise_sigma", 1.0)


def analytic_pipeline(worlds: Worlds, scheduler: Any, shape: tuple[int, int, int] | None = None) -> AnalyticPipeline:
    """A pipeline, in float64, that samples from known worlds.

    Args:
        worlds: a mixture of K components in D dimensions, or one for each prompt, with the same K and D.
        scheduler: any diffusers scheduler; its prediction type decides what the denoiser predicts.
        shape: (C, H, W) of an image with C H W = D; `None` means (D, 1, 1).

    Raises:
        ValueError: worlds of different sizes, or a shape that does not fit.
    """
    worlds = _by_prompt(worlds)
    components, size = next(iter(worlds.values())).means.shape
    shape = shape or (size, 1, 1)
    if math.prod(shape) != size:
        raise ValueError(f"images of shape {shape} do not have the {size} dimensions of the worlds")
    table = noise_to_signal(scheduler)
    unet = AnalyticDenoiser(len(worlds), components, shape, prediction_type(scheduler), len(table)).double()
    with torch.no_grad():
        for head, weight in zip(HEADS, _weights(worlds, (components, size)), strict=True):
            getattr(unet, head).weight.copy_(weight)
        unet.noise_to_signal.copy_(table)
    pipe = AnalyticPipeline(unet.eval(), scheduler, list(worlds))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tune(pipe: AnalyticPipeline, worlds: Worlds, adapter: str = "default") -> None:
    """Add a LoRA that turns the pipeline's worlds into other ones, exactly.

    Args:
        pipe: made by `analytic_pipeline`.
        worlds: the tuned model's worlds, for the same prompts, with the same K and D.
        adapter: the LoRA's name.

    Raises:
        ValueError: worlds for other prompts or of another size.
    """
    worlds = _by_prompt(worlds)
    prompts, config = list(pipe.config["prompts"]), pipe.unet.config
    if set(worlds) != set(prompts):
        raise ValueError(f"the pipeline has worlds for {prompts}, the tuned ones are for {list(worlds)}")
    targets = _weights({name: worlds[name] for name in prompts}, (config["components"], math.prod(config["shape"])))
    bases = [getattr(pipe.unet, head).weight.detach().clone() for head in HEADS]
    add_lora(pipe, rank=len(prompts), targets=HEADS, adapter=adapter)
    for layer, base, target in zip(tuner_layers(pipe.unet, adapter), bases, targets, strict=True):
        a = layer.lora_A[adapter].weight.detach()
        change = (target.to(base) - base) / layer.scaling[adapter]
        with torch.no_grad():
            layer.lora_B[adapter].weight.copy_(change @ torch.linalg.inv(a))


def _by_prompt(worlds: Worlds) -> dict[str, Mixture]:
    return {"": worlds} if isinstance(worlds, Mixture) else dict(worlds)


def _weights(worlds: dict[str, Mixture], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """The weights of the three heads, one column per prompt."""
    for name, world in worlds.items():
        if world.means.shape != size:
            raise ValueError(f"all worlds have K, D = {size}, but that of {name!r} has {(*world.means.shape,)}")
    mixtures = worlds.values()
    return (
        torch.stack([m.means.flatten() for m in mixtures], 1),
        torch.stack([m.variances.log().flatten() for m in mixtures], 1),
        torch.stack([m.log_weights for m in mixtures], 1),
    )
