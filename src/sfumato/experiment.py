"""The stages of a run, each of which continues where it was left: train, evaluate, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from sfumato.config import EvaluationConfig, Recipe, load_recipe
from sfumato.frontier.evaluate import measure
from sfumato.frontier.points import OperatingPoint, check_trained, operating_points, weights_folder
from sfumato.frontier.provenance import threads_before
from sfumato.frontier.sweep import Instruments, Labels, Sweep
from sfumato.metrics import Extractor, JudgeFeatures, build_extractor
from sfumato.pipelines.load import default_device, load_pipeline, process_state
from sfumato.rewards import Reward, build_reward, check_prompts
from sfumato.rewards.calibration import calibrate, recall, remember, unmeasured
from sfumato.runs import Run
from sfumato.training import Monitor, Trainer
from sfumato.training.checkpoints import finished
from sfumato.training.checks import check_training
from sfumato.training.objective import build_objective
from sfumato.training.preflight import MANY, base_images
from sfumato.training.trainer import unessential
from sfumato.training.watch import ended


class Experiment:
    """A recipe at work in its run folder.

    Rewards and feature extractors are built once and shared by all stages.

    Args:
        recipe: what to do; its `run` says where.

    Attributes:
        is_main_process: whether this is the process that measures, reports and prints. Training and sampling take all.

    Raises:
        ValueError: the folder holds a run of another recipe, or a reward or feature extractor does not exist or does
            not know a prompt.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.device = default_device()
        self.is_main_process = process_state().is_main_process
        self.reward = build_reward(recipe.reward, self.device)
        check_prompts(self.reward, recipe.prompts)
        for config in recipe.trainings.values():
            build_objective(config.objective).check(self.reward)
        self.gold: Reward | None = None
        self.further: dict[str, Reward] = {}
        self.extractors: dict[str, Extractor] = {}
        self.labels: Labels | None = None
        if recipe.evaluation:
            operating_points(recipe)
            self._build_instruments(recipe.evaluation)
        self.run = Run.create(recipe.folder, recipe.resolved(), recipe.name, self._harmless_changes())
        recall(self._rewards(), self.run.normalization)

    @classmethod
    def load(cls, folder: str | Path) -> Experiment:
        """Continue the experiment in a run folder; raises FileNotFoundError if there is none."""
        return cls(load_recipe(Run.load(folder).path))

    def train(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run every training that is not finished, yielding (training, record) per update.

        Raises:
            ValueError: one of the trainings cannot work; found before the first one starts.
        """
        todo = {name: config for name, config in self.recipe.trainings.items() if not self._trained(name)}
        for name, config in todo.items():
            pipe = load_pipeline(self.recipe.pipeline, self.device, shared_out=config.memory.shard)
            for each in todo:
                self._check(pipe, each)
            self._measure_base(pipe, config.memory.shard)
            trainer = Trainer(
                pipe,
                build_objective(config.objective),
                self.reward,
                self.recipe.prompts,
                config,
                self.recipe.sampling,
                self.run.training(name),
                self._monitor(name),
            )
            for record in _progress(trainer, name):
                yield name, record

    def evaluate(self) -> dict[str, Any] | None:
        """Sample and measure every operating point.

        Returns:
            What `frontier.json` holds, on the main process; None on the others, which only sample.

        Raises:
            ValueError: the recipe has no `evaluation`.
            FileNotFoundError: a training that a point needs is not finished.
        """
        if self.recipe.evaluation is None:
            raise ValueError("the recipe has no evaluation section: add evaluation.prompts and evaluation.points")
        points = operating_points(self.recipe)
        check_trained(points, self.run)
        sweep = Sweep(self.run, self.recipe, points, self._instruments())
        if self.device.type == "cpu":
            torch.set_num_threads(threads_before(self.run) or torch.get_num_threads())
        if unmeasured(self._rewards()):
            self._measure_base(load_pipeline(self.recipe.pipeline, self.device))
        if left := sweep.prepare():
            self._check_finished(points)
            sweep.sample(load_pipeline(self.recipe.pipeline, self.device), left)
        sweep.score_missing()
        return measure(self.run, self.recipe, points, self.extractors) if self.is_main_process else None

    def early_results(self) -> Iterator[str]:
        """A sentence for every training that went too far, so that its result is an earlier checkpoint."""
        for name in self.recipe.trainings:
            if (good := self.run.early_result(name)) is not None:
                last = self.run.training_metrics(name)[-1]
                how = "was stopped" if last["watch"]["action"] == "stop" else "had gone too far"
                found = f"training {name} {how} at update {last['update']}: {last['watch']['why']}. The result is "
                yield found + (f"that of update {good}, the last good one." if good else "the base model.")

    def report(self) -> Path:
        """Write the run's report."""
        from sfumato.report import write_report

        return write_report(self.run)

    def _trained(self, name: str) -> bool:
        records = self.run.training_metrics(name)
        return ended(records, self.recipe.trainings[name]) and finished(self.run.training(name))

    def _check_finished(self, points: list[OperatingPoint]) -> None:
        """Raise FileNotFoundError if a point is to sample with a result that more updates will replace."""
        used = {weights_folder(point, self.run) for point in points}
        for name, config in self.recipe.trainings.items():
            records = self.run.training_metrics(name) if self.run.training(name) in used else []
            if records and not ended(records, config):
                raise FileNotFoundError(
                    f"training {name!r} is at update {records[-1]['update']} of {config.steps}: run "
                    f"`sfumato train {self.run.path}` first"
                )

    def _check(self, pipe: Any, name: str) -> None:
        config, monitor = self.recipe.trainings[name], self._monitor(name)
        objective = build_objective(config.objective)
        check_training(pipe, objective, self.reward, self.recipe.prompts, config, self.recipe.sampling, monitor)

    def _harmless_changes(self) -> list[str]:
        """Keys that may change in a run that has begun: what is done stays right, at most something is added."""
        run = Run(self.recipe.folder)
        keys = ["description", *(f"variants.{name}" for name in self.recipe.variants if not run.has_training(name))]
        keys += [f"evaluation.{name}" for name in ("points", "diversity", "neighbours")]
        before = (run.recipe.get("evaluation") or {}) if run.recipe_path.exists() else {}
        keys.append("evaluation.further_features")
        keys += [] if before.get("unrelated") else ["evaluation.unrelated", "evaluation.unrelated_images"]
        rows = run.images()
        asked = self.recipe.evaluation.rewards if self.recipe.evaluation else {}
        scored = {name for row in rows for name in row["scores"] if name in asked}
        names = {*asked, *(before.get("rewards") or {})} - scored
        keys += [f"evaluation.rewards.{name}" for name in names] if before.get("rewards") else ["evaluation.rewards"]
        if not rows:
            shared = set.intersection(*(unessential(config) for config in self.recipe.trainings.values()))
            keys += ["evaluation", *(f"training.{key}" for key in shared)]
        return keys

    def _measure_base(self, pipe: Any, shared_out: bool = False) -> None:
        """Measure on the base model what `normalize: base` asks for, once for all stages of the run.

        Raises:
            ValueError: the pipeline is shared out among processes, so that one of them cannot sample alone.
        """
        if unmeasured(self._rewards()) and shared_out:
            raise ValueError(
                "normalize: base cannot be measured on a model that training.memory.shard shares out: write normalize: "
                "{mean: ..., std: ...}"
            )
        while left := unmeasured(self._rewards()):
            if self.is_main_process:
                size = self.recipe.training.micro_batch_size or self.recipe.training.batch_size
                batches = base_images(pipe, self.recipe.prompts, MANY, size, self.recipe.sampling.call())
                calibrate(left, tqdm(batches, desc="measuring the base", unit="batch", total=-(-MANY // size)))
                remember(left, self.run.normalization)
            process_state().wait_for_everyone()
            recall(left, self.run.normalization)

    def _rewards(self) -> list[Reward]:
        return [*self._scored().values(), *self.further.values()]

    def _scored(self) -> Mapping[str, Reward]:
        return {"reward": self.reward} | ({"gold": self.gold} if self.gold else {})

    def _instruments(self) -> Instruments:
        return Instruments({**self._scored(), **self.further}, self.extractors["features"], self.labels)

    @property
    def extractor(self) -> Extractor | None:
        """Of the features in which diversity is measured."""
        return self.extractors.get("features")

    def _build_instruments(self, config: EvaluationConfig) -> None:
        if config.gold:
            self.gold = build_reward(config.gold, self.device)
        self.further = {name: build_reward(section, self.device) for name, section in config.rewards.items()}
        for reward in self._rewards():
            check_prompts(reward, [*config.prompts, *(config.unrelated or [])])
        specs = {"features": config.features, **config.further_features}
        self.extractors = {name: build_extractor(spec, self.device) for name, spec in specs.items()}
        main = self.extractors["features"]
        if main.distance != "cosine":
            raise ValueError(
                f"evaluation.features: {config.features} gives distances only, no Vendi score or recall: name it in "
                "evaluation.further_features, and take another one here"
            )
        name = config.diversity.removeprefix("vendi_")
        if name in self.extractors and self.extractors[name].distance != "cosine":
            raise ValueError(f"evaluation.diversity: {specs[name]} gives distances only: take distance_{name}")
        if isinstance(main, JudgeFeatures):
            self.labels = main.judge.labels

    def _monitor(self, name: str) -> Monitor | None:
        evaluation, training = self.recipe.evaluation, self.recipe.trainings[name]
        if evaluation is None or self.extractor is None or training.monitor_every is None:
            return None
        return Monitor(
            prompts=evaluation.prompts[: training.monitor_prompts],
            images=training.monitor_images,
            call=self.recipe.sampling.call(),
            rewards={**self._scored(), **self.further},
            features=self.extractor,
            folder=self.run.training(name),
        )


def _progress(trainer: Trainer, name: str) -> Iterator[dict[str, Any]]:
    """A trainer's records, with a progress bar on the first process."""
    total, done = trainer.config.steps, trainer.state.update
    hidden = not trainer.accelerator.is_main_process
    with tqdm(total=total, initial=done, desc=f"training {name}", unit="update", disable=hidden) as bar:
        shown: dict[str, str] = {}
        warned = False
        for record in trainer:
            shown |= _shown(record)
            if "watch" in record and record["watch"]["action"] != "stop" and not warned:
                bar.write(f"warning: {name} at update {record['update']}: {record['watch']['why']}", file=sys.stderr)
                warned = True
            bar.set_postfix(shown, refresh=False)
            bar.update(record["update"] - bar.n)
            yield record


def _shown(record: dict[str, Any]) -> dict[str, str]:
    """What the progress bar shows of a record; diversity is measured only now and then."""
    names = {"reward": "reward", "kl": "kl", "eval/gold": "gold", "eval/vendi": "vendi"}
    shown = {label: f"{record[key]:.3g}" for key, label in names.items() if key in record}
    return shown | ({"kept": f"{record['eval/kept']:.0%}"} if "eval/kept" in record else {})
