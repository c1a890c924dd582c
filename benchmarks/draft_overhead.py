"""What one DRaFT-1 update on emoji-64 costs beyond its necessary parts: the bar is 10 %.

    python benchmarks/draft_overhead.py

An update samples a batch in N steps, decodes it, scores it, and back-propagates through the last step. Its necessary
parts are N - 1 forwards of the denoiser without gradient, one forward and backward, one decoding and backward, and one
scoring and backward, each timed alone on tensors of the same shapes. Updates and parts take turns, so that a busy
machine slows down both; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from sfumato.config import LoraConfig, SamplingConfig, TrainingConfig
from sfumato.emoji64 import demo_pipeline
from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.rewards import Reward, build_reward
from sfumato.training import Draft, Trainer

PROMPTS = ["animal", "bird", "flower", "fruit", "drink", "vehicle", "cat face", "heart"]
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]
BAR = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--steps", type=int, default=12, help="N, num_inference_steps")
    options = parser.parse_args()
    reward = build_reward({"name": "preference", "model": "emoji64"})
    sampling = SamplingConfig(num_inference_steps=options.steps, guidance_scale=3.0)
    config = TrainingConfig(steps=10_000, batch_size=8, lora=LoraConfig(rank=8, targets=TARGETS), monitor_every=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(demo_pipeline(), Draft(), reward, PROMPTS, config, sampling, folder)
        updates, parts = iter(trainer), necessary_parts(trainer.pipe, reward)
        seconds: dict[str, list[float]] = defaultdict(list)
        for turn in range(options.repetitions + 1):  # the first warms up
            found = {"update": timed(lambda: next(updates)), **{name: timed(part) for name, part in parts.items()}}
            for name, value in found.items() if turn else ():
                seconds[name].append(value)
    report({name: statistics.median(values) for name, values in seconds.items()}, options.steps)


def necessary_parts(pipe, reward: Reward) -> dict[str, Callable[[], None]]:
    """Each part once, on a batch of the shapes that the update has."""
    unet, vae, size = denoiser(pipe), pipe.vae, len(PROMPTS)
    parameters = trainable(unet)
    latents = torch.randn(size, vae.config.latent_channels, unet.config.sample_size, unet.config.sample_size)
    with torch.no_grad():
        guided, unguided = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
        images = vae.decode(latents).sample.mul(0.5).add(0.5).clamp(0, 1)
    embeddings, timestep = torch.cat([unguided, guided]), torch.tensor(1)

    def forward() -> torch.Tensor:
        return unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=embeddings).sample

    def forward_without_gradient() -> None:
        with torch.no_grad():
            forward()

    def forward_and_backward() -> None:
        torch.autograd.grad(forward().sum(), parameters)

    def decoding_and_backward() -> None:
        leaf = latents.clone().requires_grad_()
        torch.autograd.grad(vae.decode(leaf).sample.sum(), leaf)

    def scoring_and_backward() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(reward(leaf, PROMPTS).sum(), leaf)

    return {
        "forward": forward_without_gradient,
        "forward and backward": forward_and_backward,
        "decoding and backward": decoding_and_backward,
        "scoring and backward": scoring_and_backward,
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(seconds: dict[str, float], steps: int) -> None:
    times = {"forward": steps - 1, **dict.fromkeys(list(seconds)[2:], 1)}
    for line in table(seconds, times):
        print(line)


def table(seconds: dict[str, float], times: dict[str, int]) -> Iterator[str]:
    yield f"{'part':24}{'ms':>9}{'times':>7}{'sum, ms':>10}"
    for name, count in times.items():
        yield f"{name:24}{1000 * seconds[name]:9.1f}{count:7}{1000 * count * seconds[name]:10.1f}"
    needed = sum(count * seconds[name] for name, count in times.items())
    overhead = seconds["update"] / needed - 1
    yield f"{'all parts':40}{1000 * needed:10.1f}"
    yield f"{'update':40}{1000 * seconds['update']:10.1f}"
    yield f"overhead {overhead:+.1%}, at most {BAR:.0%} wanted: {'holds' if overhead <= BAR else 'DOES NOT HOLD'}"


if __name__ == "__main__":
    main()
