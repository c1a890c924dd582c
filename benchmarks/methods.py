"""What every method makes of emoji-64: reward, gold, diversity, seconds and memory, beside a control without a signal.

    .venv/bin/python benchmarks/methods.py                        # every recipe, and its control: hours
    .venv/bin/python benchmarks/methods.py emoji64-refl           # some recipes
    .venv/bin/python benchmarks/methods.py emoji64-refl --again 1 # its control once more, with another training seed
    .venv/bin/python benchmarks/methods.py emoji64-refl --again 1 --of tuned  # the training itself
    .venv/bin/python benchmarks/methods.py --table                # the table of what there is

Each training is a process of its own and a run folder under runs/methods; repeated, the command continues, but what a
training that was interrupted took is then not known in full: delete its folder. All are
measured on the same held-out prompts and seeds, and differences to the base model are paired.

The control trains on a reward that says nothing: each image is given the reward of another one of its batch, drawn at
random and with a random sign; and where a reward is back-propagated, that image's gradient too. (A permutation alone
would leave the mean reward, and so its gradient, as it is.) It must not raise the true reward; intervals know prompts
and images, not the chance of one training, so that one control in a few may do so all the same: repeat it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sfumato.change import tuning_change
from sfumato.config import load_recipe
from sfumato.experiment import Experiment
from sfumato.rewards import Reward
from sfumato.runs import Run, read_json, write_json

RUNS = Path("runs/methods")
RECIPES = [
    "emoji64-draft", "emoji64-draft-lv", "emoji64-draft-plus", "emoji64-alignprop", "emoji64-refl", "emoji64-adjoint",
    "emoji64-ddpo", "emoji64-flow-grpo", "emoji64-diffusion-dpo", "emoji64-sft",
]  # fmt: skip
PROMPTS = [
    "plant", "reptile", "mammal", "bug", "dessert", "aircraft", "weather", "transport", "food", "horse", "duck", "rose",
    "strawberry", "carrot", "bus", "turtle",
]  # fmt: skip
POINTS = [{"kind": "base"}, {"kind": "tuned"}, {"kind": "guidance", "schedule": "power", "parameters": {"p": 2}}]
SHOWN = ("reward", "gold", "vendi")


class Meaningless:
    """A reward with the values and gradients of the true one, but those of other images, and with random signs."""

    def __init__(self, true: Reward, seed: int):
        self.true, self.name = true, f"shuffled_{true.name}"
        self.range, self.differentiable = (-float("inf"), float("inf")), true.differentiable
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        order = torch.randperm(len(images), generator=self.generator).to(images.device)
        signs = torch.randint(2, (len(images),), generator=self.generator).to(images) * 2 - 1
        seen = images.detach().requires_grad_(self.differentiable)
        with torch.enable_grad():
            scores = self.true(seen, prompts)
        values = signs * scores.detach()[order]
        if not (self.differentiable and images.requires_grad):
            return values
        gradient = torch.autograd.grad(scores.sum(), seen)[0][order]
        push = signs * (gradient * images).flatten(1).sum(1)
        return values + push - push.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("--images", type=int, default=16, help="per prompt and point")
    parser.add_argument("--again", type=int, metavar="SEED", help="once more, with this training seed")
    parser.add_argument("--of", choices=["control", "tuned"], default="control", help="what --again repeats")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        train_and_measure(options.recipes[0], options.one, options.images)
        return
    for recipe in [] if options.table else options.recipes:
        for kind in ("tuned", "control") if options.again is None else (f"{options.of}-{options.again}",):
            command = [sys.executable, __file__, recipe, "--one", kind, "--images", str(options.images)]
            subprocess.run(command, check=True)
    print(table(options.recipes))


def folder(recipe: str, kind: str) -> Path:
    return RUNS / f"{recipe}-{kind}"


def train_and_measure(name: str, kind: str, images: int) -> None:
    """One run: a recipe as it is shipped, but for what is measured."""
    path = folder(name, kind)
    points, seed = POINTS if kind == "tuned" else POINTS[:2], int(kind.partition("-")[2] or 0)
    changes = {"evaluation.prompts": PROMPTS, "evaluation.images_per_prompt": images, "evaluation.points": points}
    changes |= {"training.seed": seed, "training.monitor_every": None, "run": str(path), "evaluation.batch_size": 16}
    recipe = load_recipe(name, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    experiment = Experiment(recipe)
    true, before = experiment.reward, peak()
    if kind.startswith("control"):
        experiment.reward = Meaningless(true, seed)
    started = time.process_time()
    for _ in experiment.train():
        pass
    if not (path / "cost.json").exists():
        write_json(path / "cost.json", {"gib": (peak() - before) / 2**30, "seconds": time.process_time() - started})
    experiment.reward = true
    experiment.evaluate()


def peak() -> int:
    """Bytes of this process at their highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(recipes: list[str]) -> str:
    head = "| method | updates | CPU s | GiB | " + " | ".join(f"{name}, change" for name in SHOWN)
    lines = [head + " | " + " | ".join(f"{name}, AIG 2" for name in SHOWN)]
    lines[0] += " | control: reward, change |"
    lines.append("|---" * (5 + 2 * len(SHOWN)) + "|")
    for recipe in recipes:
        if not all((folder(recipe, kind) / "evaluation" / "frontier.json").exists() for kind in ("tuned", "control")):
            lines.append(f"| {recipe} | not run |" + " |" * (3 + 2 * len(SHOWN)))
            continue
        run, measured = Run.load(folder(recipe, "tuned")), frontier(recipe, "tuned")
        updates = sum(record["update"] > 0 for record in run.training_metrics("tuned"))
        cost = read_json(run.path / "cost.json")
        cells = [recipe.removeprefix("emoji64-"), str(updates), f"{cost['seconds']:.0f}", f"{cost['gib']:.2f}"]
        cells += [every_change(recipe, "tuned"), *(change(measured, name) for name in SHOWN[1:])]
        guided = next(point for point in measured["points"] if point["definition"]["kind"] == "guidance")
        cells += [interval(guided["metrics"][name]) for name in SHOWN]
        cells.append(every_change(recipe, "control"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def frontier(recipe: str, kind: str) -> dict[str, Any]:
    return read_json(folder(recipe, kind) / "evaluation" / "frontier.json")


def every_change(recipe: str, kind: str) -> str:
    """Of the reward, in every training of a kind."""
    found = sorted(RUNS.glob(f"{recipe}-{kind}*/evaluation/frontier.json"))
    return "; ".join(change(read_json(path), "reward") for path in found)


def change(measured: dict[str, Any], name: str) -> str:
    """Tuned minus base, paired."""
    found = tuning_change(measured, name)
    return "unknown" if found is None else interval(dict(zip(("mean", "low", "high"), found, strict=True)))


def interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


if __name__ == "__main__":
    main()
