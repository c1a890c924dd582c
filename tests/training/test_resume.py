"""A training that was interrupted, in whatever way, ends as one that was not."""

import json
import resource
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import Run, atomic_path, read_jsonl
from sfumato.trained import atomic_folder, weights_hash, weights_in
from sfumato.training import DDPO, SFT, AlignProp, CheckpointError, DiffusionDPO, Draft, DraftLV, FlowGRPO, ReFL
from sfumato.training.checkpoints import INFO, STATE
from tests import forked
from tests.tiny_run import RECIPE, write_recipe
from tests.training.common import NOISY, make_trainer

OPTIONS = {
    "regularizers": {"kl": {"coefficient": 0.1}},
    "ema_decay": 0.5,
    "checkpoint_every": 2,
    "steps": 5,
    "weight_decay": 0.01,
}


def without_seconds(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def assert_same_training(folder, wanted):
    assert weights_hash(weights_in(folder)) == weights_hash(weights_in(wanted))
    found, expected = (without_seconds(read_jsonl(each / "metrics.jsonl")) for each in (folder, wanted))
    assert found == expected


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    make_trainer(folder, **OPTIONS).run()
    return folder


def interrupted(folder, updates, **changes):
    """A training that stops right after some updates, as a kill would."""
    for record in make_trainer(folder, **{**OPTIONS, **changes}):
        if record["update"] == updates:
            return folder
    raise AssertionError("it was not interrupted")


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_it_continues_bit_for_bit(updates, uninterrupted, tmp_path):
    interrupted(tmp_path, updates)
    records = make_trainer(tmp_path, **OPTIONS).run()
    assert [record["update"] for record in records] == list(range(updates // 2 * 2 + 1, 6))
    assert_same_training(tmp_path, uninterrupted)


GROUPS = {"images_per_prompt": 2, "batch_size": 4, "micro_batch_size": 2}
EVERY_OBJECTIVE = {
    "draft_lv": {"objective": DraftLV(1)},
    "align_prop": {"objective": AlignProp()},
    "refl": {"objective": ReFL((0.0, 1.0))},
    "ddpo": {"objective": DDPO(steps=1, inner_epochs=2, minibatches=2), "sampling": NOISY["sd"], **GROUPS},
    "flow_grpo": {"objective": FlowGRPO(window=1, window_range=(0, 3)), "family": "sd3", "sampling": NOISY["sd3"]}
    | GROUPS,
    "diffusion_dpo": {"objective": DiffusionDPO(50.0), "regularizers": {}},
    "sft": {"objective": SFT(), "regularizers": {}},
    "whole_denoiser": {"lora": None, "lr": 1e-3},
}


@pytest.mark.parametrize("own", EVERY_OBJECTIVE.values(), ids=EVERY_OBJECTIVE)
def test_every_objective_continues_bit_for_bit(own, tmp_path):
    regularizers = {"kl": {"coefficient": 0.1, "span": [0, 1]}, "distillation": {"coefficient": 0.1}}
    shaping = {"normalize": True, "clip": [None, 2.0]}
    changes = {**OPTIONS, "regularizers": regularizers, "shaping": shaping, "steps": 4, **own}
    make_trainer(tmp_path / "plain", **changes).run()
    interrupted(tmp_path / "killed", 3, **changes)
    make_trainer(tmp_path / "killed", **changes).run()
    assert_same_training(tmp_path / "killed", tmp_path / "plain")


def test_a_kill_between_the_last_checkpoint_and_the_lora(uninterrupted, tmp_path):
    make_trainer(tmp_path, **OPTIONS).run()
    (tmp_path / WEIGHTS_NAME).unlink()
    assert make_trainer(tmp_path, **OPTIONS).run() == []
    assert_same_training(tmp_path, uninterrupted)


def test_a_kill_in_the_middle_of_a_line_and_of_a_checkpoint(uninterrupted, tmp_path):
    interrupted(tmp_path, 3)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"update": 4, "loss": 0.')
    partial = tmp_path / ".checkpoint-000004.partial"
    partial.mkdir()
    (partial / STATE).write_bytes(b"half")
    make_trainer(tmp_path, **OPTIONS).run()
    assert_same_training(tmp_path, uninterrupted)
    assert not partial.exists()


def test_nothing_is_left_of_what_a_kill_cut_short(tmp_path):
    files = [atomic_path(tmp_path / name) for name in ("metrics.jsonl", WEIGHTS_NAME)]
    folder = atomic_folder(tmp_path / "checkpoint-000003")  # of a command with another checkpoint_every
    left = [write.__enter__() for write in (*files, folder)]
    assert all(path.exists() for path in left)
    make_trainer(tmp_path, **OPTIONS).run()
    assert not list(tmp_path.glob(".*"))


def test_a_finished_training_has_nothing_to_do(tmp_path):
    make_trainer(tmp_path, **OPTIONS).run()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert make_trainer(tmp_path, **OPTIONS).run() == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_more_steps_continue_a_finished_training(uninterrupted, tmp_path):
    make_trainer(tmp_path, **{**OPTIONS, "steps": 2}).run()
    make_trainer(tmp_path, **OPTIONS).run()
    assert_same_training(tmp_path, uninterrupted)


def test_fewer_steps_than_done_are_refused(tmp_path):
    make_trainer(tmp_path, **OPTIONS).run()
    with pytest.raises(CheckpointError, match="5 updates already, more than"):
        make_trainer(tmp_path, **{**OPTIONS, "steps": 3})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.5}, "lr"),
        ({"objective": Draft(2)}, "objective"),
        ({"batch_size": 3, "seed": 1}, "batch_size, seed"),
        ({"steps": 9, "lr_schedule": "cosine"}, "lr_schedule, steps"),
    ],
)
def test_other_settings_are_refused(changes, named, tmp_path):
    interrupted(tmp_path, 2)
    with pytest.raises(CheckpointError, match=f"other settings \\({named}\\)"):
        make_trainer(tmp_path, **{**OPTIONS, **changes})


