"""Kill -9 of sweeps at random moments, on one and two processes, with pictures deleted and damaged in between."""

import random
import shutil
import time
from itertools import count

import pytest

from sfumato.runs import Run, read_jsonl
from tests import forked
from tests.training.test_processes import free_port, ranks

pytestmark = pytest.mark.torture
KILLS = 20


def start(run, log, processes):
    places = ranks(free_port()) if processes == 2 else [{}]
    return [forked.sfumato("evaluate", run.path, log=log, **place) for place in places]


def hurt(run, dice):
    """Delete and damage some of the pictures that are there."""
    there = sorted(run.evaluation.glob("images/*/*.png"))
    for path in dice.sample(there, min(len(there), 2)):
        path.unlink()
    for path in dice.sample(sorted(run.evaluation.glob("images/*/*.png")), min(len(there) - 2, 1)):
        path.write_bytes(path.read_bytes()[: dice.randrange(200)])


@pytest.mark.parametrize("seed", [0, 1])
def test_no_kill_changes_a_byte_of_the_table(run, tmp_path, seed):
    dice, log = random.Random(seed), tmp_path / "log"
    table = (run.evaluation / "images.jsonl").read_bytes()
    pictures = {p.relative_to(run.path): p.read_bytes() for p in run.evaluation.glob("images/*/*.png")}
    frontier = (run.evaluation / "frontier.json").read_bytes()
    begun = time.monotonic()
    alone = Run(shutil.copytree(run.path, tmp_path / "alone"))
    shutil.rmtree(alone.evaluation)
    forked.finish(*start(alone, log, 1), log=log)
    seconds = time.monotonic() - begun
    killed = resumed = 0
    for number in count():
        again = Run(shutil.copytree(run.path, tmp_path / f"run-{number}"))
        shutil.rmtree(again.evaluation)
        while True:
            processes = start(again, log, dice.choice([1, 2]))
            processes[0].join(dice.uniform(0, seconds) if killed < KILLS else None)
            for process in processes if killed < KILLS else []:
                process.kill()
            for process in processes:
                process.join()
            if all(process.exitcode == 0 for process in processes):
                break
            killed += 1
            resumed += bool(again.images())
            if len(list(again.evaluation.glob("images/*/*.png"))) > 3:
                hurt(again, dice)
        assert (again.evaluation / "images.jsonl").read_bytes() == table
        assert {p.relative_to(again.path): p.read_bytes() for p in again.evaluation.glob("images/*/*.png")} == pictures
        assert (again.evaluation / "frontier.json").read_bytes() == frontier
        reasons = {record["why"] for record in read_jsonl(again.evaluation / "sweep.jsonl")}
        assert "new" in reasons and reasons <= {"new", "missing", "damaged"}
        if killed >= KILLS:
            break
    assert resumed > 0
