"""A training under watch: it stops, goes back or goes on by what its looks showed, and repeats exactly."""

import os
import signal

import pytest
import torch

from sfumato.pipelines.adapters import WEIGHTS_NAME, load_lora
from sfumato.runs import read_jsonl
from sfumato.training import CheckpointError
from sfumato.training.feedback import strength
from tests import forked, tiny
from tests.training.common import make_trainer, sample
from tests.training.test_resume import assert_same_training

OPTIONS = {"steps": 6, "monitor_every": 2, "ema_decay": 0.5, "watch": {"diversity": 0.5}}
COLLAPSE = {0: 1.0, 2: 0.8, 4: 0.4, 6: 0.3}
RECOVERY = {**COLLAPSE, 6: 0.6}
SUDDEN = {0: 1.0, 2: 1.0, 4: 0.4, 6: 0.3}
FLOOR = {"keep": 0.6, "gain": 20.0, "dead_zone": 0.0}


class Scripted:
    """A monitor that sees as much diversity and gold as it was told; the trained reward rises."""

    def __init__(self, kept, gold=None):
        self.prompts, self.images, self.rewards = ["red"], 2, {"reward": None, "gold": None}
        self.kept, self.gold = kept, gold or dict.fromkeys(kept, 0.5)

    def identity(self):
        return {"prompts": self.prompts}

    def __call__(self, pipe, update):
        scores = {"reward": [update, update], "gold": [self.gold[update]] * 2}
        means = {f"eval/{name}": values[0] for name, values in scores.items()}
        vendi = 1 + 3 * self.kept[update]
        return means | {"eval/vendi": vendi, "eval/scores": {name: {"red": v} for name, v in scores.items()}}


def trainer(folder, kept=COLLAPSE, gold=None, **changes):
    return make_trainer(folder, monitor=Scripted(kept, gold), **{**OPTIONS, **changes})


def weights(folder):
    return (folder / WEIGHTS_NAME).read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    trainer(folder).run()
    return folder


def test_a_training_is_stopped_and_its_result_is_the_last_good_look(stopped):
    records = read_jsonl(stopped / "metrics.jsonl")
    assert [record["update"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["eval/kept"] for record in records if "eval/kept" in record] == pytest.approx([1.0, 0.8, 0.4])
    assert [record["update"] for record in records if "watch" in record] == [4]
    assert records[-1]["watch"]["action"] == "stop" and records[-1]["watch"]["good"] == 2
    assert weights(stopped) == weights(stopped / "checkpoint-000002") != weights(stopped / "checkpoint-000004")


def test_a_stopped_training_has_nothing_to_do(stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    assert trainer(stopped).run() == []
    assert trainer(stopped, steps=8).run() == []
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before


@pytest.mark.parametrize("updates", [0, 1, 2, 3])
def test_an_interrupted_one_is_stopped_in_the_same_way(updates, stopped, tmp_path):
    next(record for record in trainer(tmp_path) if record["update"] == updates)
    trainer(tmp_path).run()
    assert_same_training(tmp_path, stopped)


def killed_before(folder, method, update):
    """Train until a method of the trainer is called at an update, and die there."""
    training = trainer(folder)
    usual = getattr(training, method)

    def deadly(*arguments):
        if training.state.update == update:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*arguments)

    setattr(training, method, deadly)
    training.run()


@pytest.mark.parametrize(("method", "update"), [("_save", 0), ("_save", 4), ("_finish", 4)])
def test_a_kill_between_the_look_and_what_follows_from_it(method, update, stopped, tmp_path):
    process = forked.start(killed_before, tmp_path, method, update, log=tmp_path / "log")
    process.join(240)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["update"] == update
    trainer(tmp_path).run()
    assert_same_training(tmp_path, stopped)


def test_a_lower_bar_or_none_lets_it_go_on_as_if_it_had_not_been_stopped(stopped, tmp_path):
    free, again = tmp_path / "free", tmp_path / "again"
    trainer(free, watch=None).run()
    trainer(again).run()
    records = trainer(again, watch={"diversity": 0.2}).run()
    assert [record["update"] for record in records] == [5, 6]
    assert weights(again) == weights(free)


def test_keep_trains_on_and_goes_back_only_if_the_end_is_bad(tmp_path):
    for kept, good in ((COLLAPSE, 2), (RECOVERY, 6)):
        folder = tmp_path / str(good)
        records = trainer(folder, kept, watch={"action": "keep"}).run()
        assert [record["update"] for record in records] == [*range(7)]
        assert weights(folder) == weights(folder / f"checkpoint-{good:06d}")


def test_a_warning_changes_nothing_else(tmp_path):
    records = trainer(tmp_path, watch={"action": "warn"}).run()
    assert [record["update"] for record in records if "watch" in record] == [4, 6]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-000006"]
    assert weights(tmp_path) == weights(tmp_path / "checkpoint-000006")


def test_the_base_itself_may_be_the_last_good_one(tmp_path):
    """Gold falls from the first update on, so the result is a LoRA that changes nothing."""
    trainer(tmp_path, dict.fromkeys(COLLAPSE, 1.0), gold={0: 0.9, 2: 0.8}).run()
    pipe = tiny.pipeline("sd")
    load_lora(pipe, tmp_path)
    assert torch.equal(sample(pipe), sample(tiny.pipeline("sd")))


def test_a_checkpoint_that_is_needed_and_gone_is_named(tmp_path):
    training = iter(trainer(tmp_path))
    next(record for record in training if record["update"] == 3)
    for early in (0, 2):
        (tmp_path / f"checkpoint-{early:06d}").rename(tmp_path / f"elsewhere-{early}")
    with pytest.raises(CheckpointError, match="no checkpoint up to update 2, the last good one"):
        next(training)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monitor_every": None}, "training.watch and training.floor go by looks at held-out prompts"),
        ({"watch": {"rewards": ["golf"]}}, "there is no held-out reward 'golf'; known: gold"),
        ({"watch": {"rewards": ["reward"]}}, "there is no held-out reward 'reward'"),
        ({"floor": {"keep": 0.8}}, "floor holds diversity by the regularizers, and there is none"),
    ],
)
def test_what_cannot_be_watched_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **changes)