def test_old_checkpoints_keep_their_lora_and_lose_the_rest(tmp_path):
    make_trainer(tmp_path, **{**OPTIONS, "checkpoint_every": 1}).run()
    folders = sorted(tmp_path.glob("checkpoint-*"))
    assert [folder.name for folder in folders] == [f"checkpoint-{update:06d}" for update in range(1, 6)]
    assert [(folder / STATE).exists() for folder in folders] == [False, False, False, True, True]
    assert all((folder / WEIGHTS_NAME).exists() for folder in folders)
    assert (folders[-1] / WEIGHTS_NAME).read_bytes() == (tmp_path / WEIGHTS_NAME).read_bytes()


def test_a_damaged_checkpoint_is_named_and_the_one_before_continues(uninterrupted, tmp_path):
    interrupted(tmp_path, 4)
    damaged = tmp_path / "checkpoint-000004"
    content = (damaged / STATE).read_bytes()
    (damaged / STATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint-000004 is damaged .*: delete it to continue from the one"):
        make_trainer(tmp_path, **OPTIONS)
    for path in damaged.iterdir():
        path.unlink()
    damaged.rmdir()
    make_trainer(tmp_path, **OPTIONS).run()
    assert_same_training(tmp_path, uninterrupted)


def test_another_number_of_processes_is_refused(tmp_path):
    interrupted(tmp_path, 2)
    path = tmp_path / "checkpoint-000002" / INFO
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "fingerprint": {**info["fingerprint"], "processes": 4}}))
    with pytest.raises(CheckpointError, match="by 4 processes, and 1 would round sums differently: start as many"):
        make_trainer(tmp_path, **OPTIONS)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    interrupted(tmp_path, 2)
    path = tmp_path / "checkpoint-000002" / STATE
    state = load_file(path)
    save_file({**state, "parameter.0": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="cannot be continued, its weights are not those that are trained here"):
        make_trainer(tmp_path, **OPTIONS)


def test_a_full_disk_at_a_checkpoint_leaves_the_earlier_ones(uninterrupted, tmp_path):
    """No file may grow beyond what the LoRA takes, so that the trainer's state cannot be written."""
    interrupted(tmp_path, 2)
    earlier = {path: path.read_bytes() for path in (tmp_path / "checkpoint-000002").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = make_trainer(tmp_path, **OPTIONS)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (2 * len(earlier[tmp_path / "checkpoint-000002" / WEIGHTS_NAME]), limits[1])
    )
    try:
        with pytest.raises(CheckpointError, match=r"could not write .*checkpoint-000004.*: free disk space"):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoint-000002").iterdir()} == earlier
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["checkpoint-000002"]
    make_trainer(tmp_path, **OPTIONS).run()
    assert_same_training(tmp_path, uninterrupted)


def test_two_kills_of_the_command_line(world, tmp_path):
    """The campaign of many kills is in tests/torture."""
    training = {**RECIPE["training"], "steps": 8, "monitor_every": None}
    recipe = write_recipe(tmp_path / "recipe.yaml", world, training=training, evaluation=None)
    log = tmp_path / "log"

    def command(folder):
        return forked.sfumato("train", recipe, f"run={folder}", log=log)

    forked.finish(command(tmp_path / "plain"), log=log)
    run = Run(tmp_path / "killed")
    for update in (3, 6):
        process = command(run.path)
        while process.is_alive() and len(run.training_metrics()) < update:
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
    forked.finish(command(run.path), log=log)
    assert_same_training(run.training(), Run(tmp_path / "plain").training())
    assert [record["update"] for record in run.training_metrics()] == list(range(1, 9))
    assert json.loads((run.path / "run.json").read_text())["name"] == "tiny"
