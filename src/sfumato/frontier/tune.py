"""Choose a schedule for a tuned model: search on some prompts, compare with the best fixed one on others.

`tune_schedule` takes any pipeline with a tuned adapter, `tune_run` a finished run. Every schedule is sampled with the
same seeds. What was sampled and scored is kept, so that a search that was killed goes on where it was, and another one
with another goal begins with what this one knows.

```
FOLDER/                 RUN/search in a run
  images.jsonl          a record per schedule and prompt: seeds, scores, diversity, denoiser forwards, file
  images/*.png          the images of each record, in a row
  diversity-0.9/        a goal
    search.json         every trial, the result, the comparison on held-out prompts
    point.yaml          the result as an operating point of a recipe
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml
from tqdm.auto import tqdm

from sfumato.config import PointConfig, Recipe, TunedPoint
from sfumato.frontier.points import OperatingPoint, check_trained
from sfumato.frontier.search import Goal, Trial, Values, best, check_size, order_of, search
from sfumato.frontier.search_images import Sampler
from sfumato.frontier.search_space import BASE, TUNED, curve, guidance, label, point, python_line
from sfumato.frontier.statistics import bootstrap, paired_difference
from sfumato.metrics import Extractor
from sfumato.pipelines.load import load_pipeline
from sfumato.pipelines.trained import tuned
from sfumato.rewards import Reward, as_reward
from sfumato.runs import Run, write_json, write_text

SEEDS = 3_000_000
"""First seed of the search's images; training, evaluation and monitor use others."""
PROMPTS = 12
"""How many of a recipe's training prompts a search uses."""


@dataclass(frozen=True)
class Bench:
    """What schedules are measured on: every prompt with every seed."""

    prompts: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        goal: what was kept.
        trials: every schedule that was tried.
        found: the best of them.
        fixed: the best of those that people use without a search.
        held_out: base, tuned, `fixed` and `found` on held-out prompts, with intervals; None without such prompts.
    """

    goal: Goal
    trials: list[Trial]
    found: Trial
    fixed: Trial
    held_out: dict[str, Any] | None

    @property
    def guidance(self) -> dict[str, Any]:
        """The found schedule as arguments: `annealed_guidance(pipe, **result.guidance)`."""
        return guidance(self.found.point)

    @property
    def python(self) -> str:
        """The found schedule as a line of Python."""
        return python_line(self.found.point)

    @property
    def yaml(self) -> str:
        """The found schedule as an entry of a recipe's `evaluation.points`."""
        definition = self.found.point.model_dump(mode="json", exclude_defaults=True)
        entry = [{"kind": self.found.point.kind, **definition}]
        return yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000).strip()[1:-1]

    def to_dict(self) -> dict[str, Any]:
        """What `search.json` holds."""
        return {
            "goal": asdict(self.goal),
            "found": self.found.number,
            "fixed": self.fixed.number,
            "point": self.found.point.model_dump(mode="json", exclude_none=True),
            "python": self.python,
            "needed": float((self.found.values.of(self.goal.keep) - self.found.slack).mean()),
            "trials": [_describe(trial, self.trials[0]) for trial in self.trials],
            "held_out": self.held_out,
        }


