"""Trains the small AutoencoderKL: 64x64 pixels <-> 16x16 latents of 4 channels with unit deviation."""

import os

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from tools.emoji.common import ASSETS, CACHE, SEED, Trainee, batches, cosine, replace_folder, step_generator
from tools.emoji.data import load

STEPS, BATCH, PEAK, KL = int(os.environ.get("SFUMATO_EMOJI_AE_STEPS", 1200)), 16, 2e-3, 1e-6
FOLDER = ASSETS / "vae"


def build() -> AutoencoderKL:
    """The untrained autoencoder."""
    torch.manual_seed(SEED)
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def loss_of(model: AutoencoderKL, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """L1 + MSE on pixels and on edges, and a tiny KL; images in [-1, 1]."""
    mean, log_variance = model.quant_conv(model.encoder(images)).chunk(2, 1)
    log_variance = log_variance.clamp(-20, 10)
    noise = torch.randn(mean.shape, generator=generator)
    output = model.decoder(model.post_quant_conv(mean + noise * (0.5 * log_variance).exp()))
    error = output - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + KL * kl


@torch.no_grad()
def encode(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Latent means (N, 4, 16, 16), unscaled, of images in [0, 1]."""
    return torch.cat([model.encode(part * 2 - 1).latent_dist.mean for part in images.split(64)])


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] after a round trip."""
    latents = encode(model, images)
    return torch.cat([(model.decode(part).sample / 2 + 0.5).clamp(0, 1) for part in latents.split(64)])


def psnr(images: torch.Tensor, others: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, averaged over images in [0, 1]."""
    return float((-10 * (images - others).square().mean((1, 2, 3)).log10()).mean())


def load_trained() -> AutoencoderKL:
    """The trained autoencoder in float32."""
    return AutoencoderKL.from_pretrained(FOLDER, torch_dtype=torch.float32).eval()


def run() -> None:
    """Train (or continue), then write the asset."""
    if (FOLDER / "config.json").exists():
        return
    data = load().pick(held_out=False)
    images = data.floats() * 2 - 1
    model = build().to(memory_format=torch.channels_last)
    trainee = Trainee(model, CACHE / "autoencoder.safetensors", PEAK, decay=0.995, weight_decay=0.0)
    trainee.load()
    start = trainee.facts["step"]
    rows = batches(len(images), BATCH, SEED, start)
    for step in (bar := tqdm(range(start, STEPS), desc="autoencoder", initial=start, total=STEPS, mininterval=5)):
        batch = images[next(rows)]
        if step % 2:
            batch = batch.flip(-1)
        batch = batch.contiguous(memory_format=torch.channels_last)
        loss = loss_of(model, batch, step_generator(SEED, step))
        trainee.update(loss, cosine(step, STEPS, PEAK))
        if step % 200 == 199 or step == STEPS - 1:
            trainee.save()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    finish(model, trainee, data.floats())


def finish(model: AutoencoderKL, trainee: Trainee, images: torch.Tensor) -> None:
    """Take the averaged weights, measure the latents' deviation, save in half precision."""
    trainee.copy_average(model)
    model.eval()
    model.register_to_config(scaling_factor=round(1 / float(encode(model, images).std()), 5))
    print(f"autoencoder: {psnr(images, reconstruct(model, images)):.2f} dB on training images")
    made = CACHE / "vae"
    model.half().save_pretrained(made)
    replace_folder(made, FOLDER)


if __name__ == "__main__":
    run()
