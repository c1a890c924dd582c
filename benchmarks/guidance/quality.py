"""Reward and diversity of every form on emoji-64, on shared prompts and seeds, beside exact AIG's.

One file per form and prompt in the run's folder, so that an interrupted run continues. Prompts come first: whatever
is there already is a fair comparison on fewer prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beds import tuned_emoji
from forms import BASE, EXACT, TUNED, Form
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from sfumato.config import load_recipe
from sfumato.emoji64 import load_judge
from sfumato.frontier.statistics import interval, resampling_weights
from sfumato.metrics import JudgeFeatures, vendi_score
from sfumato.pipelines.load import default_device
from sfumato.pipelines.rollout import rollout
from sfumato.rewards import build_reward, score
from sfumato.runs import atomic_path

Array = NDArray[np.float64]
Row = dict[str, Any]
LEVEL = 0.90
MARGIN = 0.10
"""Equivalent: the interval of the difference to exact AIG lies within this share of the gap of base and tuned."""
RECIPE = load_recipe("emoji64-demo")


def prompts() -> list[str]:
    """The 24 prompts of the demonstration: those it is measured on, then those it is trained on."""
    assert RECIPE.evaluation is not None
    return [*RECIPE.evaluation.prompts, *RECIPE.prompts]


@dataclass(frozen=True)
class Task:
    """All seeds of one form and prompt."""

    folder: Path
    form: Form
    prompt: str
    seeds: int
    steps: int

    @property
    def file(self) -> Path:
        name = "".join(letter if letter.isalnum() else "-" for letter in self.form.name)
        return self.folder / name / f"{self.prompt.replace(' ', '-')}.safetensors"

    @property
    def definition(self) -> str:
        """What the file must hold."""
        return json.dumps([self.form.guidance, self.form.scale, self.prompt, self.seeds, self.steps])

    def done(self) -> bool:
        if not self.file.exists():
            return False
        with safe_open(self.file, "pt") as file:
            return file.metadata()["definition"] == self.definition

    def values(self) -> tuple[float, float, float]:
        """Mean reward, Vendi score of the judge's features, forwards per image."""
        found = load_file(self.file)
        return float(found["reward"].mean()), vendi_score(found["features"]), float(found["forwards"])


@lru_cache(maxsize=1)
def _instruments() -> tuple[Any, Any, JudgeFeatures]:
    device = default_device()
    return tuned_emoji(), build_reward(RECIPE.reward, device), JudgeFeatures(load_judge().to(device))


@torch.no_grad()
def sample(task: Task) -> None:
    """Draw, score and look at the pictures of one task, as 8-bit images, and write its file."""
    pipe, reward, judge = _instruments()
    with task.form.on(pipe):
        drawn = rollout(
            pipe,
            prompt=task.prompt,
            seeds=range(task.seeds),
            num_inference_steps=task.steps,
            guidance_scale=RECIPE.sampling.guidance_scale,
        )
    images = (drawn.images.float() * 255).round() / 255
    found = {
        "reward": score(reward, images, [task.prompt] * task.seeds).cpu(),
        "features": judge(images).float().cpu(),
        "forwards": torch.tensor(float(drawn.forwards)),
    }
    with atomic_path(task.file) as temporary:
        save_file(found, temporary, {"definition": task.definition})


def sample_all(tasks: list[Task], workers: int) -> None:
    """Do what is not done, in `workers` processes of one thread each; 0 does it here."""
    left = [task for task in tasks if not task.done()]
    with tqdm(total=len(tasks), initial=len(tasks) - len(left), desc="sampling", unit="prompt") as bar:
        if not workers:
            for task in left:
                sample(task)
                bar.update()
            return
        pool = ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,))
        with pool:
            for job in as_completed([pool.submit(sample, task) for task in left]):
                job.result()
                bar.update()


def finished(tasks: list[Task]) -> list[Task]:
    """The tasks of those prompts that every form has drawn."""
    left = {task.prompt for task in tasks if not task.done()}
    return [task for task in tasks if task.prompt not in left]


def analyse(tasks: list[Task]) -> list[Row]:
    """A row per form: means, the paired difference to exact AIG, and the place beside its frontier.

    Everything but the means is a share of the gap between base and tuned, with a 90 % bootstrap interval over
    prompts. `reward` and `vendi` are the differences to exact AIG. `above` is by how much Vendi lies above the line
    from base over the forms of exact AIG to tuned, at the same reward.
    """
    forms = {task.form.name: task.form for task in tasks}
    values = {name: np.array([task.values() for task in tasks if task.form.name == name]).T for name in forms}
    count = values[BASE.name].shape[1]
    weights = np.vstack([np.full(count, 1 / count), resampling_weights(count, 10_000, 0)])
    means = {name: (weights @ found[0], weights @ found[1]) for name, found in values.items()}
    base, tuned = means[BASE.name], means[TUNED.name]
    gaps = float(tuned[0][0] - base[0][0]), float(base[1][0] - tuned[1][0])
    line = [means[name] for name, form in forms.items() if form in (BASE, TUNED) or is_exact(form)]
    rows: list[Row] = []
    for name, (reward, vendi) in means.items():
        shares = {
            "reward": (reward - means[EXACT.name][0]) / gaps[0],
            "vendi": (vendi - means[EXACT.name][1]) / gaps[1],
            "above": (vendi - _at(line, reward)) / gaps[1],
        }
        rows.append(
            {
                "form": name,
                "prompts": count,
                "mean_reward": float(reward[0]),
                "mean_vendi": float(vendi[0]),
                "forwards": float(values[name][2].mean()),
                **{axis: _interval(share) for axis, share in shares.items()},
                "place": [float(reward[0] - base[0][0]) / gaps[0], float(vendi[0] - tuned[1][0]) / gaps[1]],
            }
        )
    return rows


def is_exact(form: Form) -> bool:
    """Whether a form is AIG as published, without savings."""
    return set(form.guidance) == {"schedule", "p"}


def equivalent(row: Row) -> bool:
    """Whether both intervals lie within the margin."""
    return all(row[name][1] >= -MARGIN and row[name][2] <= MARGIN for name in ("reward", "vendi"))


def table(rows: list[Row]) -> Iterator[str]:
    yield (
        "| form | forwards | reward | Vendi | place: reward, Vendi | Δ reward, % of gap | Δ Vendi, % of gap "
        "| within ±10 % | Vendi above exact AIG's line |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        place = ", ".join(f"{100 * share:.0f} %" for share in row["place"])
        shares = {name: _percent(row[name]) for name in ("reward", "vendi", "above")}
        yield (
            f"| {row['form']} | {row['forwards']:g} | {row['mean_reward']:.2f} | {row['mean_vendi']:.2f} | {place} "
            f"| {shares['reward']} | {shares['vendi']} | {'yes' if equivalent(row) else 'no'} | {shares['above']} |"
        )


def _at(line: list[tuple[Array, Array]], reward: Array) -> Array:
    """Vendi on the line through the points at `reward`, in every resample."""
    x, y = (np.stack([point[axis] for point in line], 1) for axis in (0, 1))
    order = x.argsort(1)
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    return np.array([np.interp(at, xs, ys) for at, xs, ys in zip(reward, x, y, strict=True)])


def _interval(share: Array) -> list[float]:
    """Estimate and limits, from the value on all prompts and on every resample."""
    found = interval(float(share[0]), share[1:], level=LEVEL)
    return [found.mean, found.low, found.high]


def _percent(values: list[float]) -> str:
    mean, low, high = (100 * value for value in values)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
