"""The sweep: resumable at the image, on any number of processes, and its scores are those of the pictures on disk."""

import json
import random
import shutil

import pytest
import torch

from sfumato.config import load_recipe
from sfumato.experiment import Experiment
from sfumato.frontier.plan import plan, to_sample
from sfumato.frontier.points import operating_points
from sfumato.frontier.sweep import Sweep
from sfumato.frontier.table import file_hash, rows_of
from sfumato.images import grid, load_image, save_png
from sfumato.rewards import build_reward, score
from sfumato.runs import append_jsonl, read_json, read_jsonl, write_jsonl, write_text
from tests import forked
from tests.training.test_processes import free_port, ranks


@pytest.fixture
def experiment(run):
    return Experiment(load_recipe(run.path))


def keys(rows):
    return [(row["point"], row["prompt"], row["seed"]) for row in rows]


def pictures(run):
    return {path.relative_to(run.path): path.read_bytes() for path in sorted(run.path.rglob("images/*/*.png"))}


def table(run):
    return (run.evaluation / "images.jsonl").read_bytes()


def sampled(run):
    """What the log says was sampled."""
    return [(r["point"], r["prompt"], r["seeds"], r["why"]) for r in read_jsonl(run.evaluation / "sweep.jsonl")]


def batches_of(experiment):
    return plan(experiment.recipe.evaluation, operating_points(experiment.recipe))


def test_every_point_is_sampled_on_the_same_prompts_and_seeds(run):
    plan = {}
    for row in run.images():
        plan.setdefault(row["point"], []).append((row["prompt"], row["seed"]))
    reference = plan.pop("reference")
    assert list(plan) == ["base", "tuned", "tuned-2", "aig-power-2", "best-of-2"]
    assert all(images == plan["base"] for images in plan.values())
    assert len(plan["base"]) == len(set(plan["base"])) == 3 * 4 + 2 * 2
    assert {seed for _, seed in reference}.isdisjoint(seed for _, seed in plan["base"])
    assert len(reference) == 3 * 4


def test_the_record_and_the_points_say_how_the_image_was_made(run):
    rows = {row["point"]: row for row in run.images()}
    assert rows["base"]["call"] == {"num_inference_steps": 2, "guidance_scale": 2.0}
    assert rows["base"]["forwards"] == rows["tuned"]["forwards"] == 2
    assert rows["aig-power-2"]["forwards"] == 2  # g is 0 at the first of two steps and 1 at the last
    assert rows["best-of-2"]["forwards"] == 4 and rows["best-of-2"]["candidate"] in (0, 1)
    assert all(row["sha256"] == file_hash(run.evaluation / row["file"]) for row in run.images())
    known = read_json(run.evaluation / "points.json")
    assert known["points"]["base"]["lora"] is None
    assert known["points"]["tuned"]["lora"] == file_hash(run.training() / "pytorch_lora_weights.safetensors")
    assert known["points"]["aig-power-2"]["definition"]["parameters"] == {"p": 2}
    (environment,) = known["environments"]
    assert environment["scheduler"]["class"] == "DDIMScheduler"
    assert environment["versions"]["torch"] == torch.__version__


def test_the_log_has_every_micro_batch_once(run, experiment):
    wanted = [(b.point, b.prompt, list(b.seeds), "new") for b in batches_of(experiment)]
    assert sorted(sampled(run)) == sorted(wanted)


def test_scores_are_those_of_the_pictures(run):
    reward = build_reward("colourfulness")
    for row in run.images():
        image = load_image(run.evaluation / row["file"])
        assert score(reward, image[None], [row["prompt"]]).item() == pytest.approx(row["scores"]["reward"], rel=1e-5)


def test_best_of_n_is_never_worse_than_the_same_seed_of_the_base_alone(run):
    rows = rows_of(run)
    for image, row in rows.items():
        if image[0] == "best-of-2":
            alone = rows["base", *image[1:]]
            gain = row["scores"]["reward"] - alone["scores"]["reward"]
            assert gain == 0 if row["candidate"] == 0 else gain > 0
            assert (row["sha256"] == alone["sha256"]) == (row["candidate"] == 0)
    assert {row["candidate"] for image, row in rows.items() if image[0] == "best-of-2"} == {0, 1}


