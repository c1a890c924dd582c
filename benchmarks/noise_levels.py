"""What it brings that the pairs of an update share noise levels: time and variance of Diffusion-DPO's gradient.

    .venv/bin/python benchmarks/noise_levels.py   # a quarter of an hour on one core

emoji64-diffusion-dpo is trained for some updates. Then the gradient of one more update, always on the same pairs, is
computed again and again with other noise levels and noise: as shipped, and with a level of its own for each pair and
draw, drawn independently, so that each takes a forward of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sfumato.config import load_recipe
from sfumato.pipelines.load import load_pipeline
from sfumato.rewards import build_reward
from sfumato.training import DiffusionDPO, Trainer, denoising
from sfumato.training.objective import build_objective
from sfumato.training.update import Update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10, help="before the one that is looked at")
    parser.add_argument("--repetitions", type=int, default=48)
    options = parser.parse_args()
    recipe = load_recipe("emoji64-diffusion-dpo", [f"training.steps={options.updates}"])
    config = recipe.training
    with tempfile.TemporaryDirectory() as folder:
        pipe, objective = load_pipeline(recipe.pipeline, "cpu"), build_objective(config.objective)
        reward = build_reward(recipe.reward)
        trainer = Trainer(pipe, objective, reward, recipe.prompts, config, recipe.sampling, Path(folder))
        list(trainer)
    update = trainer._images(options.updates + 1, 1.0)
    pairs = objective.source(update, update.batches[0], whole=True)
    print("| draws | CPU s, a level for each pair | CPU s, shared | variance of the gradient, shared over the other |")
    print("|---|---|---|---|")
    shared = denoising.spread_levels
    for draws in (1, 8):
        vars(looked_at := replace(objective, noise_draws=draws))["source"] = lambda *_, **__: pairs
        seconds, variances = [], []
        for denoising.spread_levels in (independent, shared):
            started = time.process_time()
            updates = [replace(update, seed=seed) for seed in range(options.repetitions)]
            gradients = torch.stack([gradient(looked_at, each, trainer.state.parameters) for each in updates])
            seconds.append((time.process_time() - started) / options.repetitions)
            variances.append(gradients.var(0).sum().item())
        print(f"| {draws} | {seconds[0]:.1f} | {seconds[1]:.1f} | {variances[1] / variances[0]:.2f} |", flush=True)


def independent(random: np.random.Generator, rows: int, draws: int, levels: int) -> np.ndarray:
    """A level of its own for each row and draw."""
    return random.integers(levels, size=(rows, draws))


def gradient(objective: DiffusionDPO, update: Update, parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    for parameter in parameters:
        parameter.grad = None
    for outcome in objective.outcomes(update, update.batches[0]):
        outcome.loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


if __name__ == "__main__":
    main()
