"""A denoiser that is shared out among processes is trained as a whole one."""

import pytest
import torch
from safetensors.torch import load_file

from sfumato.config import PipelineConfig
from sfumato.pipelines.adapters import WEIGHTS_NAME, denoiser
from sfumato.pipelines.load import load_pipeline
from sfumato.runs import read_jsonl
from sfumato.training import AdjointMatching, Draft, ReFL
from sfumato.training.sharding import blocks, check_sharding
from tests import forked, tiny
from tests.training.common import NOISY, make_trainer, sample, settings
from tests.training.test_processes import free_port, ranks
from tests.training.test_watching import Scripted

OPTIONS = {
    "regularizers": {"kl": {"coefficient": 0.1}},
    "batch_size": 4,
    "micro_batch_size": 1,
    "steps": 2,
    "lr": 1e-3,
    "prefix": {"merge": False, "dtype": "bfloat16", "denoiser_every": 2},
}
CASES = {
    "sd": {"objective": Draft(2), "gradient_checkpointing": True, "monitor_every": 1},
    "sd3": {"family": "sd3", "objective": AdjointMatching(beta=1.0, noise_level=0.7), "sampling": NOISY["sd3"]},
}


class Looking(Scripted):
    """A monitor that runs the denoiser, for which all processes are needed."""

    def __call__(self, pipe, update):
        sample(pipe)
        return super().__call__(pipe, update)


def train(folder, case, shard):
    monitor = Looking({0: 1.0, 1: 0.9, 2: 0.8}) if case == "sd" else None
    pipe = tiny.pipeline(CASES[case].get("family", "sd"))
    changes = {**OPTIONS, **CASES[case], "memory": {"shard": shard}}
    trainer = make_trainer(folder, pipe=pipe, monitor=monitor, **changes)
    if shard:
        here = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in denoiser(pipe).parameters())
        whole = sum(p.numel() for p in denoiser(pipe).parameters())
        own = sum(p.numel() for p in trainer.state.parameters)
        assert here - own < 0.6 * (whole - own)
        assert isinstance(denoiser(pipe), type(denoiser(tiny.shared(CASES[case].get("family", "sd")))))
    trainer.run()


@pytest.mark.parametrize("case", CASES)
def test_two_shares_give_the_weights_of_one_whole(case, tmp_path):
    alone, together, log = tmp_path / "alone", tmp_path / "together", tmp_path / "log"
    train(alone, case, False)
    forked.finish(*(forked.start(train, together, case, True, log=log, **r) for r in ranks(free_port())), log=log)
    found, wanted = load_file(together / WEIGHTS_NAME), load_file(alone / WEIGHTS_NAME)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=5e-6)
    for name in ("loss", "reward", "grad_norm"):
        records = [[r[name] for r in read_jsonl(f / "metrics.jsonl") if name in r] for f in (together, alone)]
        assert records[0] == pytest.approx(records[1], rel=1e-4, abs=1e-6)


def test_one_process_has_nobody_to_share_with(tmp_path):
    with pytest.raises(ValueError, match="there is one: start several"):
        make_trainer(tmp_path, memory={"shard": True}, prefix={"merge": False})


def test_what_cannot_be_shared_out_is_refused():
    for match, changes in {
        "without a LoRA there are none": {"lora": None},
        r"training\.prefix\.merge=false": {"prefix": {"merge": True}},
        "would wait for one another": {"prefix": {"merge": False}},
    }.items():
        with pytest.raises(ValueError, match=match):
            check_sharding(settings(**changes), ReFL(), 2)


def test_a_denoiser_to_be_shared_out_stays_on_the_cpu():
    pipe = load_pipeline(PipelineConfig(), torch.device("meta"), shared_out=True)
    assert denoiser(pipe).device.type == "cpu" and pipe.vae.device.type == "meta"


def test_inner_blocks_are_shared_out_before_outer_ones():
    module = denoiser(tiny.shared("sd"))
    found = blocks(module)
    places = {id(block): i for i, block in enumerate(found)}
    assert found
    for block in found:
        assert all(places[id(part)] <= places[id(block)] for part in block.modules() if id(part) in places)