def test_only_what_is_missing_is_sampled_again(run, experiment):
    before, images, frontier = table(run), pictures(run), run.frontier()
    rows = run.images()
    del rows[5:7]  # from a micro-batch of three and one of one
    write_jsonl(run.evaluation / "images.jsonl", rows)
    with (run.evaluation / "images.jsonl").open("a") as file:
        file.write('{"point": "tuned", "prom')  # a kill in the middle of a line
    gone = next(row for row in rows if row["point"] == "aig-power-2")
    (run.evaluation / gone["file"]).unlink()
    (run.evaluation / "sweep.jsonl").unlink()
    assert json.loads(json.dumps(experiment.evaluate())) == frontier
    again = sampled(run)
    assert len(again) in (2, 3)
    assert again[-1][:2] == ("aig-power-2", gone["prompt"]) and gone["seed"] in again[-1][2]
    assert again[-1][3] == "missing"
    assert table(run) == before
    assert pictures(run) == images


def test_damaged_pictures_are_found_and_made_again(run, experiment):
    """As a machine that loses power, or a careless hand, may leave them."""
    before, images = table(run), pictures(run)
    (run.evaluation / "sweep.jsonl").unlink()
    hurt = random.Random(0).sample([row for row in run.images() if row["point"] != "reference"], 3)
    for row, damage in zip(
        hurt, (lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[:-20] + bytes(20)), strict=True
    ):
        path = run.evaluation / row["file"]
        path.write_bytes(damage(path.read_bytes()))
    experiment.evaluate()
    assert table(run) == before
    assert pictures(run) == images
    wanted = {(row["point"], row["prompt"]) for row in hurt}
    assert {each[:2] for each in sampled(run)} == wanted
    assert {each[3] for each in sampled(run)} == {"damaged"}


def test_nothing_missing_loads_no_pipeline(experiment, monkeypatch):
    def unwanted(*_):
        raise AssertionError("a pipeline was loaded")

    monkeypatch.setattr("sfumato.experiment.load_pipeline", unwanted)
    experiment.evaluate()


def test_the_result_does_not_depend_on_how_it_was_interrupted(run, experiment):
    frontier, images, before = run.frontier(), pictures(run), table(run)
    shutil.rmtree(run.evaluation)
    stop_after(7, experiment)
    assert 0 < len(run.images()) < len(images)
    assert json.loads(json.dumps(experiment.evaluate())) == frontier
    assert pictures(run) == images
    assert table(run) == before
    assert not list(run.evaluation.glob("rows-*")) and not list(run.evaluation.glob("log-*"))


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


def test_two_processes_give_the_table_of_one(run, tmp_path):
    before, images, log = table(run), pictures(run), tmp_path / "log"
    rows = run.images()
    for row in rows[::5]:
        (run.evaluation / row["file"]).unlink()
    (run.evaluation / "sweep.jsonl").unlink()
    both = [forked.sfumato("evaluate", run.path, log=log, **rank) for rank in ranks(free_port())]
    forked.finish(*both, log=log)
    assert table(run) == before
    assert pictures(run) == images
    records = read_jsonl(run.evaluation / "sweep.jsonl")
    assert {record["process"] for record in records} == {0, 1}
    gone = {(row["point"], row["prompt"], row["seed"]) for row in rows[::5]}
    assert {record["why"] for record in records} == {"missing"}
    done = [{(r["point"], r["prompt"], seed) for seed in r["seeds"]} for r in records]
    assert all(batch & gone for batch in done) and gone <= set.union(*done)
    assert len(done) == len({(r["point"], r["prompt"], *r["seeds"]) for r in records})
    assert log.read_text().count("operating point") == 1


def test_a_sweep_that_is_killed_before_it_samples_still_knows_what_was_lost(run, experiment):
    before = table(run)
    lost = [row for row in run.images() if row["point"] == "tuned"][:2]
    (run.evaluation / lost[0]["file"]).unlink()
    (run.evaluation / lost[1]["file"]).write_bytes(b"")
    (run.evaluation / "sweep.jsonl").unlink()
    for _ in range(2):
        sweep = Sweep(run, experiment.recipe, operating_points(experiment.recipe), experiment._instruments())
        ((batch, why),) = sweep.prepare()
        assert batch.point == "tuned" and why == "missing"
    experiment.evaluate()
    assert [each[3] for each in sampled(run)] == ["missing"]
    assert table(run) == before
    assert not (run.evaluation / "lost.json").exists()


def test_features_of_other_pictures_are_refused(run):
    features, rows = run.features(), run.images()
    assert len(features) == len(rows)
    write_jsonl(run.evaluation / "images.jsonl", rows[::-1])
    with pytest.raises(FileNotFoundError, match="those of other pictures: run `sfumato evaluate"):
        run.features()
    with pytest.raises(KeyError, match="nonesuch"):
        write_jsonl(run.evaluation / "images.jsonl", rows)
        run.features("nonesuch")


