"""The command line: every door, and every stage of a run continued through it."""

import shutil

import pytest
import yaml
from PIL import Image

from sfumato.cli import shared
from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import Run
from tests.tiny_run import EVALUATION

COMMANDS = (
    "recipes",
    "train",
    "evaluate",
    "frontier",
    "report",
    "run",
    "demo",
    "sample",
    "export",
    "tune-schedule",
    "convert-weights",
)


def test_a_run_prints_the_result_and_shows_only_progress(finished):
    folder, out, err = finished
    assert "AIG power 2" in out and f"report: {folder / 'report.html'}" in out
    assert (folder / "report.html").stat().st_size > 10_000
    shown = [line.split(":")[0] for line in err.replace("\r", "\n").split("\n") if line.strip()]
    assert set(shown) == {"training tuned", "sampling"}, err
    run = Run(folder)
    assert [record["update"] for record in run.training_metrics()] == [0, 1, 2, 3, 4]
    names = [point["name"] for point in run.frontier()["points"]]
    assert names == ["base", "tuned", "tuned-2", "aig-power-2", "best-of-2"]


def test_a_run_is_not_done_again(run, sfumato):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.png")}
    weights = run.training() / WEIGHTS_NAME
    written = weights.stat().st_mtime_ns
    outcome = sfumato("run", run.path)
    assert outcome.code == 0 and "AIG power 2" in outcome.out
    assert outcome.err == ""
    assert weights.stat().st_mtime_ns == written
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.png")} == before


def test_each_stage_continues_a_run_folder(run, sfumato, finished):
    frontier = run.frontier()
    shutil.rmtree(run.evaluation)
    (run.path / "report.html").unlink()
    outcome = sfumato("train", run.path)
    assert outcome.out == f"{run.training() / WEIGHTS_NAME}\n"
    outcome = sfumato("evaluate", run.path)
    assert outcome.out.strip() in finished[1]
    assert run.frontier() == frontier
    outcome = sfumato("report", run.path)
    assert outcome.out.split() == [str(run.path / "report.html")]
    assert run.report.exists()


def test_more_updates_continue_a_run_without_evaluation(run, sfumato):
    shutil.rmtree(run.evaluation)
    assert sfumato("train", run.path, "training.steps=6", "training.checkpoint_every=1").code == 0
    assert [record["update"] for record in run.training_metrics()] == list(range(7))
    assert run.recipe["training"]["steps"] == 6


def test_a_training_that_shall_go_on_is_not_evaluated_before_it_has(run, sfumato):
    shutil.rmtree(run.evaluation)
    outcome = sfumato("evaluate", run.path, "training.steps=6")
    assert outcome.code == 1
    assert f"'tuned' is at update 4 of 6: run `sfumato train {run.path}` first" in outcome.err
    assert not run.images()


def test_samples_are_drawn_with_and_without_guidance(run, world, sfumato, tmp_path):
    pictures = {}
    for name, options in {
        "base": [],
        "tuned": ["--lora", run.training()],
        "checkpoint": ["--lora", run.training() / "checkpoint-000002"],
        "g=0": ["--lora", run.training(), "--schedule", "base"],
        "g=1": ["--lora", run.training(), "--schedule", "tuned"],
        "power": ["--lora", run.training(), "--schedule", "power:2"],
        "capped": ["--lora", run.training(), "--schedule", "power:2", "--cap", "0.5"],
        "sigma": ["--lora", run.training(), "--schedule", "power:2", "--clock", "sigma"],
        "weights": ["--lora", run.training(), "--schedule", "table:0=0,0.5=0.1,1=0.4", "--blend", "weights"],
    }.items():
        out = tmp_path / f"{name}.png"
        fixed = ["--pipeline", world / "pipeline", "--images", 3, "--steps", 2, "--out", out]
        outcome = sfumato("sample", "a cat", *fixed, *options)
        assert outcome.out == f"{out}\n"
        with Image.open(out) as picture:
            assert picture.size == (3 * 16, 16)
        pictures[name] = out.read_bytes()
    assert pictures["g=0"] == pictures["base"] != pictures["tuned"] == pictures["g=1"]
    different = ("base", "tuned", "checkpoint", "power", "capped", "sigma", "weights")
    assert len({pictures[name] for name in different}) == len(different)


def test_recipes_are_listed_and_printed(sfumato):
    listed = sfumato("recipes").out
    assert "emoji64-draft" in listed
    printed = yaml.safe_load(sfumato("recipes", "emoji64-draft").out)
    assert printed["name"] == "emoji64-draft"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command, sfumato):
    outcome = sfumato(command, "--help")
    assert outcome.code == 0
    assert f"Example: sfumato {command} " in outcome.out


def test_wrong_usage_is_told_apart_from_failure(sfumato):
    assert sfumato("train").code == 2
    assert sfumato("nonesuch").code == 2
    assert sfumato("sample", "a", "--images", 0).code == 2
    assert sfumato("--version").out.strip() == __import__("sfumato").__version__


def test_an_interruption_says_how_to_continue(sfumato, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, "load_recipe", interrupted)
    outcome = sfumato("train", "emoji64-draft")
    assert outcome.code == 130
    assert outcome.err.strip() == "interrupted; the same command continues"


def test_the_recipe_of_a_run_can_be_repeated_elsewhere(run, sfumato, tmp_path):
    assert sfumato("train", run.path / "recipe.yaml", f"run={tmp_path / 'again'}").code == 0
    again = Run(tmp_path / "again").training() / WEIGHTS_NAME
    assert again.read_bytes() == (run.training() / WEIGHTS_NAME).read_bytes()


def state(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_new_operating_point_costs_only_itself(run, sfumato):
    before = state(run.evaluation / "images")
    points = [*EVALUATION["points"], {"kind": "lora_scale", "scale": 0.5}]
    outcome = sfumato("evaluate", run.path, f"evaluation.points={points}")
    assert "LoRA 0.5" in outcome.out
    after = state(run.evaluation / "images")
    assert {path: content for path, content in after.items() if path.parent.name != "lora-0.5"} == before
    assert len(after) == len(before) + 3 * 4 + 2 * 2
    assert run.recipe["evaluation"]["points"][-1] == {"kind": "lora_scale", "scale": 0.5}
