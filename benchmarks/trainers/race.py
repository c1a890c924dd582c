"""CPU minutes of training until a held-out reward has risen so far on emoji-64, with the best of some learning rates.

Each run has one thread, so that other work on the machine changes its CPU seconds little.

As a script, `python race.py MODULE SETTINGS GAIN CAP`, it is one run; the clock stands still while it is evaluated.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import torch
from bed import EMOJI, HELD_OUT, REWARDS, Settings

GAIN = 1.0
"""Above the base model's reward, which is where the demonstration's gold reward is highest."""
RUNNERS = {
    "draft": "ours",
    "AlignProp, range of the steps": "theirs",
    "DDPO": "theirs",
    "AlignProp, K = 1": "theirs",
    "ddpo": "ours",
}
EVERY, IMAGES = 5, 4
"""Updates between evaluations, and images for each held-out prompt."""


def compare(lrs: list[float], gain: float, cap: float) -> Iterator[str]:
    """Runs what has not been run yet, and tabulates all; results are kept in build/trainers/reward."""
    yield f"\nuntil the held-out reward has risen by {gain:g}\n"
    yield "| training | learning rate | CPU minutes | updates | highest gain |\n|---|---|---|---|---|"
    for name, module in RUNNERS.items():
        rows = {lr: _kept(module, _settings(name, lr), gain, cap) for lr in lrs}
        best = min(rows, key=lambda lr: (rows[lr]["minutes"] or math.inf, -rows[lr]["highest"]))
        for lr, row in rows.items():
            minutes = f"> {cap:g}" if row["minutes"] is None else f"{row['minutes']:.1f}"
            mark = " (best)" if lr == best else ""
            yield f"| {name} | {lr:g}{mark} | {minutes} | {row['updates']} | {row['highest']:.2f} |"


def _settings(name: str, lr: float) -> Settings:
    return Settings(name, str(EMOJI), "preference", batch=8, steps=12, guidance=3.0, lr=lr)


def _kept(module: str, settings: Settings, gain: float, cap: float) -> dict[str, Any]:
    from peers import BUILD, run

    what = {**asdict(settings), "folder": "emoji64", "gain": gain, "cap": cap}
    digest = sha256(json.dumps(what).encode()).hexdigest()[:12]
    file = BUILD / "trainers" / "reward" / f"{digest}.json"
    if not file.exists():
        found = run("race.py", module, settings, 1, gain, cap)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**what, **found}), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def train(module: str, settings: Settings, gain: float, cap: float) -> dict[str, Any]:
    """One run.

    Returns:
        `minutes` of CPU time in training until the gain was reached, None if it was not; `updates` done; the `highest`
        gain, and the `curve` of (minutes, updates, gain).
    """
    side, reward = importlib.import_module(module).start(settings), REWARDS[settings.reward]()
    spent, updates = 0.0, 0
    curve, base = [(0.0, 0, 0.0)], held_out(side.pipe, reward, settings)
    while curve[-1][2] < gain and spent < 60 * cap:
        start = time.process_time()
        for _ in range(EVERY):
            side.update()
        spent, updates = spent + time.process_time() - start, updates + EVERY
        curve.append((spent / 60, updates, held_out(side.pipe, reward, settings) - base))
    reached = curve[-1][0] if curve[-1][2] >= gain else None
    return {"minutes": reached, "updates": updates, "highest": max(point[2] for point in curve), "curve": curve}


@torch.no_grad()
def held_out(pipe: Any, reward: Any, settings: Settings) -> float:
    """The mean reward of held-out prompts with fixed seeds, sampled by the plain pipeline."""
    scores = []
    for seed in range(IMAGES):
        generators = [torch.Generator().manual_seed(100 * seed + i) for i in range(len(HELD_OUT))]
        call = {"num_inference_steps": settings.steps, "guidance_scale": settings.guidance, "output_type": "pt"}
        images = pipe(prompt=HELD_OUT, generator=generators, **call).images
        scores.append(reward(images, HELD_OUT))
    return float(torch.cat(scores).mean())


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], Settings(**json.loads(sys.argv[2])), *map(float, sys.argv[3:5]))))
