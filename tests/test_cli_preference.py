"""`sfumato preference train` and `check`, from files to a reward that trains."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
import yaml

from sfumato.preferences import load_pairs
from sfumato.rewards import PreferenceReward, build_reward
from sfumato.trained import weights_in
from tests import forked
from tests.preferences.world import PROMPTS, write_pairs
from tests.rewards.tiny_clip import save_tiny_clip
from tests.tiny_run import write_recipe
from tests.training.test_processes import free_port, ranks

QUICK = ["training.steps=40", "training.lr=0.02", "training.evaluate_every=10"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with pairs.jsonl, 64 pairs of 32 prompts, and held.jsonl, 24 of 8 others."""
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder, 64, seed=0, name="pairs")
    write_pairs(folder, 24, seed=1, prompts=[prompt + "z" for prompt in PROMPTS[:8]], name="held")
    return folder


@pytest.fixture(scope="module")
def learned(clip, data, tmp_path_factory):
    """What the command line printed, and the folder."""
    folder, log = tmp_path_factory.mktemp("learned") / "my_reward", tmp_path_factory.mktemp("log") / "log"
    settings = [f"model={clip}", f"pairs={data / 'pairs.jsonl'}", f"held_out={data / 'held.jsonl'}", f"folder={folder}"]
    forked.finish(forked.sfumato("preference", "train", *settings, *QUICK, log=log), log=log)
    return log.read_text(), folder


def test_it_prints_how_good_the_reward_is_and_shows_how_far_it_is(learned):
    printed, folder = learned
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["accuracy"] > 0.8 and report["held_out"] == 24 and report["leaks"] is None
    assert f"accuracy {report['accuracy']:.1%} on 22 held-out pairs without ties, 95 % interval" in printed
    assert f"reward: {{name: preference, model: {folder}}}" in printed and f"page: {folder}/evaluation.html" in printed
    assert re.search(r"reward: *\d+%.*/40 \[.*<.*loss=.*held out=.*accuracy=", printed), "progress with time left"


def test_the_page_needs_nothing_but_itself_and_shows_the_figures(learned):
    _, folder = learned
    page, report = (folder / "evaluation.html").read_text(), json.loads((folder / "evaluation.json").read_text())
    assert not re.search(r"(src|href)=", page) and "http" not in page.replace("http-equiv", "")
    charts = dict(re.findall(r'<svg .*?aria-label="(\w+).*?>(.*?)</svg>', page, re.S))
    assert charts.keys() == {"Reliability", "Learning", "Loss"}
    bins = len(report["calibration"]["bins"]) + len(report["uncalibrated"]["bins"])
    assert charts["Reliability"].count('class="dot"') == bins
    assert charts["Learning"].count('class="dot"') == 4 and ">64</text>" in charts["Learning"]
    assert f"{round(100 * report['accuracy'])}\N{NO-BREAK SPACE}%" in page


def test_the_reward_is_taken_by_a_training_at_once(learned, world, tmp_path, sfumato):
    recipe = write_recipe(tmp_path / "recipe.yaml", world, reward={"name": "preference"}, evaluation=None)
    run = tmp_path / "run"
    changes = ["training.steps=1", "training.checkpoint_every=1", "training.monitor_every=null"]
    done = sfumato("train", recipe, f"reward.model={learned[1]}", f"run={run}", *changes)
    assert done.code == 0, done.err
    assert weights_in(run / "training" / "tuned")


def test_a_recipe_in_yaml_a_share_held_out_and_an_ensemble(clip, data, tmp_path, sfumato):
    settings = {"model": str(clip), "pairs": [str(data / "pairs.jsonl")], "held_out": 0.25}
    training = {"members": 2, "curve": [], "steps": 20, "lr": 0.02, "evaluate_every": 10}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**settings, "training": training}))
    done = sfumato("preference", "train", tmp_path / "recipe.yaml", f"folder={tmp_path / 'out'}")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["held_out"] == 16 and report["pairs"] == 48 and report["leaks"] is None
    images = torch.rand(2, 3, 16, 16)
    reward = build_reward({"name": "preference", "model": str(tmp_path / "out")})
    assert reward(images, ["ab", "cd"]).shape == (2,) and len(reward.rewards) == 2
    again = sfumato("preference", "train", tmp_path / "out")
    assert again.code == 0 and again.out == done.out
    other = sfumato("preference", "train", tmp_path / "out", "training.seed=5")
    assert other.code == 1 and "holds a reward of another recipe (different: training)" in other.err


