"""Rewards normalised by the base model: measured once in a run, and the same in all its stages."""

import json
from statistics import fmean

import pytest

from sfumato.experiment import Experiment
from sfumato.runs import Run
from tests.tiny_run import EVALUATION, RECIPE, write_recipe

REWARD = [
    {"name": "colourfulness", "normalize": "base"},
    {"name": "jpeg_incompressibility", "normalize": "base", "weight": 0.5},
]
TRAINING = {
    **RECIPE["training"],
    "objective": {"name": "ddpo", "baseline": "update", "normalize": "update"},
    "batch_size": 4,
    "monitor_every": None,
}
SAMPLING = {**RECIPE["sampling"], "num_inference_steps": 3, "arguments": {"eta": 1.0}}


def recipe(world, folder, **changes):
    sections = {"reward": REWARD, "training": TRAINING, "sampling": SAMPLING, "evaluation": None, **changes}
    return write_recipe(folder / "recipe.yaml", world, **sections)


def test_it_is_measured_before_training_and_kept(world, tmp_path, sfumato):
    path, run = recipe(world, tmp_path), Run(tmp_path / "run")
    outcome = sfumato("train", path, f"run={run.path}")
    assert outcome.code == 0, outcome.err
    assert "measuring the base" in outcome.err
    first, second = json.loads(run.normalization.read_text())
    assert first["reward"] == {"name": "colourfulness"} and second["reward"] == {"name": "jpeg_incompressibility"}
    assert first["std"] > 0 and second["mean"] > 0
    again = sfumato("train", run.path, "training.steps=6")
    assert again.code == 0 and "measuring the base" not in again.err
    assert len(run.training_metrics()) == 6
    parts = Experiment.load(run.path).reward.rewards
    assert [(part.mean, part.std) for part in parts] == [(each["mean"], each["std"]) for each in (first, second)]


def test_other_numbers_would_be_another_training(world, tmp_path, sfumato):
    path, run = recipe(world, tmp_path), Run(tmp_path / "run")
    assert sfumato("train", path, f"run={run.path}").code == 0
    entries = json.loads(run.normalization.read_text())
    entries[0]["mean"] += 1
    run.normalization.write_text(json.dumps(entries))
    outcome = sfumato("train", run.path, "training.steps=6")
    assert outcome.code == 1 and "other settings (reward)" in outcome.err


def test_an_evaluation_uses_it_and_measures_what_was_added_later(world, tmp_path, sfumato):
    """Other seeds of the base, with the same prompts and settings, score about 0 on average, by about 1."""
    evaluation = {**EVALUATION, "features": str(world / "vision"), "prompts": RECIPE["prompts"], "unrelated": None}
    evaluation |= {"images_per_prompt": 8, "points": [{"kind": "base"}, {"kind": "tuned"}]}
    evaluation |= {"rewards": {"raw": "colourfulness"}}
    path, run = recipe(world, tmp_path, reward=REWARD[0], evaluation=evaluation), Run(tmp_path / "run")
    assert sfumato("train", path, f"run={run.path}").code == 0
    (found,) = json.loads(run.normalization.read_text())
    evaluation["rewards"]["size"] = {"name": "jpeg_incompressibility", "normalize": "base"}
    recipe(world, tmp_path, reward=REWARD[0], evaluation=evaluation)
    outcome = sfumato("evaluate", path, f"run={run.path}")
    assert outcome.code == 0, outcome.err
    assert json.loads(run.normalization.read_text())[0] == found
    assert len(json.loads(run.normalization.read_text())) == 2
    rows = [row["scores"] for row in run.images() if row["point"] == "base"]
    assert rows[0]["reward"] * found["std"] + found["mean"] == pytest.approx(rows[0]["raw"], rel=1e-4)
    for name in ("reward", "size"):
        scores = [row[name] for row in rows]
        assert abs(fmean(scores)) < 0.8
        assert 0.4 < fmean(score**2 for score in scores) ** 0.5 < 2
