"""Two processes train as one: the same micro-batches, shared out."""

import socket

import pytest
import torch

from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import read_jsonl
from sfumato.training import AlignProp, DraftLV, ReFL
from tests import forked
from tests.training.common import make_trainer

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


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_weights_of_one(case, tmp_path):
    from safetensors.torch import load_file

    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    train(alone, case)
    forked.finish(*(forked.start(train, together, case, log=log, **rank) for rank in ranks(free_port())), log=log)
    found, wanted = load_file(together / WEIGHTS_NAME), load_file(alone / WEIGHTS_NAME)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=5e-6)
    records, single = read_jsonl(together / "metrics.jsonl"), read_jsonl(alone / "metrics.jsonl")
    assert [record["update"] for record in records] == [1, 2, 3]
    for name in single[0].keys() - {"update", "seconds"}:
        assert [record[name] for record in records] == pytest.approx(
            [record[name] for record in single], rel=1e-3, abs=1e-6
        )
