"""What an update on emoji-64 costs beyond its necessary parts, for DRaFT-1 and DDPO: the bar is 5 %.

    python benchmarks/overhead.py

Both sample a batch in N steps, decode and score it. DRaFT-1 needs N - 1 forwards of the denoiser without gradient, with
its LoRA merged, the merging, one forward and backward, and the backward of decoding and scoring. DDPO needs N forwards
without gradient, and one forward and backward for each step that draws noise. Each part is timed alone on tensors of
the same shapes. Updates and parts take turns, so that a busy machine slows down both; medians are compared.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from sfumato.config import LoraConfig, PrefixConfig, SamplingConfig, TrainingConfig
from sfumato.emoji64 import demo_pipeline
from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable, tuner_layers
from sfumato.pipelines.prefix import merged
from sfumato.pipelines.stochastic import planned_stochastic_steps
from sfumato.rewards import Reward, build_reward
from sfumato.training import DDPO, Draft, Objective, Trainer
from sfumato.training.tuned import ADAPTER

PROMPTS = ["animal", "bird", "flower", "fruit", "drink", "vehicle", "cat face", "heart"]
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]
OBJECTIVES: dict[str, Objective] = {"draft": Draft(), "ddpo": DDPO(baseline="update", normalize="update")}
BAR = 0.05


class Part(NamedTuple):
    """A necessary part of an update, and how often it is needed."""

    run: Callable[[], object]
    times: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--steps", type=int, default=12, help="N, num_inference_steps")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, where other work disturbs")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    for name in options.objectives:
        for line in measure(name, options.repetitions, options.steps, clock):
            print(line, flush=True)


def measure(name: str, repetitions: int, steps: int, clock: Callable[[], float]) -> Iterator[str]:
    reward = build_reward({"name": "preference", "model": "emoji64"})
    sampling = SamplingConfig(num_inference_steps=steps, guidance_scale=3.0, arguments={"eta": 1.0})
    config = TrainingConfig(steps=10_000, batch_size=8, lora=LoraConfig(rank=8, targets=TARGETS), monitor_every=None)
    config = config.model_copy(update={"prefix": PrefixConfig(dtype=None, denoiser_every=1)})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(demo_pipeline(), OBJECTIVES[name], reward, PROMPTS, config, sampling, folder)
        noisy = len(planned_stochastic_steps(trainer.pipe, prompt=PROMPTS[0], **sampling.call()))
        updates, parts = iter(trainer), necessary_parts(name, trainer.pipe, reward, steps, noisy)
        seconds: dict[str, list[float]] = defaultdict(list)
        for turn in range(repetitions + 1):  # the first warms up
            for each, run in {name: lambda: next(updates), **{each: part.run for each, part in parts.items()}}.items():
                start = clock()
                run()
                if turn:
                    seconds[each].append(clock() - start)
    medians = {each: statistics.median(values) for each, values in seconds.items()}
    yield from table(name, medians, {each: part.times for each, part in parts.items()})


def necessary_parts(name: str, pipe: Any, reward: Reward, steps: int, noisy: int) -> dict[str, Part]:
    """The parts of an update by name, on a batch of the shapes that the update has."""
    unet, vae, size = denoiser(pipe), pipe.vae, len(PROMPTS)
    parameters = trainable(unet)
    latents = torch.randn(size, vae.config.latent_channels, unet.config.sample_size, unet.config.sample_size)
    with torch.no_grad():
        guided, unguided = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
        images = decoded(vae, latents).mul(0.5).add(0.5).clamp(0, 1)
    embeddings = torch.cat([unguided, guided])

    def forward(module: Any = unet) -> torch.Tensor:
        return module(torch.cat([latents, latents]), torch.tensor(1), encoder_hidden_states=embeddings).sample

    def with_backward(function: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> None:
        leaf = inputs.clone().requires_grad_()
        torch.autograd.grad(function(leaf).sum(), leaf)

    there_and_back = Part(lambda: torch.autograd.grad(forward().sum(), parameters), 1 if name == "draft" else noisy)
    if name == "draft":
        lighter = with_merged_lora(unet)
        return {
            "forward, LoRA merged": Part(torch.no_grad()(lambda: forward(lighter)), steps - 1),
            "merging the LoRA": Part(partial(merge_and_back, AdapterSwitch(unet, ADAPTER)), 1),
            "forward and backward": there_and_back,
            "decoding and backward": Part(lambda: with_backward(lambda x: decoded(vae, x), latents), 1),
            "scoring and backward": Part(lambda: with_backward(lambda x: reward(x, PROMPTS), images), 1),
        }
    return {
        "forward": Part(torch.no_grad()(forward), steps),
        "forward and backward": there_and_back,
        "decoding": Part(torch.no_grad()(lambda: decoded(vae, latents)), 1),
        "scoring": Part(torch.no_grad()(lambda: reward(images, PROMPTS)), 1),
    }


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents).sample


def with_merged_lora(unet: Any) -> Any:
    """A copy of the denoiser that has its LoRA in its weights for good."""
    lighter = copy.deepcopy(unet)
    for layer in tuner_layers(lighter, ADAPTER):
        layer.merge()
    return lighter


def merge_and_back(switch: AdapterSwitch) -> None:
    with merged(switch):
        pass


def table(name: str, seconds: dict[str, float], times: dict[str, int]) -> Iterator[str]:
    yield f"\n{name:24}{'ms':>9}{'times':>7}{'sum, ms':>10}"
    for part, count in times.items():
        yield f"{part:24}{1000 * seconds[part]:9.1f}{count:7}{1000 * count * seconds[part]:10.1f}"
    needed = sum(count * seconds[part] for part, count in times.items())
    overhead = seconds[name] / needed - 1
    yield f"{'all parts':40}{1000 * needed:10.1f}"
    yield f"{'update':40}{1000 * seconds[name]:10.1f}"
    yield f"overhead {overhead:+.1%}, at most {BAR:.0%} wanted: {'is reached' if overhead <= BAR else 'IS MISSED'}"


if __name__ == "__main__":
    main()
