"""What the tests of learning from given images share: bright and dark images in files, and single updates."""

from __future__ import annotations

import json

import torch

from sfumato.images import save_png
from sfumato.pipelines.adapters import AdapterSwitch, denoiser
from sfumato.rewards import as_reward
from sfumato.training import Batch
from sfumato.training.update import Update
from tests import tiny
from tests.training.common import brightness

WORDS = ["red", "a blue one", "green"]
LEVELS = 4
"""Noise levels in the grid, so few that several pairs share one."""


def call(family):
    """Arguments of a quick call of a tiny pipeline, but for prompts."""
    return {name: value for name, value in tiny.call(family, steps=2).items() if name != "prompt"}


def picture(brightness, seed, size=16):
    """(3, size, size), more or less of one brightness."""
    noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed)) - 0.5
    return (brightness + 0.3 * noise).clamp(0, 1)


def write_pairs(folder, labels, size=16):
    """A file of pairs with these labels, in which image 0 is bright and image 1 dark; gives its path."""
    rows = []
    for i, label in enumerate(labels):
        names = [f"images/{i}-{kind}.png" for kind in ("bright", "dark")]
        for name, level in zip(names, (0.75, 0.25), strict=True):
            save_png(picture(level, 2 * i + (level < 0.5), size), folder / name)
        rows.append({"prompt": WORDS[i % 3], "image_0": names[0], "image_1": names[1], "label": label})
    return write_rows(folder / "pairs.jsonl", rows)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def single(pipe, family="sd", reward=brightness, prompts=WORDS, number=1):
    """An update of one micro-batch, without a trainer."""
    switch = AdapterSwitch(denoiser(pipe), "default")
    seeds = list(range(50, 50 + len(prompts)))
    batch = Batch(pipe, list(prompts), seeds, call(family), as_reward(reward), switch.off)
    return Update(number, 0, list(prompts), [batch], None)


def outcomes(objective, update):
    """What an objective makes of the only micro-batch: total loss, logs that are added up."""
    found = list(objective.outcomes(update, update.batches[0]))
    names = {name for each in found for name in each.logs}
    return sum(each.loss for each in found), {n: sum(each.logs[n] for each in found if n in each.logs) for n in names}