def test_looks_that_cannot_be_compared_are_refused(tmp_path):
    next(record for record in trainer(tmp_path) if record["update"] == 2)
    other = Scripted(COLLAPSE)
    other.images = 3
    with pytest.raises(ValueError, match="the look at update 0 had other prompts, images or rewards"):
        make_trainer(tmp_path, monitor=other, **OPTIONS)
    make_trainer(tmp_path, monitor=other, **{**OPTIONS, "watch": None})
    make_trainer(tmp_path / "blind", **{**OPTIONS, "watch": None, "monitor_every": None}).run()
    with pytest.raises(ValueError, match="begun without a look at the base model"):
        trainer(tmp_path / "blind", steps=8)


HELD = {"watch": None, "floor": FLOOR, "regularizers": {"kl": {"coefficient": 10.0}}, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    trainer(folder, SUDDEN, **HELD).run()
    return folder


def test_the_floor_sets_the_strength_of_the_penalties(held, tmp_path):
    """Up to the first look the training is one without a floor; then the penalty weighs less, as nothing is lost."""
    found = [record.get("strength") for record in read_jsonl(held / "metrics.jsonl")]
    second, third = (strength(kept, make_floor()) for kept in ([1.0, 1.0], [1.0, 1.0, 0.4]))
    assert found == pytest.approx([None, 1.0, 1.0, second, second, third, third])
    assert second < 1 < third
    free = trainer(tmp_path, SUDDEN, **{**HELD, "floor": None}).run()
    losses = [[record.get("loss") for record in records] for records in (read_jsonl(held / "metrics.jsonl"), free)]
    assert losses[0][:3] == losses[1][:3] and losses[0][3] < losses[1][3]


def make_floor():
    from sfumato.config import FloorConfig

    return FloorConfig(**FLOOR)


@pytest.mark.parametrize("updates", [2, 3, 5])
def test_an_interrupted_training_with_a_floor_continues_bit_for_bit(updates, held, tmp_path):
    next(record for record in trainer(tmp_path, SUDDEN, **HELD) if record["update"] == updates)
    trainer(tmp_path, SUDDEN, **HELD).run()
    assert_same_training(tmp_path, held)


def test_with_a_floor_the_looks_are_part_of_the_training(tmp_path):
    next(record for record in trainer(tmp_path, SUDDEN, **HELD) if record["update"] == 3)
    with pytest.raises(CheckpointError, match=r"other settings \(monitor_every\)"):
        trainer(tmp_path, SUDDEN, **{**HELD, "monitor_every": 3})
