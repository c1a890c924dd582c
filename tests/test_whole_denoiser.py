"""A run that trains the whole denoiser: every stage takes what that left, two models in the place of a LoRA."""

import pytest
import torch

import sfumato as library
from sfumato.bundle import read_saved
from sfumato.config import load_recipe
from sfumato.experiment import Experiment
from sfumato.export import save_run
from sfumato.frontier.points import applied, operating_points
from sfumato.frontier.tuned_runs import read_runs
from sfumato.images import load_image
from sfumato.pipelines.formats import load_tuned
from sfumato.pipelines.rollout import rollout
from sfumato.runs import read_json, read_jsonl
from sfumato.trained import weights_hash, weights_in
from tests import tiny
from tests.tiny_run import EVALUATION, RECIPE, write_recipe

CALL = RECIPE["sampling"]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """(experiment, what was measured)."""
    folder = tmp_path_factory.mktemp("whole")
    training = {**RECIPE["training"], "lora": None, "steps": 2, "checkpoint_every": 1, "monitor_every": None}
    points = [{"kind": "tuned", "checkpoint": 1}, {"kind": "lora_scale", "scale": 0.5}]
    points = [{"kind": "base"}, {"kind": "tuned"}, *points, {"kind": "guidance", "schedule": "linear"}]
    evaluation = {**EVALUATION, "features": str(world / "vision"), "points": points}
    evaluation |= {"unrelated": None, "images_per_prompt": 3}
    path = write_recipe(folder / "recipe.yaml", world, training=training, evaluation=evaluation)
    experiment = Experiment(load_recipe(path, [f"run={folder / 'run'}"]))
    list(experiment.train())
    return experiment, experiment.evaluate()


def drawn(pipe, **changes):
    return rollout(pipe, prompt="a", seeds=[1_000_000], **{**CALL, **changes}).images


def test_every_point_is_measured_from_what_the_training_left(whole):
    experiment, measured = whole
    names = ["base", "tuned", "tuned-1", "wise-ft-0.5", "aig-linear"]
    assert [point["name"] for point in measured["points"]] == names
    run = experiment.run
    files = {row["point"]: row["file"] for row in run.images() if (row["prompt"], row["seed"]) == ("a", 1_000_000)}
    pictures = {name: load_image(run.evaluation / file) for name, file in files.items()}
    for name, folder in (("tuned", run.training()), ("tuned-1", run.training() / "checkpoint-000001")):
        pipe = tiny.pipeline("sd")
        load_tuned(pipe, folder)
        assert (drawn(pipe)[0] - pictures[name]).abs().max() < 1 / 255
    assert (drawn(tiny.shared("sd"))[0] - pictures["base"]).abs().max() < 1 / 255
    assert len({pictures[name].sum().item() for name in names}) == len(names)
    known = read_json(run.evaluation / "points.json")["points"]
    assert known["base"]["lora"] is None
    assert known["tuned"]["lora"] == known["wise-ft-0.5"]["lora"] == weights_hash(run.training() / "unet")
    assert known["tuned-1"]["lora"] != known["tuned"]["lora"]
    assert read_runs([run.path])[0].weights == known["tuned"]["lora"]


def test_new_weights_make_pictures_stale_and_others_stay(whole):
    experiment, _ = whole
    weights = weights_in(experiment.run.training() / "checkpoint-000001") / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4] + bytes(4))
    (experiment.run.evaluation / "sweep.jsonl").unlink()
    try:
        experiment.evaluate()
    finally:
        weights.write_bytes(before)
    sampled = read_jsonl(experiment.run.evaluation / "sweep.jsonl")
    assert {(row["point"], row["why"]) for row in sampled} == {("tuned-1", "new weights")}


def test_a_finished_training_is_not_done_again_and_a_lost_result_is(whole):
    experiment, _ = whole
    assert list(experiment.train()) == []
    weights = weights_in(experiment.run.training())
    wanted = weights_hash(weights)
    weights.rename(weights.with_name("elsewhere"))
    with pytest.raises(
        FileNotFoundError, match=r"'tuned' needs the tuned model in .*tuned, which is not there yet: run"
    ):
        experiment.evaluate()
    assert list(experiment.train()) == []  # from the last checkpoint
    assert weights_hash(weights_in(experiment.run.training())) == wanted


@pytest.mark.parametrize("name", ["tuned", "wise-ft-0.5", "aig-linear"])
def test_a_point_is_exported_and_draws_the_same(name, whole, tmp_path):
    experiment, _ = whole
    point = next(point for point in operating_points(experiment.recipe) if point.name == name)
    pipe = tiny.pipeline("sd")
    with applied(pipe, point, experiment.run):
        images = drawn(pipe)
    save_run(experiment.run, name, tmp_path)
    assert torch.equal(drawn(library.load(tmp_path)), images)
    assert read_saved(tmp_path).denoiser == "unet" and read_saved(tmp_path).adapters == {}
    assert "# Reward-tuned denoiser" in (tmp_path / "README.md").read_text()


def test_pictures_are_drawn_from_the_trainings_folder(whole, sfumato, world, tmp_path):
    pictures = {}
    for name, options in {
        "base": [],
        "tuned": ["--lora", whole[0].run.training()],
        "guided": ["--lora", whole[0].run.training(), "--schedule", "constant:0.5"],
        "ended": ["--lora", whole[0].run.training(), "--schedule", "constant:0"],
    }.items():
        path = tmp_path / f"{name}.png"
        common = ["--pipeline", world / "pipeline", "--images", 2, "--steps", 2, "--out", path]
        done = sfumato("sample", "a", *common, *options)
        assert done.code == 0, done.err
        pictures[name] = path.read_bytes()
    assert pictures["base"] == pictures["ended"] and len(set(pictures.values())) == 3


def test_a_schedule_is_searched_for_two_models(whole, sfumato, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("e\nf")
    run = whole[0].run
    options = ["--prompts", prompts, "--images", 2, "--budget", 40, "--keep", "diversity=0.5"]
    done = sfumato("tune-schedule", run.path, *options)
    assert done.code == 0, done.err
    trials = read_json(run.path / "search" / "diversity-0.5" / "search.json")["trials"]
    assert trials[0]["reward"] != trials[1]["reward"]
