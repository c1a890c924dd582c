"""The sweep: resumable at the image, and its scores are those of the pictures on disk."""

import json
import shutil

import pytest
import torch

from sfumato.config import load_recipe
from sfumato.experiment import Experiment
from sfumato.frontier.points import operating_points
from sfumato.frontier.sweep import micro_batches, missing
from sfumato.images import grid, load_image, save_png
from sfumato.rewards import build_reward, score
from sfumato.runs import write_jsonl


@pytest.fixture
def experiment(run):
    return Experiment(load_recipe(run.path))


def keys(rows):
    return [(row["point"], row["prompt"], row["seed"]) for row in rows]


def pictures(run):
    return {path.relative_to(run.path): path.read_bytes() for path in sorted(run.path.rglob("images/*/*.png"))}


def rows_without_order(run):
    return sorted(run.images(), key=lambda row: row["file"])


def test_every_point_is_sampled_on_the_same_prompts_and_seeds(run):
    plan = {}
    for row in run.images():
        plan.setdefault(row["point"], []).append((row["prompt"], row["seed"]))
    reference = plan.pop("reference")
    assert list(plan) == ["base", "tuned", "tuned-2", "aig-power-2"]
    assert all(images == plan["base"] for images in plan.values())
    assert len(plan["base"]) == len(set(plan["base"])) == 3 * 4
    assert {seed for _, seed in reference}.isdisjoint(seed for _, seed in plan["base"])
    assert len(reference) == 3 * 4


def test_the_record_says_how_the_image_was_made(run):
    rows = {row["point"]: row for row in run.images()}
    assert rows["base"]["call"] == {"num_inference_steps": 2, "guidance_scale": 2.0}
    assert rows["base"]["forwards"] == rows["tuned"]["forwards"] == 2
    assert rows["aig-power-2"]["forwards"] == 2  # g is 0 at the first of two steps and 1 at the last


def test_scores_are_those_of_the_pictures(run):
    reward = build_reward("colourfulness")
    for row in run.images():
        image = load_image(run.evaluation / row["file"])
        assert score(reward, image[None], [row["prompt"]]).item() == pytest.approx(row["scores"]["reward"], rel=1e-5)


def test_only_what_is_missing_is_sampled_again(run, experiment, monkeypatch):
    before, images, frontier = rows_without_order(run), pictures(run), run.frontier()
    rows = run.images()
    del rows[5:7]  # from a micro-batch of three and one of one
    write_jsonl(run.evaluation / "images.jsonl", rows)
    with (run.evaluation / "images.jsonl").open("a") as table:
        table.write('{"point": "tuned", "prom')  # a kill in the middle of a line
    gone = next(row for row in rows if row["point"] == "aig-power-2")
    (run.evaluation / gone["file"]).unlink()
    config, points = experiment.recipe.evaluation, operating_points(experiment.recipe)
    left = [(point.name, batch.prompt, batch.seeds) for point, found in missing(config, run, points) for batch in found]
    assert len(left) in (2, 3)
    assert left[-1][:2] == ("aig-power-2", gone["prompt"]) and gone["seed"] in left[-1][2]
    sampled = []
    monkeypatch.setattr("sfumato.frontier.sweep.rollout", counted_rollout(sampled))
    assert json.loads(json.dumps(experiment.evaluate())) == frontier
    assert len(sampled) == len(left)
    assert rows_without_order(run) == before
    assert pictures(run) == images


def counted_rollout(calls):
    from sfumato.pipelines.rollout import rollout

    def count_and_run(pipe, **arguments):
        calls.append(arguments)
        return rollout(pipe, **arguments)

    return count_and_run


def test_a_damaged_picture_is_named_and_made_again_once_it_is_deleted(run, experiment):
    """As a machine that loses power may leave it."""
    frontier = run.frontier()
    picture = run.evaluation / run.images()[0]["file"]
    content = picture.read_bytes()
    for rest in (content[: len(content) // 2], b""):
        picture.write_bytes(rest)
        with pytest.raises(ValueError, match=rf"cannot read the image .*{picture.name}.*delete it"):
            experiment.evaluate()
    picture.unlink()
    assert json.loads(json.dumps(experiment.evaluate())) == frontier
    assert picture.read_bytes() == content


def test_nothing_missing_loads_no_pipeline(experiment, monkeypatch):
    def unwanted(*_):
        raise AssertionError("a pipeline was loaded")

    monkeypatch.setattr("sfumato.experiment.load_pipeline", unwanted)
    experiment.evaluate()


def test_the_result_does_not_depend_on_how_it_was_interrupted(run, experiment):
    frontier, images = run.frontier(), pictures(run)
    shutil.rmtree(run.evaluation)
    stop_after(7, experiment)
    assert 0 < len(run.images()) < 60
    assert json.loads(json.dumps(experiment.evaluate())) == frontier
    assert pictures(run) == images
    assert len(keys(run.images())) == len(set(keys(run.images()))) == 60


def stop_after(calls, experiment):
    """Evaluate until the reward has been asked some times, then break off."""
    reward, asked = experiment.reward, []

    class Brittle:
        name, range, differentiable = reward.name, reward.range, reward.differentiable

        def __call__(self, images, prompts):
            asked.append(1)
            if len(asked) > calls:
                raise KeyboardInterrupt
            return reward(images, prompts)

    experiment.reward = Brittle()
    with pytest.raises(KeyboardInterrupt):
        experiment.evaluate()
    experiment.reward = reward


def test_micro_batches_of_a_point_and_of_the_reference(experiment):
    config = experiment.recipe.evaluation
    plan, reference = list(micro_batches(config)), list(micro_batches(config, reference=True))
    assert [len(batch.seeds) for batch in plan] == [3, 1] * 3
    assert [batch.prompt for batch in plan] == [batch.prompt for batch in reference]
    assert [batch.prompt_index for batch in plan] == [0, 0, 1, 1, 2, 2]
    assert reference[0].seeds[0] == config.seed + config.images_per_prompt


def test_images_survive_the_disk_as_eight_bits(tmp_path):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    save_png(image, tmp_path / "new" / "image.png")
    read = load_image(tmp_path / "new" / "image.png")
    assert torch.equal(read, (image * 255).round() / 255)
    save_png(read, tmp_path / "again.png")
    assert torch.equal(load_image(tmp_path / "again.png"), read)


def test_a_grid_has_a_row_for_each_tensor():
    a, b = torch.zeros(3, 3, 4, 5), torch.ones(3, 3, 4, 5)
    sheet = grid([a, b])
    assert sheet.shape == (3, 8, 15)
    assert not sheet[:, :4].any() and sheet[:, 4:].all()
