"""Looks at held-out prompts: those of a training while it runs, and under AIG those at its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.hacking.plan import Plan, Way
from tqdm.auto import tqdm

from sfumato import annealed_guidance
from sfumato.experiment import Experiment
from sfumato.pipelines.load import load_pipeline
from sfumato.pipelines.trained import tuned
from sfumato.runs import Run, append_jsonl, read_jsonl
from sfumato.training import Monitor


def make(plan: Plan, way: Way) -> None:
    """Do what is missing of a way's looks."""
    if way.power is not None:
        guide(plan, way)
        return
    for _ in Experiment(plan.recipe(way)).train():
        pass


def read(plan: Plan, way: Way) -> list[dict[str, Any]]:
    """The looks, by update. At update 0 AIG is the base model, as the training is."""
    training = [record for record in Run.load(source(plan, way)).training_metrics() if "eval/scores" in record]
    return training if way.power is None else training[:1] + read_jsonl(file(plan, way))


def finished(plan: Plan, way: Way) -> bool:
    """Whether all looks have been had."""
    if not (source(plan, way) / "run.json").exists():
        return False
    records = read(plan, way)
    return bool(records) and records[-1]["update"] == plan.updates


def guide(plan: Plan, way: Way) -> None:
    """Look at every checkpoint of the training that the way is about, with base and tuned blended."""
    experiment = Experiment(plan.recipe(Way(way.proxy, way.label, way.proxy)))
    assert experiment.gold is not None and experiment.extractor is not None and experiment.recipe.evaluation is not None
    monitor = Monitor(
        prompts=experiment.recipe.evaluation.prompts[: plan.prompts],
        images=plan.images,
        call=experiment.recipe.sampling.call(),
        rewards={"reward": experiment.reward, "gold": experiment.gold},
        features=experiment.extractor,
        folder=plan.folder / way.name,
    )
    monitor.folder.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(experiment.recipe.pipeline, experiment.device)
    seen = {record["update"] for record in read_jsonl(file(plan, way))}
    for update in tqdm(range(plan.every, plan.updates + 1, plan.every), desc=way.label, unit="checkpoint"):
        if update in seen:
            continue
        checkpoint = experiment.run.training() / f"checkpoint-{update:06d}"
        with tuned(pipe, checkpoint) as models, annealed_guidance(pipe, "power", p=way.power, **models):
            record = {"update": update, **monitor(pipe, update)}
        append_jsonl(file(plan, way), [record])


def source(plan: Plan, way: Way) -> Path:
    """The run folder of the training that a way is, or whose checkpoints it samples from."""
    return plan.folder / (way.name if way.power is None else way.proxy)


def file(plan: Plan, way: Way) -> Path:
    """The looks under AIG."""
    return plan.folder / way.name / "looks.jsonl"
