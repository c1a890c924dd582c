"""`sfumato diagnose` on runs with painted pictures: the verdict, the file, the evidence, and what is missing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sfumato.cli.diagnose import OWN
from sfumato.diagnosis import diagnose
from sfumato.diagnosis.diagnose import SIGNS, verdict
from sfumato.runs import Run, read_jsonl, write_jsonl
from tests.diagnosis import bed


def levels(result):
    return {finding["name"]: finding["level"] for finding in result["findings"]}


def test_a_model_that_gained_honestly_is_sound(tmp_path):
    run = bed.make_run(tmp_path / "run", tuned=lambda pixels: np.clip(pixels + 0.01, 0, 1))
    bed.log(run, [0.1, 0.2, 0.3, 0.35, 0.4])
    result = diagnose(run)
    assert result["verdict"] == "sound", result["sentences"]
    assert set(levels(result).values()) == {"ok"} and len(result["sentences"]) == 1
    assert result["prompts"] == bed.PROMPTS and result["images_per_prompt"] == bed.IMAGES


def test_a_saturated_model_took_a_shortcut_and_shows_it(tmp_path):
    run = bed.make_run(tmp_path / "run", tuned=bed.saturated, gain=0)
    result = diagnose(run)
    assert result["verdict"] == "hacked"
    shortcut = next(finding for finding in result["findings"] if finding["name"] == "shortcuts")
    assert shortcut["level"] == "alarm" and "raised colour saturation" in shortcut["text"]
    assert shortcut["numbers"]["saturation"]["liked"]["mean"] > 0.5
    (sheet,) = shortcut["evidence"]
    with Image.open(run.path / sheet["file"]) as image:
        colours = np.asarray(image).astype(float)
    assert colours.shape[1] > bed.IMAGES * 96 and (colours.max(2) - colours.min(2)).max() > 200
    assert "same seeds" in sheet["caption"]


def test_a_texture_on_every_picture_is_seen_though_the_base_has_none(tmp_path):
    result = diagnose(bed.make_run(tmp_path / "run", tuned=bed.gridded))
    assert levels(result)["shortcuts"] in ("warn", "alarm")
    assert {"grid", "high_frequency"} & {
        key for key, entry in result["findings"][3]["numbers"].items() if entry["low"] > 1
    }


def test_gold_that_falls_is_an_alarm(tmp_path):
    result = diagnose(bed.make_run(tmp_path / "run", gold=-1.0))
    assert levels(result)["rewards"] == "alarm" and result["verdict"] == "hacked"
    assert "gold fell" in result["sentences"][1] and "hacked" in result["sentences"][0]


def test_one_picture_for_everything_is_found_in_every_way(tmp_path):
    one = bed.picture(0, np.random.default_rng(0))
    result = diagnose(bed.make_run(tmp_path / "run", tuned=lambda pixels: one))
    found = levels(result)
    assert {name for name in found if found[name] == "alarm"} >= {"diversity", "duplicates", "prompts"}
    duplicates = next(finding for finding in result["findings"] if finding["name"] == "duplicates")
    assert duplicates["numbers"]["exact"] == {"base": 0, "point": bed.PROMPTS * bed.IMAGES}
    assert len(duplicates["evidence"]) == 2


def test_the_log_tells_the_last_good_checkpoint(tmp_path):
    run = bed.make_run(tmp_path / "run")
    bed.log(run, [0.2, 0.5, 0.62, 0.52, 0.36, 0.16])
    bed.log(run, [0.2, 0.3, 0.4, 0.45, 0.5, 0.55], "kl")
    found = diagnose(run)["findings"][-1]
    assert found["name"] == "training" and found["level"] == "alarm"
    assert found["numbers"]["last_good_checkpoint"] == "training/tuned/checkpoint-000020"
    assert "peaked at update 20" in found["text"] and (run.path / found["evidence"][0]["file"]).exists()
    assert levels(diagnose(run, training="kl"))["training"] == "ok"


BLEND = bed.described("aig-power-4", "AIG power 4", {"kind": "guidance", "schedule": "power"})


def checkpoint(update):
    definition = {"kind": "tuned", "training": "tuned", "checkpoint": update}
    return bed.described(f"tuned-{update}", f"tuned, update {update}", definition)


def test_a_checkpoint_is_judged_by_what_came_before_it(tmp_path):
    run = bed.make_run(tmp_path / "run")
    bed.log(run, [0.2, 0.5, 0.62, 0.52, 0.36, 0.16])
    bed.add_points(run, [checkpoint(10), checkpoint(30), checkpoint(50)])
    early = diagnose(run, "tuned-10")["findings"][-1]
    assert early["name"] == "training" and early["level"] == "unknown"
    assert "log of training tuned up to update 10 does not watch" in early["text"]
    middle = diagnose(run, "tuned-30", training="tuned")["findings"][-1]
    assert middle["level"] == "ok" and middle["numbers"]["gold"]["end_update"] == 30
    late = diagnose(run, "tuned-50")["findings"][-1]
    assert late["level"] == "alarm" and "up to update 50, gold peaked at update 20" in late["text"]


def test_a_blend_has_no_log_unless_one_is_named(tmp_path):
    run = bed.make_run(tmp_path / "run")
    bed.log(run, [0.2, 0.5, 0.62, 0.52, 0.36, 0.16])
    bed.add_points(run, [BLEND])
    assert "training" not in levels(diagnose(run, "aig-power-4"))
    assert levels(diagnose(run, "aig-power-4", training="tuned"))["training"] == "alarm"


def test_without_frontier_a_training_is_known_by_its_name(tmp_path):
    run = bed.make_run(tmp_path / "run")
    bed.log(run, [0.2, 0.5, 0.62, 0.52, 0.36, 0.16])
    (run.evaluation / "frontier.json").unlink()
    assert levels(diagnose(run))["training"] == "alarm"


def test_another_point_leaves_the_verdict_of_the_run_alone(tmp_path, sfumato):
    run = bed.make_run(tmp_path / "run", gold=-1.0)
    bed.log(run, [0.1, 0.2, 0.3, 0.35, 0.4], "kl")
    bed.add_points(run, [BLEND])
    assert diagnose(run, "tuned")["file"] == "evaluation/diagnosis.json"
    own = {path: path.read_bytes() for path in [*run.evaluation.glob("diagnosis*/*.png"), run.path / OWN]}
    outcome = sfumato("diagnose", run.path, "--point", "AIG power 4")
    assert outcome.out.startswith("hacked: AIG power 4 is hacked")
    assert f"{run.evaluation.as_posix()}/diagnosis-aig-power-4.json\nThe report shows the run's own" in outcome.out
    other = json.loads((run.evaluation / "diagnosis-aig-power-4.json").read_text())
    assert other["point"] == "aig-power-4"
    files = [sheet["file"] for finding in other["findings"] for sheet in finding["evidence"]]
    assert files and all(file.startswith("evaluation/diagnosis-aig-power-4/") for file in files)
    assert diagnose(run, training="kl")["file"] == "evaluation/diagnosis-tuned.json"
    assert len(own) > 1 and all(path.read_bytes() == content for path, content in own.items())


def test_an_evaluation_under_way_is_refused(tmp_path, sfumato):
    run = bed.make_run(tmp_path / "run")
    rows = read_jsonl(run.evaluation / "images.jsonl")
    write_jsonl(run.evaluation / "rows-0.jsonl", rows[: len(rows) // 2])
    (run.evaluation / "images.jsonl").unlink()
    outcome = sfumato("diagnose", run.path)
    assert outcome.code == 1 and not (run.path / OWN).exists()
    assert f"is not finished: run `sfumato evaluate {run.path}`" in outcome.err


def test_without_reference_the_base_is_divided(tmp_path):
    run = bed.make_run(tmp_path / "run", tuned=bed.saturated, reference=False, images=12)
    result = diagnose(run)
    assert result["images_per_prompt"] == 6 and levels(result)["shortcuts"] == "alarm"


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        ({"rewards": ("reward",)}, {"rewards", "training"}),
        ({"rewards": ()}, {"rewards", "training"}),
        ({"with_features": False}, {"diversity", "duplicates", "prompts", "training"}),
        ({"prompts": 5}, {*SIGNS, "training"}),
        ({"prompts": 1}, {*SIGNS, "training"}),
        ({"images": 3}, {*SIGNS, "training"}),
    ],
)
def test_what_is_missing_is_unknown(tmp_path, missing, unknown):
    result = diagnose(bed.make_run(tmp_path / "run", **missing))
    assert {name for name, level in levels(result).items() if level == "unknown"} == unknown
    assert result["verdict"] == "unknown"


def test_grey_pictures_are_unknown(tmp_path):
    run = bed.make_run(tmp_path / "run", with_features=False, rewards=())
    for row in run.images():
        Image.new("L", (bed.SIZE, bed.SIZE), 128).save(run.evaluation / row["file"])
    result = diagnose(run)
    assert levels(result)["shortcuts"] == "unknown" and result["verdict"] == "unknown"


def test_prompts_and_images_that_one_side_lacks_are_left_out(tmp_path):
    run = bed.make_run(tmp_path / "run")
    table = run.evaluation / "images.jsonl"
    rows = read_jsonl(table)
    gone = [row for row in rows if row["prompt"] == "prompt 9" and row["point"] == "tuned"]
    gone += [row for row in rows if row["prompt"] == "prompt 2" and row["point"] == "base"][:2]
    unrelated = [row | {"group": "unrelated", "prompt": "another"} for row in rows[:5]]
    write_jsonl(table, [row for row in rows if row not in gone] + unrelated)
    (run.evaluation / "features.safetensors").unlink()
    result = diagnose(run)
    assert result["prompts"] == bed.PROMPTS - 1 and result["images_per_prompt"] == bed.IMAGES - 2


def test_the_verdict_follows_its_rule():
    fine = dict.fromkeys(SIGNS, "ok")
    assert verdict(fine) == "sound"
    assert verdict(fine | {"duplicates": "unknown"}) == "sound"
    assert verdict(fine | {"diversity": "unknown"}) == "unknown"
    assert verdict(fine | {"modes": "warn"}) == verdict(fine | {"modes": "alarm"}) == "suspicious"
    assert verdict(fine | {"modes": "alarm", "prompts": "alarm"}) == "hacked"
    assert verdict(fine | {"rewards": "alarm"}) == verdict(fine | {"shortcuts": "alarm"}) == "hacked"


def test_the_command_prints_writes_and_fails_on_request(tmp_path, sfumato):
    run = bed.make_run(tmp_path / "run", gold=-1.0)
    outcome = sfumato("diagnose", run.path)
    assert outcome.code == 0 and outcome.out.startswith("hacked: tuned is hacked") and outcome.err == ""
    assert "[alarm] Reward against other rewards" in outcome.out
    written = json.loads((run.evaluation / "diagnosis.json").read_text())
    assert written == diagnose(run)
    assert [set(finding) for finding in written["findings"]] == 7 * [
        {"name", "level", "title", "text", "numbers", "evidence"}
    ]
    assert all((run.path / e["file"]).exists() for finding in written["findings"] for e in finding["evidence"])
    assert sfumato("diagnose", run.path, "--fail-on", "alarm").code == 3
    sound = bed.make_run(tmp_path / "sound")
    assert sfumato("diagnose", sound.path, "--fail-on", "warn").code == 0


def test_what_cannot_be_diagnosed_is_refused_with_what_to_do(tmp_path, sfumato):
    run = bed.make_run(tmp_path / "run", prompts=2, images=2)
    assert "there is no point 'x': choose one of tuned" in sfumato("diagnose", run.path, "--point", "x").err
    assert "there is no point 'tund': did you mean 'tuned'?" in sfumato("diagnose", run.path, "--point", "tund").err
    assert "there is no training 'x'" in sfumato("diagnose", run.path, "--training", "x").err
    empty = Run.create(tmp_path / "empty", {}, "empty")
    outcome = sfumato("diagnose", empty.path)
    assert outcome.code == 1 and f"run `sfumato evaluate {empty.path}` first" in outcome.err
    shutil.rmtree(run.evaluation / "images")
    assert "is gone" in sfumato("diagnose", run.path).err