@pytest.mark.parametrize(("key", "reason"), [("lora", "new weights"), ("definition", "new definition")])
def test_new_weights_make_a_points_pictures_stale(run, experiment, key, reason):
    before = table(run)
    known = read_json(run.evaluation / "points.json")
    known["points"]["tuned-2"][key] = "another"
    write_text(run.evaluation / "points.json", json.dumps(known))
    (run.evaluation / "sweep.jsonl").unlink()
    experiment.evaluate()
    assert {each[0] for each in sampled(run)} == {"tuned-2"}
    assert {each[3] for each in sampled(run)} == {reason}
    assert table(run) == before


def test_the_base_model_draws_each_candidate_once(run, experiment):
    """The base's pictures are the first candidates of best-of-2; a draw that is kept is used unless it is damaged."""
    before, images = table(run), pictures(run)
    draws = sorted((run.evaluation / "draws").iterdir())
    untuned = [batch for batch in batches_of(experiment) if batch.point in ("reference", "base", "best-of-2")]
    assert len(draws) == len(untuned)  # the reference's, the base's, and one candidate more of each of the base's
    draws[0].write_bytes(draws[0].read_bytes()[:-5])
    draws[1].unlink()
    mark = draws[2].stat().st_mtime_ns
    for point in ("reference", "base", "best-of-2"):
        shutil.rmtree(run.evaluation / "images" / point)
    experiment.evaluate()
    assert table(run) == before and pictures(run) == images
    assert sorted((run.evaluation / "draws").iterdir()) == draws
    assert draws[2].stat().st_mtime_ns == mark


def test_another_environment_is_said(run, experiment, capsys):
    known = read_json(run.evaluation / "points.json")
    known["environments"][0]["versions"]["torch"] = "1.0"
    write_text(run.evaluation / "points.json", json.dumps(known))
    (run.evaluation / run.images()[0]["file"]).unlink()
    experiment.evaluate()
    assert "another environment (different: versions)" in capsys.readouterr().err
    assert len(read_json(run.evaluation / "points.json")["environments"]) == 2


def test_a_reward_that_is_added_scores_the_pictures_that_are_there(run, sfumato):
    count = len(sampled(run))
    assert sfumato("evaluate", run.path, "evaluation.rewards={bytes: {name: jpeg_compressibility}}").code == 0
    assert len(sampled(run)) == count
    reward = build_reward("jpeg_compressibility")
    for row in run.images()[::7]:
        image = load_image(run.evaluation / row["file"])
        wanted = score(reward, image[None], [row["prompt"]]).item()
        assert row["scores"]["bytes"] == pytest.approx(wanted, rel=1e-5)
    assert "bytes" in run.frontier()["points"][0]["metrics"]
    changed = sfumato("evaluate", run.path, "evaluation.rewards={bytes: {name: colourfulness}}")
    assert changed.code == 1 and "evaluation.rewards.bytes.name" in changed.err


def test_a_reward_that_cannot_score_is_named_and_can_be_left_out(run, sfumato):
    broken = sfumato("evaluate", run.path, "evaluation.rewards={bad: tests.rewards_of_users:nan}")
    assert broken.code == 1 and "bad: reward " in broken.err
    assert sfumato("evaluate", run.path, "evaluation.rewards={bad: colourfulness}").code == 0
    assert "bad" in run.frontier()["points"][0]["metrics"]
    assert sfumato("evaluate", run.path, "evaluation.rewards={}").code == 0


def test_rows_of_processes_count_before_they_are_merged(run):
    rows = run.images()
    write_jsonl(run.evaluation / "images.jsonl", rows[:-2])
    append_jsonl(run.evaluation / "rows-0.jsonl", rows[-2:-1])
    append_jsonl(run.evaluation / "rows-1.jsonl", rows[-1:])
    assert run.images() == rows


def test_the_plan_is_cut_by_prompt(experiment):
    batches = batches_of(experiment)
    base = [batch for batch in batches if batch.point == "base"]
    reference = [batch for batch in batches if batch.point == "reference"]
    assert [len(batch.seeds) for batch in base] == [3, 1] * 3 + [2] * 2
    assert [batch.group for batch in base] == ["main"] * 6 + ["unrelated"] * 2
    assert [batch.prompt for batch in base[:6]] == [batch.prompt for batch in reference]
    assert [batch.prompt_index for batch in base] == [0, 0, 1, 1, 2, 2, 3, 4]
    config = experiment.recipe.evaluation
    assert reference[0].seeds[0] == config.seed + config.images_per_prompt
    assert to_sample(batches, dict.fromkeys(image for batch in batches[1:] for image in batch.images)) == batches[:1]


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
