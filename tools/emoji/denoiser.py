"""Trains the UNet with its text encoder on cached latents and writes the pipeline folder."""

import os

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from tools.emoji import scorer
from tools.emoji.autoencoder import encode, load_trained
from tools.emoji.captions import Captions
from tools.emoji.common import ASSETS, CACHE, SEED, Trainee, read_json, replace_folder, write_json
from tools.emoji.course import Course
from tools.emoji.data import load
from tools.emoji.pictures import UNET
from tools.emoji.workers import Batch, Pair

COURSE = Course(
    model=UNET,
    steps=int(os.environ.get("SFUMATO_EMOJI_STEPS", 6500)),
    batch=32,
    peak=8e-4,
    warmup=200,
    tail=0.35,
    focus=3000,
    seed=SEED + 3,
    save=250,
    show=1000,
)
STATE = CACHE / "denoiser.safetensors"


def make_scheduler() -> DDIMScheduler:
    """The noise schedule of training and sampling."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # without effect on trailing timesteps; the pipeline warns of 0
    )


class Denoiser(torch.nn.Module):
    """UNet and text encoder under one roof, so that both are trained and saved together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.text_encoder = CLIPTextModel(scorer.text_config())
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 96, 192),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=160,
            attention_head_dim=(2, 3, 6),
        )

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Predicted velocity for noisy latents (B, 4, 16, 16)."""
        text = self.text_encoder(tokens)[0]
        return self.unet(latents, timesteps, encoder_hidden_states=text).sample


def start_text(model: Denoiser) -> None:
    """Start from the scorer's text tower, which already tells the captions apart."""
    tower = scorer.load_trained().text_model.state_dict()
    own = model.text_encoder.state_dict()
    renamed = {key.removeprefix("text_model."): key for key in own}
    model.text_encoder.load_state_dict({renamed[key.removeprefix("text_model.")]: tower[key] for key in tower})


def noised(latents: torch.Tensor, tokens: torch.Tensor, alphas: torch.Tensor, generator: torch.Generator) -> Batch:
    """Noisy latents at stratified random times, those times, the tokens and the velocity to be predicted."""
    count = len(latents)
    spread = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (spread * len(alphas)).long()
    noise = torch.randn(latents.shape, generator=generator)
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    return signal * latents + sigma * noise, timesteps, tokens, signal * noise - sigma * latents


def export(trainee: Trainee) -> None:
    """Write the averaged weights as a Stable Diffusion pipeline folder around the vae and tokenizer."""
    model = Denoiser()
    trainee.copy_average(model)
    model.half()
    for name, part in (("unet", model.unet), ("text_encoder", model.text_encoder)):
        part.save_pretrained(CACHE / name)
        replace_folder(CACHE / name, ASSETS / name)
    text = ASSETS / "text_encoder"
    write_json(text / "config.json", {**read_json(text / "config.json"), "dtype": "float32"})
    weights = load_file(text / "model.safetensors")
    prefixed = {"text_model." + key.removeprefix("text_model."): value for key, value in weights.items()}
    save_file(prefixed, text / "model.safetensors", {"format": "pt"})  # as transformers before 5 names them, too
    make_scheduler().save_pretrained(ASSETS / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(ASSETS / "model_index.json", index)


def run() -> None:
    """Train (or continue), writing state, pipeline and preview at intervals."""
    if COURSE.done():
        return
    data = load().pick(held_out=False)
    vae = load_trained()
    latents = encode(vae, data.floats()) * vae.config.scaling_factor
    captions = Captions(data.rows)
    model = Denoiser()
    start_text(model)
    model.unet.to(memory_format=torch.channels_last)
    trainee = Trainee(model, STATE, COURSE.peak, decay=0.998)
    pair = Pair(model)
    alphas = make_scheduler().alphas_cumprod

    def update(chosen: torch.Tensor, step: int, generator: torch.Generator) -> float:
        tokens = captions.tokens[captions.draw(chosen, generator)]
        return pair.backward(noised(latents[chosen], tokens, alphas, generator))

    COURSE.run(trainee, data.rows, update, lambda: export(trainee))


if __name__ == "__main__":
    run()