def test_two_processes_learn_the_reward_of_one(clip, data, learned, tmp_path):
    """From Pick-a-Pic's schema, whose images only one of them writes out."""
    rows = [
        {
            "caption": pair.prompt,
            **{f"jpg_{i}": Path(path).read_bytes() for i, path in enumerate((pair.image_0, pair.image_1))},
            "label_0": pair.label,
            "label_1": 1 - pair.label,
        }
        for pair in load_pairs(data / "pairs.jsonl")
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    folder, log = tmp_path / "two", tmp_path / "log"
    settings = [f"model={clip}", f"pairs={tmp_path / 'pairs.parquet'}", f"held_out={data / 'held.jsonl'}"]
    command = ["preference", "train", *settings, f"folder={folder}", *QUICK]
    forked.finish(*(forked.sfumato(*command, log=log, **rank) for rank in ranks(free_port())), log=log)
    images, prompts = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0)), ["ab", "cd", "ef", "gh"]
    one, two = (PreferenceReward(path)(images, prompts) for path in (learned[1], folder))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-3)
    assert log.read_text().count("accuracy ") == 1


BAD = {
    "empty": ("", "there are no pairs in"),
    "missing column": ('{"prompt": "x", "image_0": "a.png", "label": 1}', "there is no image_1 or jpg_1, only prompt"),
    "no image": (
        '{"prompt": "x", "image_0": "no.png", "image_1": "b.txt", "label": 1}\n'
        '{"prompt": "x", "image_0": "no.png", "image_1": "b.txt", "label": 0}',
        "2 of 2 images cannot be read, such as .*no.png (not there), .*b.txt (no image): see `sfumato preference",
    ),
    "one class": (
        '{"prompt": "x", "image_0": "a.png", "image_1": "a.png", "label": 0}',
        "no label but 0 among those that are no ties: the column may have been misread; if image_1 is always",
    ),
    "all ties": ('{"prompt": "x", "image_0": "a.png", "image_1": "a.png", "label": 0.5}', "all labels are ties"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pairs_are_one_error_before_any_work(case, tmp_path, sfumato):
    text, message = BAD[case]
    (tmp_path / "b.txt").touch()
    (tmp_path / "pairs.jsonl").write_text(text)
    out = tmp_path / "out"
    done = sfumato("preference", "train", "model=/nowhere", f"pairs={tmp_path / 'pairs.jsonl'}", f"folder={out}")
    assert done.code == 1 and not out.exists() and done.err.count("error:") == 1
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), done.err), done.err


def test_other_mistakes_are_named(data, tmp_path, sfumato):
    done = sfumato("preference", "train", "model=x", f"pairs={tmp_path / 'no.jsonl'}", f"folder={tmp_path / 'out'}")
    assert done.code == 1 and "no.jsonl" in done.err
    for share in ("[]", "1", "0", "true"):
        done = sfumato("preference", "train", "model=x", "pairs=x", "folder=y", f"held_out={share}")
        assert done.code == 1 and "held_out: give files, or a share between 0 and 1, not" in done.err
    done = sfumato("preference", "train", "model=x", "pears=x", "folder=y")
    assert done.code == 1 and "unknown key 'pears': did you mean 'pairs'?" in done.err
    done = sfumato("preference", "train", f"model={tmp_path}", f"pairs={data / 'pairs.jsonl'}", f"folder={tmp_path}")
    assert done.code == 1 and "has no config.json: give the folder or hub id of a CLIP or SigLIP" in done.err


def test_a_folder_in_which_nothing_was_learned_is_not_taken(clip, data, tmp_path, sfumato):
    shutil.copytree(clip, tmp_path / "clip")
    settings = [f"model={tmp_path / 'clip'}", f"pairs={data / 'pairs.jsonl'}", f"folder={tmp_path / 'out'}"]
    settings += ["training.curve=[]", "training.steps=2"]
    weights = tmp_path / "clip" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    broken = sfumato("preference", "train", *settings)
    assert broken.code == 1 and "damaged" in broken.err
    weights.write_bytes(whole)
    assert sfumato("preference", "train", *settings, "training.seed=3").code == 0


def test_check_counts_and_exits_with_1_on_errors_only(data, tmp_path, sfumato):
    files = [data / "pairs.jsonl", data / "held.jsonl"]
    sound = sfumato("preference", "check", *files)
    assert sound.code == 0 and sound.out.endswith("nothing is wrong\n")
    assert "pairs.jsonl: 64 pairs of 32 prompts and 128 images; image_0 preferred in" in sound.out
    shutil.copytree(data, tmp_path / "data")
    held = tmp_path / "data" / "held.jsonl"
    lines = held.read_text().splitlines(keepends=True)
    held.write_text("".join([*lines, lines[-1]]))
    warned = [sfumato("preference", "check", files[0], held, *strict) for strict in ([], ["--strict"])]
    assert [each.code for each in warned] == [0, 1] and "warning: " in warned[0].out
    (tmp_path / "data" / "held" / "5.png").unlink()
    wrong = sfumato("preference", "check", files[0], held, "--json")
    found = json.loads(wrong.out)
    assert wrong.code == 1 and [each["pairs"] for each in found["splits"]] == [64, 25]
    assert [(each["level"], each["kind"]) for each in found["findings"]] == [
        ("error", "missing images"),
        ("warning", "duplicates"),
    ]