def tune_schedule(
    pipe: Any,
    reward: Any,
    features: Extractor,
    prompts: Sequence[str],
    *,
    keep: str = "diversity",
    share: float = 0.9,
    budget: int = 3000,
    images_per_prompt: int = 8,
    held_out: Sequence[str] = (),
    call: dict[str, Any] | None = None,
    batch_size: int = 8,
    adapter: Any = None,
    base: Any = None,
    folder: str | Path | None = None,
    seed: int = 0,
) -> Result:
    """Find the guidance schedule with the most reward that keeps enough diversity, or the reverse.

    Args:
        pipe: any pipeline with a tuned adapter, or the tuned one when `base` is given.
        reward: any callable `(images in [0, 1] (B,3,H,W), prompts) -> (B,)`.
        features: an extractor of `sfumato.metrics`, or any callable `images -> (B,D)`. Not the reward's own.
        prompts: to search on, at least two.
        keep: "diversity" keeps at least `share` of the base's diversity and maximises the mean reward; "reward" keeps
            at least `share` of the tuned model's gain in reward and maximises diversity. Diversity is the Vendi score
            per prompt, averaged; what is kept of it is counted from 1, where all images are alike.
        share: above 0, at most 1.
        budget: images of the search; the held-out comparison comes on top.
        images_per_prompt: of each schedule, with the same seeds for all.
        held_out: prompts on which the result is compared with the best fixed schedule; none of `prompts`.
        call: further arguments of the pipeline's call, such as `num_inference_steps`.
        batch_size: images at a time.
        adapter: as for `annealed_guidance`.
        base: as for `annealed_guidance`.
        folder: where everything is kept, so that the same call continues after an interruption.
        seed: of the search.

    Raises:
        ValueError: an unknown constraint, a budget that is too small, prompts on both sides; or as for
            `annealed_guidance`.
        ModuleNotFoundError: Optuna is not installed.
    """
    goal = Goal(keep, share)  # type: ignore[arg-type]
    where = Path(folder) if folder else None
    searched = _search_bench(prompts, images_per_prompt)
    later = Bench(list(held_out), [seed + images_per_prompt for seed in searched.seeds]) if held_out else None
    _check(searched, later, budget)
    sampler = Sampler(pipe, {"reward": as_reward(reward)}, features, call or {}, batch_size, adapter, base, where)
    return _tune(sampler, searched, later, goal, budget, seed)


def tune_run(
    run: Run,
    recipe: Recipe,
    reward: Reward,
    features: Extractor | None,
    goal: Goal,
    *,
    gold: Reward | None = None,
    budget: int = 3000,
    images_per_prompt: int = 8,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
) -> Result:
    """`tune_schedule` for the tuned model of a run; everything is kept in `RUN/search`.

    Held-out prompts, their seeds and the features are those of the recipe's evaluation.

    Args:
        run: with a finished training.
        recipe: the run's.
        reward: the recipe's.
        features: what the recipe's evaluation measures diversity in.
        goal: what to keep.
        gold: the recipe's reward that is never trained on, to be recorded beside the other.
        budget: images of the search.
        images_per_prompt: of each schedule.
        prompts: to search on; None takes at most `PROMPTS` of the training prompts that are not held out.
        seed: of the search.

    Raises:
        FileNotFoundError: the training is not finished.
        ValueError: the recipe has no evaluation, or as for `tune_schedule`.
    """
    config = recipe.evaluation
    if config is None or features is None:
        raise ValueError("the recipe has no evaluation section: the search needs its held-out prompts and features")
    check_trained([OperatingPoint("tuned", "tuned", "tuned", TunedPoint())], run)
    if prompts is None:
        free = [prompt for prompt in dict.fromkeys(recipe.prompts) if prompt not in config.prompts]
        prompts = order_of(free, 0)[:PROMPTS]
        if len(prompts) < 2:
            raise ValueError(
                f"{len(prompts)} of the training prompts are not held out for the evaluation, but a search needs at "
                "least 2: give a file with other prompts with --prompts"
            )
    searched = _search_bench(prompts, images_per_prompt)
    later = Bench(config.prompts, list(range(config.seed, config.seed + config.images_per_prompt)))
    _check(searched, later, budget)
    pipe = load_pipeline(recipe.pipeline)
    rewards = {"reward": reward} | ({"gold": gold} if gold else {})
    with tuned(pipe, run.training()) as models:
        call, folder = recipe.sampling.call(), run.path / "search"
        sampler = Sampler(pipe, rewards, features, call, config.batch_size, **models, folder=folder)
        return _tune(sampler, searched, later, goal, budget, seed)


