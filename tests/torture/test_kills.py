"""`kill -9` of trainings, thirty times at random moments, half of them while a checkpoint is being written."""

import random
import signal
import time
from itertools import count

import pytest

from sfumato.runs import Run
from tests import forked
from tests.tiny_run import RECIPE, write_recipe
from tests.training.test_resume import assert_same_training

pytestmark = pytest.mark.torture
KILLS = 30


def is_writing(folder, since):
    """Whether a checkpoint was begun after a time and is not finished."""
    try:
        return any(path.stat().st_mtime > since for path in folder.glob(".checkpoint-*.partial"))
    except FileNotFoundError:  # finished between two looks
        return False


def kill_while_writing(process, folder):
    started = time.time()
    while process.is_alive() and not is_writing(folder, started):
        time.sleep(0.0002)
    time.sleep(random.random() * 0.005)
    process.kill()


def kill_at_a_random_time(process, seconds):
    process.join(random.random() * seconds)
    process.kill()


@pytest.mark.parametrize("seed", [0, 1])
def test_thirty_kills_change_nothing(world, tmp_path, seed):
    random.seed(seed)
    training = {**RECIPE["training"], "steps": 24, "monitor_every": 7}
    recipe = write_recipe(tmp_path / "recipe.yaml", world, training=training)
    log, plain = tmp_path / "log", Run(tmp_path / "plain")

    def command(folder):
        return forked.sfumato("train", recipe, f"run={folder}", log=log)

    start = time.monotonic()
    forked.finish(command(plain.path), log=log, timeout=3000)
    seconds = time.monotonic() - start
    killed = interrupted = 0
    for number in count():
        run = Run(tmp_path / f"run-{number}")
        while True:
            process = command(run.path)
            if killed == KILLS:
                pass  # let it end
            elif killed % 2:
                kill_while_writing(process, run.training())
            else:
                kill_at_a_random_time(process, seconds)
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, log.read_text()
            killed += 1
            interrupted += bool(list(run.training().glob(".checkpoint-*.partial")))
        assert_same_training(run.training(), plain.training())
        assert not list(run.training().glob(".checkpoint-*"))
        if killed == KILLS:
            break
    assert interrupted > 0
