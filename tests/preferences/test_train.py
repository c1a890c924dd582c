"""The reward's folder: what is in it, that it is a reward at once, and that a kill leaves nothing broken."""

import json
import math
import os
import signal
import time

import pytest
import torch
from transformers import CLIPModel

from sfumato.preferences import PreferenceTraining, evaluate_preference, fit_temperature, train_preference
from sfumato.rewards import PreferenceReward, build_reward
from tests import forked
from tests.preferences.test_fit import planted
from tests.rewards.tiny_clip import save_tiny_clip

QUICK = {"steps": 60, "lr": 0.02, "evaluate_every": 20, "curve": []}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def world():
    return planted()


def train(clip, world, folder, **settings):
    images, pairs, held_out = world
    config = PreferenceTraining(**{**QUICK, **settings})
    return train_preference(clip, pairs, held_out, folder, config, images.__getitem__)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": 8},
        {"calibrate": False},
        {"steps": 30, "lr": 2e-3, "trainable": "full", "batch_size": 16, "evaluate_every": 15},
        {"steps": 60, "lr": 2e-3, "trainable": "full", "hidden": None, "evaluate_every": 15},
        {"members": 3},
        {"members": 2, "bootstrap": False, "trainable": "full", "lr": 2e-3, "steps": 30, "disagreement": 0.3},
    ],
    ids=["linear", "hidden", "as it is", "full", "no head", "ensemble", "full ensemble"],
)
def test_a_planted_preference_is_learned(clip, world, tmp_path, settings):
    images, _, held_out = world
    read, folder = images.__getitem__, tmp_path / "reward"
    before = evaluate_preference(PreferenceReward(clip), held_out, read)
    report = train(clip, world, folder, **settings)
    reward = build_reward({"name": "preference", "model": str(folder)})
    after = evaluate_preference(reward, held_out, read)
    assert after.accuracy >= 0.85 > 0.5 > before.accuracy and after.low > 0.7
    assert after.loss < math.log(2) < before.loss
    assert after.accuracy == report["accuracy"] and after.loss == pytest.approx(report["loss"], rel=1e-3)
    assert json.loads((folder / "evaluation.json").read_text()) == report
    full, members = settings.get("trainable") == "full", settings.get("members", 1)
    assert len(list(folder.rglob("model.safetensors"))) == full * members
    assert not (folder / "training").exists()
    assert report["pairs"] == len(world[1])
    assert len(report["members"]) == members and report["leaks"].startswith("0 images and 1 prompts")


def test_it_is_calibrated_on_the_held_out_pairs_and_centred_on_their_images(clip, world, tmp_path):
    images, _, held_out = world
    report = train(clip, world, tmp_path, hidden=4)
    reward = PreferenceReward(tmp_path)
    rewards = [
        reward(torch.stack([images[pair.image_0], images[pair.image_1]]), [pair.prompt] * 2) for pair in held_out
    ]
    rewards = torch.stack(rewards)
    labels = torch.tensor([pair.label for pair in held_out])
    assert fit_temperature(rewards[:, 0] - rewards[:, 1], labels) == pytest.approx(1, rel=1e-3)
    assert rewards.mean().item() == pytest.approx(0, abs=1e-4)
    look = min(report["members"][0]["looks"], key=lambda look: look["loss"])
    assert report["loss"] < look["loss"] + 0.01 and report["accuracy"] == look["accuracy"]
    assert report["calibration"]["ece"] != report["uncalibrated"]["ece"]


def test_an_ensemble_is_the_mean_of_its_members_less_their_disagreement(clip, world, tmp_path):
    train(clip, world, tmp_path, members=3, disagreement=0.7)
    pictures = torch.stack([world[0][str(i)] for i in range(4)])
    members = torch.stack([PreferenceReward(tmp_path / f"member-{i}")(pictures, ["cat"] * 4) for i in range(3)])
    assert members.std(0).min() > 0
    expected = members.mean(0) - 0.7 * members.std(0, correction=0)
    torch.testing.assert_close(
        build_reward({"name": "preference", "model": str(tmp_path)})(pictures, ["cat"] * 4), expected
    )
    with pytest.raises(ValueError, match="holds an ensemble of 3 rewards: build_reward loads it"):
        PreferenceReward(tmp_path)


