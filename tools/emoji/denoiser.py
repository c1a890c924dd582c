"""Trains the UNet with its text encoder on cached latents and writes the pipeline folder.

The learning rate is constant and decays at the end (WSD), so the end can be moved: a run that is interrupted
continues from its last state, also with another SFUMATO_EMOJI_STEPS.
"""

import os

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import CLIPTextModel

from tools.emoji import scorer
from tools.emoji.autoencoder import encode, load_trained
from tools.emoji.captions import Captions
from tools.emoji.common import (
    ASSETS,
    CACHE,
    SEED,
    Trainee,
    batches,
    rate,
    read_json,
    replace_folder,
    step_generator,
    write_json,
)
from tools.emoji.data import load
from tools.emoji.words import drawn_answers
from tools.emoji.workers import Batch, Pair

STEPS, BATCH, PEAK, TAIL = int(os.environ.get("SFUMATO_EMOJI_STEPS", 6500)), 32, 8e-4, 0.35
FOCUS = 3000  # updates on all artwork; after them only what the pipeline is asked to draw
STATE = CACHE / "denoiser.safetensors"
PREVIEW = [
    "red apple", "fruit", "cat face", "face", "fox face", "mammal", "bird", "fish", "rose", "pizza",
    "red car, fluent style", "bus, noto style", "red heart, twemoji style", "dessert", "vehicle", "guitar", "house",
    "airplane", "animal", "penguin, fluent style", "smiling face, noto style", "smiling face, twemoji style",
    "cloud", "food",
]  # fmt: skip


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
    write_json(ASSETS / "training.json", {"updates": trainee.facts["step"], "batch": BATCH, "broad": FOCUS})


def load_pipeline() -> StableDiffusionPipeline:
    """The exported pipeline, quiet."""
    pipe = StableDiffusionPipeline.from_pretrained(ASSETS, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(
    pipe: StableDiffusionPipeline, prompts: list[str], seed: int = 0, steps: int = 16, guidance: float = 3.0
) -> torch.Tensor:
    """One image in [0, 1] per prompt; the noise depends on the seed and the position only."""
    noise = [torch.randn(4, 16, 16, generator=step_generator(seed, i)) for i in range(len(prompts))]
    parts = []
    for i in range(0, len(prompts), 32):
        output = pipe(
            prompts[i : i + 32],
            latents=torch.stack(noise[i : i + 32]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        )
        parts.append(torch.from_numpy(output.images).permute(0, 3, 1, 2))
    return torch.cat(parts)


def tile(images: torch.Tensor, columns: int) -> Image.Image:
    """A contact sheet without captions."""
    rows = [torch.cat(list(row), 2) for row in images.split(columns)]
    sheet = (torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(sheet))


def preview(step: int) -> None:
    """Two samples of each preview prompt, in one picture."""
    prompts = [prompt for prompt in PREVIEW for _ in range(2)]
    tile(sample(load_pipeline(), prompts), 16).save(CACHE / f"preview-{step:05d}.png")


def run() -> None:
    """Train (or continue), writing state, pipeline and preview at intervals."""
    if (done := ASSETS / "training.json").exists() and read_json(done)["updates"] >= STEPS:
        return
    data = load().pick(held_out=False)
    vae = load_trained()
    latents = encode(vae, data.floats()) * vae.config.scaling_factor
    captions = Captions(data.rows)
    model = Denoiser()
    start_text(model)
    model.unet.to(memory_format=torch.channels_last)
    trainee = Trainee(model, STATE, PEAK, decay=0.998)
    trainee.load()
    pair = Pair(model)
    alphas = make_scheduler().alphas_cumprod
    start = trainee.facts["step"]
    core = torch.tensor([i for i, row in enumerate(data.rows) if row["caption"] in drawn_answers()])
    broad = batches(len(latents), BATCH, SEED + 3, start)
    narrow = batches(len(core), BATCH, SEED + 5, max(0, start - FOCUS))
    running = None
    for step in (bar := tqdm(range(start, STEPS), desc="denoiser", initial=start, total=STEPS, mininterval=10)):
        generator = step_generator(SEED + 3, step)
        chosen = next(broad) if step < FOCUS else core[next(narrow)]
        tokens = captions.tokens[captions.draw(chosen, generator)]
        loss = pair.backward(noised(latents[chosen], tokens, alphas, generator))
        trainee.step(rate(step, STEPS, PEAK, warmup=200, tail=TAIL))
        running = loss if running is None else 0.99 * running + 0.01 * loss
        bar.set_postfix(loss=f"{running:.4f}", refresh=False)
        if (step + 1) % 250 == 0:
            trainee.save()
        if (step + 1) % 1000 == 0:
            export(trainee)
            preview(step + 1)
    trainee.save()
    export(trainee)
    preview(STEPS)


if __name__ == "__main__":
    run()
