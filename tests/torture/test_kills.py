"""`kill -9` of trainings by every method, at random moments and while a checkpoint is being written."""

import hashlib
import random
import signal
import time
from itertools import count

import pytest

from sfumato.runs import Run
from tests import forked
from tests.tiny import TOKENS
from tests.tiny_run import RECIPE, write_recipe
from tests.training.pairs_bed import write_pairs
from tests.training.test_resume import assert_same_training

pytestmark = pytest.mark.torture
KILLS = 3
GROUPS = {"images_per_prompt": 2, "batch_size": 4, "micro_batch_size": 2}
METHODS = {
    "draft": {"objective": {"name": "draft"}},
    "draft_plus": {"objective": {"name": "draft"}, "regularizers": {"kl": {"coefficient": 0.1, "span": [0, 1]}}},
    "draft_lv": {"objective": {"name": "draft_lv"}},
    "align_prop": {"objective": {"name": "align_prop"}},
    "refl": {"objective": {"name": "refl", "span": [0, 1]}, "shaping": {"normalize": True, "clip": [None, 2]}},
    "adjoint_matching": {"objective": {"name": "adjoint_matching", "beta": 0.5, "steps": 1}},
    "ddpo": {"objective": {"name": "ddpo", "steps": 1, "inner_epochs": 2, "minibatches": 2}, **GROUPS},
    "flow_grpo": {"objective": {"name": "flow_grpo", "window": 1, "window_range": [0, 3]}, **GROUPS},
    "diffusion_dpo": {"objective": {"name": "diffusion_dpo", "beta": 50, "noise_draws": 2}},
    "sft": {"objective": {"name": "sft", "candidates": 3, "noise_draws": 2}},
}
WHOLE = {"lora": None, "lr": 1e-4}
BESIDE = {
    "floor": {"floor": {"keep": 0.8}, "regularizers": {"kl": {"coefficient": 0.1}}, "monitor_every": 2},
    "watch": {"watch": {"diversity": 0.99}, "monitor_every": 2},
    "files": {"objective": {"name": "diffusion_dpo", "beta": 50}, "regularizers": {"data": {}}},
}
TRAININGS = {**METHODS, **{f"{name}-whole": {**own, **WHOLE} for name, own in METHODS.items()}, **BESIDE}


def make_recipe(name, world, folder):
    training = {**RECIPE["training"], "steps": 12, "monitor_every": 5, **TRAININGS[name]}
    if name == "files":
        path = write_pairs(folder, [1.0, 0.0, 0.5, 1.0, 0.0])
        training["objective"] = {**training["objective"], "pairs": path}
        training["regularizers"] = {"data": {"pairs": path}}
    flow, noisy = name.startswith("flow"), name.startswith(("adjoint", "ddpo"))
    pipeline = {"path": str(world / ("pipeline-flux" if flow else "pipeline"))}
    arguments = {"height": 16, "width": 16, "max_sequence_length": TOKENS} if flow else {"eta": float(noisy)}
    sampling = {"num_inference_steps": 4, "guidance_scale": 2.0, "arguments": arguments}
    return write_recipe(folder / "recipe.yaml", world, training=training, pipeline=pipeline, sampling=sampling)


def is_newer(path, since):
    try:
        return path.stat().st_mtime > since
    except FileNotFoundError:  # not yet there, or finished between two looks
        return False


def is_started(folder, since):
    return True


def is_training(folder, since):
    return is_newer(folder / "metrics.jsonl", since)


def is_writing(folder, since):
    return any(is_newer(path, since) for path in folder.glob(".checkpoint-*.partial"))


def kill(process, folder, happened, pause):
    """Some time after something has happened, unless the process ends before that."""
    started = time.time()
    while process.is_alive() and not happened(folder, started):
        time.sleep(0.0002)
    process.join(pause)
    process.kill()


def hashes(folder):
    """Of every file but the log, which has times in it."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "metrics.jsonl"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", TRAININGS)
def test_kills_change_nothing(name, world, tmp_path):
    """Until it was killed often enough, and at least once with half a checkpoint on the disk."""
    dice, recipe, log = random.Random(name), make_recipe(name, world, tmp_path), tmp_path / "log"

    def start(run):
        return forked.sfumato("train", recipe, f"run={run.path}", log=log)

    plain, begun = Run(tmp_path / "plain"), time.monotonic()
    forked.finish(start(plain), log=log, timeout=600)
    seconds = time.monotonic() - begun
    updates = sum(record.get("seconds", 0) for record in plain.training_metrics())
    moments = [(is_writing, 0.005), (is_started, seconds), (is_training, updates / 2)]
    killed = halves = 0
    for number in count():
        run = Run(tmp_path / f"run-{number}")
        while True:
            process = start(run)
            if killed < KILLS or not halves:
                happened, longest = moments[killed % 3]
                kill(process, run.training(), happened, dice.uniform(0, longest))
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, log.read_text()
            killed += 1
            halves += bool(list(run.training().glob(".checkpoint-*.partial")))
        assert_same_training(run.training(), plain.training())
        assert hashes(run.training()) == hashes(plain.training())
        if killed >= KILLS and halves:
            break
    print(f"{name}: killed {killed} times, {halves} with half a checkpoint on the disk")
