"""Two processes train as one: the same micro-batches, shared out."""

import socket

import pytest
import torch

from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import read_jsonl
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


def train(folder):
    make_trainer(folder, **OPTIONS).run()


def ranks(port):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_give_the_weights_of_one(tmp_path):
    from safetensors.torch import load_file

    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    train(alone)
    forked.finish(*(forked.start(train, together, log=log, **rank) for rank in ranks(free_port())), log=log)
    found, wanted = load_file(together / WEIGHTS_NAME), load_file(alone / WEIGHTS_NAME)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=5e-6)
    records, single = read_jsonl(together / "metrics.jsonl"), read_jsonl(alone / "metrics.jsonl")
    assert [record["update"] for record in records] == [1, 2, 3]
    for name in ("loss", "reward", "reward_std", "kl", "grad_norm"):
        assert [record[name] for record in records] == pytest.approx([record[name] for record in single], abs=1e-6)
