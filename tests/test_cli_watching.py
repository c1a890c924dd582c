"""A run whose training is stopped by what it watches: said in a sentence, then measured and reported like any other."""

import pytest

from sfumato.diagnosis.training import training as over_training
from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.report.data import read_training, training_marks
from sfumato.runs import Run
from tests.tiny_run import EVALUATION, RECIPE, write_recipe

OPPOSITE = [{"name": "colourfulness", "weight": -1.0}]
"""It falls whenever the reward rises."""
POINTS = [{"kind": "base"}, {"kind": "tuned"}]


@pytest.fixture(scope="module")
def recipe(world, tmp_path_factory):
    watch = {"diversity": None, "noise": 0.0}
    training = {**RECIPE["training"], "steps": 6, "lr": 3e-2, "watch": watch}
    evaluation = {**EVALUATION, "features": str(world / "vision"), "gold": OPPOSITE, "points": POINTS}
    evaluation |= {"images_per_prompt": 3, "unrelated": None, "rewards": {"grey": OPPOSITE}}
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder / "recipe.yaml", world, training=training, evaluation=evaluation)


def test_a_run_that_is_stopped_goes_on_with_the_last_good_checkpoint(recipe, sfumato, tmp_path):
    folder = tmp_path / "run"
    outcome = sfumato("run", recipe, f"run={folder}")
    assert outcome.code == 0, outcome.err
    run = Run(folder)
    records = run.training_metrics()
    assert [record["update"] for record in records] == [0, 1, 2]
    assert {"eval/reward", "eval/gold", "eval/grey", "eval/kept"} <= records[-1].keys()
    said = [
        line for line in outcome.err.splitlines() if line.startswith("training tuned was stopped at update 2: gold")
    ]
    assert len(said) == 1 and said[0].endswith("while the reward rose. The result is the base model.")
    assert "kept=" in outcome.err and "report: " in outcome.out
    again = sfumato("train", folder)
    assert again.out == f"{run.training() / WEIGHTS_NAME}\n" and again.err == f"{said[0]}\n"
    assert len(run.training_metrics()) == 3
    base, tuned = (sorted((run.evaluation / "images" / name).glob("*.png")) for name in ("base", "tuned"))
    assert [path.read_bytes() for path in base] == [path.read_bytes() for path in tuned]
    marked = training_marks([{"definition": {"kind": "tuned"}, "label": "tuned"}], read_training(run, "tuned"))
    assert marked == [(0, "tuned")]
    assert over_training(run, "tuned").level == "unknown"  # nothing is held against it that was thrown away
    outcome = sfumato("evaluate", folder, f"evaluation.points={[*POINTS, {'kind': 'tuned', 'checkpoint': 4}]}")
    assert outcome.code == 1
    assert "'tuned-4'" in outcome.err and "the training went too far before that update: take the point" in outcome.err


def test_a_warning_is_given_once_and_at_once(recipe, sfumato, tmp_path):
    outcome = sfumato("train", recipe, f"run={tmp_path / 'run'}", "training.watch.action=warn", "training.steps=4")
    lines = [line for line in outcome.err.replace("\r", "\n").splitlines() if line.startswith("warning:")]
    assert outcome.code == 0 and len(lines) == 1
    assert lines[0].startswith("warning: tuned at update 2: gold fell from ")
    assert [record["update"] for record in Run(tmp_path / "run").training_metrics()] == [0, 1, 2, 3, 4]