def _tune(sampler: Sampler, bench: Bench, held_out: Bench | None, goal: Goal, budget: int, seed: int) -> Result:
    def measure(config: PointConfig, prompt: str) -> tuple[float, float]:
        row = sampler(config, prompt, bench.seeds)
        return fmean(row["scores"]["reward"]), row["diversity"]

    trials = list(search(measure, bench.prompts, len(bench.seeds), goal, budget, seed))
    found, fixed = best(trials), best(trials, fixed_only=True)
    compared = compare(sampler, held_out, goal, fixed.point, found.point) if held_out else None
    result = Result(goal, trials, found, fixed, compared)
    if sampler.folder:
        folder = sampler.folder / goal.name
        write_json(folder / "search.json", result.to_dict())
        write_text(folder / "point.yaml", result.yaml + "\n")
    return result


def _search_bench(prompts: Sequence[str], images_per_prompt: int) -> Bench:
    return Bench(list(prompts), list(range(SEEDS, SEEDS + images_per_prompt)))


def _check(bench: Bench, held_out: Bench | None, budget: int) -> None:
    check_size(bench.prompts, len(bench.seeds), budget)
    if len(bench.seeds) < 2:
        raise ValueError("diversity needs at least 2 images per prompt")
    if held_out is None:
        return
    if len(held_out.prompts) < 2:
        raise ValueError("intervals over held-out prompts need at least 2 of them, or leave them out")
    both = sorted(set(bench.prompts) & set(held_out.prompts))
    if both:
        words = ", ".join(map(repr, both))
        raise ValueError(f"held-out prompts cannot be searched on: take {words} off one of the lists")


def compare(sampler: Sampler, bench: Bench, goal: Goal, fixed: PointConfig, found: PointConfig) -> dict[str, Any]:
    """Base, tuned, the best fixed schedule and the found one on held-out prompts.

    Returns:
        `prompts`, `images_per_prompt`, `points` (by role: `label`, `forwards`, each metric's mean and 95 % interval),
        `difference` (found less fixed: each metric's paired 95 % bootstrap interval over the prompts), `slack` (found:
        how much more it keeps than is needed, with its interval).
    """
    points = {"base": point(BASE), "tuned": point(TUNED), "fixed": fixed, "found": found}
    metrics: dict[str, dict[str, list[float]]] = {}
    described = {}
    with tqdm(total=len(points) * len(bench.prompts), desc="comparing on held-out prompts", unit="prompt") as bar:
        for role, config in points.items():
            rows = []
            for prompt in bench.prompts:
                rows.append(sampler(config, prompt, bench.seeds))
                bar.update()
            own = {name: [fmean(row["scores"][name]) for row in rows] for name in rows[0]["scores"]}
            metrics[role] = own | {"diversity": [row["diversity"] for row in rows]}
            intervals = {name: asdict(bootstrap(values)) for name, values in metrics[role].items()}
            described[role] = {"label": label(config), "forwards": fmean(r["forwards"] for r in rows), **intervals}
    found_values = metrics["found"]
    values = {role: Values(*(np.array(own[name]) for name in ("reward", "diversity"))) for role, own in metrics.items()}
    needed = goal.needed(values["base"], values["tuned"])
    return {
        "prompts": bench.prompts,
        "images_per_prompt": len(bench.seeds),
        "points": described,
        "difference": {n: asdict(paired_difference(found_values[n], metrics["fixed"][n])) for n in found_values},
        "slack": asdict(paired_difference(found_values[goal.keep], needed)),
    }


def _describe(trial: Trial, base: Trial) -> dict[str, Any]:
    """A trial for `search.json`; a stopped one is placed by its mean difference to base on the same prompts."""
    k = len(trial.slack)
    placed = {
        name: float(base.values.of(name).mean() + (trial.values.of(name) - base.values.of(name)[:k]).mean())
        for name in ("reward", "diversity")
    }
    return {
        "label": label(trial.point),
        "point": trial.point.model_dump(mode="json", exclude_none=True),
        "fixed": trial.fixed,
        "prompts": k,
        "stopped": trial.stopped,
        "valid": trial.valid,
        **placed,
        "slack": float(trial.slack.mean()),
        "curve": curve(trial.point),
    }