def test_without_a_head_it_is_a_plain_clip_that_pickscore_reads(clip, world, tmp_path):
    train(clip, world, tmp_path, trainable="full", hidden=None, lr=2e-3, steps=20)
    report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)[1]
    assert not report["missing_keys"] and not (tmp_path / "preference.json").exists()


def test_the_learning_curve_has_a_point_for_each_share_and_the_whole(clip, world, tmp_path):
    for members, folder in ((1, "one"), (2, "two")):
        report = train(clip, world, tmp_path / folder, curve=None, members=members)
        assert [each["pairs"] for each in report["curve"]] == [9, 18, 35, 70]
        assert all(each["low"] < each["accuracy"] < each["high"] for each in report["curve"])
    whole = train(clip, world, tmp_path / "one", curve=None)
    assert whole["curve"][-1]["accuracy"] == whole["accuracy"]


def test_pairs_to_report_on_decide_nothing(clip, world, tmp_path):
    images, pairs, held_out = world
    config = PreferenceTraining(**QUICK)
    reports = [
        train_preference(clip, pairs, held_out[:15], tmp_path / name, config, images.__getitem__, test)
        for name, test in (("a", []), ("b", held_out[15:]))
    ]
    heads = [(tmp_path / name / "head.safetensors").read_bytes() for name in "ab"]
    assert heads[0] == heads[1] and [each["reported_on"] for each in reports] == ["held_out", "test"]
    found = evaluate_preference(PreferenceReward(tmp_path / "b"), held_out[15:], images.__getitem__)
    assert reports[1]["accuracy"] == found.accuracy and reports[1]["decided"] == 15


def test_done_it_is_not_done_again_and_another_training_is_refused(clip, world, tmp_path):
    report = train(clip, world, tmp_path)
    before = (tmp_path / "head.safetensors").stat().st_mtime_ns
    assert train(clip, world, tmp_path) == report
    assert (tmp_path / "head.safetensors").stat().st_mtime_ns == before
    for changed, settings in ((world, {"seed": 1}), ((world[0], world[1][1:], world[2]), {})):
        with pytest.raises(ValueError, match=r"holds a reward learned in another way .*choose another folder"):
            train(clip, changed, tmp_path, **settings)


SLOW = {"members": 2, "curve": [0.5], "steps": 40, "evaluate_every": 5, "hidden": 4, "patience": 99}


def train_slowly(clip, folder, wait):
    """Every look takes a while, so that a kill finds the training at work."""
    from sfumato.preferences import fit

    look = fit.PreferenceFit._look

    def slow(self, loss):
        time.sleep(wait)
        return look(self, loss)

    fit.PreferenceFit._look = slow
    train(clip, planted(), folder, **SLOW)


@pytest.mark.parametrize("progress", ["member-0.safetensors", "member-1.safetensors", "share-0.5.safetensors"])
def test_killed_at_work_it_ends_as_if_it_had_not_been(clip, world, tmp_path, progress):
    whole = train(clip, world, tmp_path / "whole", **SLOW)
    folder, log = tmp_path / "killed", tmp_path / "log"
    process = forked.start(train_slowly, clip, folder, 0.05, log=log)
    until = time.monotonic() + 120
    while not (folder / "training" / progress).exists():
        assert process.is_alive() and time.monotonic() < until, log.read_text()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (folder / "evaluation.json").exists()
    with pytest.raises(ValueError, match="another way \\(seed\\)"):
        train(clip, world, folder, **{**SLOW, "seed": 3})
    assert train(clip, world, folder, **SLOW) == whole
    for name in ("member-0", "member-1"):
        heads = [(tmp_path / each / name / "head.safetensors").read_bytes() for each in ("whole", "killed")]
        assert heads[0] == heads[1]
