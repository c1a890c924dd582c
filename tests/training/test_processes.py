"""Two processes train as one: the same micro-batches, shared out."""

import os
import socket

import pytest
import torch

from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import read_jsonl
from sfumato.trained import weights_in
from sfumato.training import DDPO, SFT, AdjointMatching, AlignProp, DiffusionDPO, DraftLV, FlowGRPO, ReFL
from tests import forked
from tests.training.common import NOISY, make_trainer
from tests.training.test_watching import Scripted

OPTIONS = {
    "regularizers": {"kl": {"coefficient": 0.1}},
    "batch_size": 4,
    "micro_batch_size": 1,
    "steps": 3,
    "checkpoint_every": 2,
    "ema_decay": 0.5,
    "lr": 1e-3,
}


CASES = {
    "draft": {},
    "draft_lv": {"objective": DraftLV(1), "shaping": {"normalize": True}},
    "align_prop": {"objective": AlignProp()},
    "refl": {
        "objective": ReFL((0.0, 1.0)),
        "regularizers": {"kl": {"coefficient": 0.1, "span": [0, 1]}, "diversity": {"coefficient": 10.0}},
        "images_per_prompt": 2,
        "batch_size": 8,
        "micro_batch_size": 2,
    },
    "ddpo": {
        "objective": DDPO(steps=1, minibatches=2),
        "sampling": NOISY["sd"],
        "regularizers": {"kl": {"coefficient": 0.1, "form": "gaussian"}},
        "shaping": {"normalize": True},
        "images_per_prompt": 2,
    },
    "flow_grpo": {
        "family": "sd3",
        "objective": FlowGRPO(window=2, window_range=(0, 3)),
        "sampling": NOISY["sd3"],
        "images_per_prompt": 2,
    },
    "diffusion_dpo": {"objective": DiffusionDPO(50.0, noise_levels=4), "regularizers": {}},
    "sft": {"objective": SFT(), "regularizers": {}, "micro_batch_size": 2},
    "whole_denoiser": {"lora": None},
    "adjoint_matching": {"objective": AdjointMatching(beta=1.0, steps=2), "sampling": NOISY["sd"]},
}
"""Changes of the options: an objective and what goes with it."""


def train(folder, case):
    make_trainer(folder, **{**OPTIONS, **CASES[case]}).run()


def ranks(port):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def weights_of(folder):
    from safetensors.torch import load_file

    found = weights_in(folder)
    return load_file(found / "diffusion_pytorch_model.safetensors" if found.is_dir() else found)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_weights_of_one(case, tmp_path):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    train(alone, case)
    forked.finish(*(forked.start(train, together, case, log=log, **rank) for rank in ranks(free_port())), log=log)
    found, wanted = weights_of(together), weights_of(alone)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)  # a hundredth of a step of AdamW
    records, single = read_jsonl(together / "metrics.jsonl"), read_jsonl(alone / "metrics.jsonl")
    assert [record["update"] for record in records] == [1, 2, 3]
    for name in single[0].keys() - {"update", "seconds"}:
        assert [record[name] for record in records] == pytest.approx(
            [record[name] for record in single], rel=1e-3, abs=1e-6
        )


def train_interrupted(folder):
    """It stops before the last update, as a kill would, and is started again."""
    updates = iter(make_trainer(folder, **OPTIONS))
    assert [next(updates)["update"] for _ in range(2)] == [1, 2]
    assert [record["update"] for record in make_trainer(folder, **OPTIONS).run()] == [3]


def test_two_processes_continue_bit_for_bit(tmp_path):
    for function, arguments in ((train, ["draft"]), (train_interrupted, [])):
        folder, log = tmp_path / function.__name__, tmp_path / f"{function.__name__}.log"
        started = [forked.start(function, folder, *arguments, log=log, **rank) for rank in ranks(free_port())]
        forked.finish(*started, log=log)
    whole, again = (weights_in(tmp_path / name).read_bytes() for name in ("train", "train_interrupted"))
    assert whole == again


def train_watched(folder):
    """Diversity is held by a floor, until gold falls at update 4."""
    changes = {"monitor_every": 2, "watch": {"diversity": None}, "floor": {"keep": 0.6}, "steps": 6}
    monitor = Scripted({0: 1.0, 2: 1.0, 4: 0.4}, gold={0: 0.5, 2: 0.6, 4: 0.4})
    if os.environ.get("RANK", "0") != "0":
        monitor.kept = {}  # it cannot look
    make_trainer(folder, monitor=monitor, **{**OPTIONS, **changes}).run()


def test_all_processes_do_what_the_first_one_saw(tmp_path):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    train_watched(alone)
    forked.finish(*(forked.start(train_watched, together, log=log, **rank) for rank in ranks(free_port())), log=log)
    records, single = read_jsonl(together / "metrics.jsonl"), read_jsonl(alone / "metrics.jsonl")
    assert [record["update"] for record in records] == [0, 1, 2, 3, 4]
    assert records[-1]["watch"] == single[-1]["watch"] and records[-1]["watch"]["good"] == 2
    assert records[4]["strength"] == single[4]["strength"] < 1
    assert (together / WEIGHTS_NAME).read_bytes() == (together / "checkpoint-000002" / WEIGHTS_NAME).read_bytes()
