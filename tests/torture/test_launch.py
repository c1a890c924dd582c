"""torchrun with two processes on the CPU: one log, one report, the weights of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfumato.pipelines.adapters import WEIGHTS_NAME
from sfumato.runs import Run, read_jsonl
from tests.tiny_run import RECIPE, write_recipe

pytestmark = pytest.mark.torture


def test_two_launched_processes_do_a_whole_run(world, tmp_path, sfumato):
    training = {**RECIPE["training"], "batch_size": 4, "micro_batch_size": 1, "lr": 1e-3}
    recipe = write_recipe(tmp_path / "recipe.yaml", world, training=training)
    launch = [Path(sys.executable).with_name("torchrun"), "--nproc_per_node", "2"]
    command = [*launch, "-m", "sfumato.cli", "run", recipe, f"run={tmp_path / 'two'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    two, one = Run(tmp_path / "two"), Run(tmp_path / "one")
    assert [record["update"] for record in two.training_metrics()] == [0, 1, 2, 3, 4]
    assert len(two.images()) == 3 * 4 + 5 * (3 * 4 + 2 * 2)
    assert {record["process"] for record in read_jsonl(two.evaluation / "sweep.jsonl")} == {0, 1}
    assert sfumato("train", recipe, f"run={one.path}").code == 0
    found, wanted = (load_file(run.training() / WEIGHTS_NAME) for run in (two, one))
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
