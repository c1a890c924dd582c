"""A disk that is really full: a small tmpfs, filled to the brim."""

import os
import subprocess

import pytest

from sfumato.runs import Run
from tests.tiny_run import write_recipe
from tests.training.test_resume import assert_same_training

pytestmark = pytest.mark.torture


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk, leave):
    """Fill the disk up to some bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(max(0, free - leave)))


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 24576, 32768, 49152, 65536])
def test_a_full_disk_ends_in_one_message_and_the_training_continues(world, small_disk, tmp_path, sfumato, leave):
    recipe = write_recipe(tmp_path / "recipe.yaml", world)
    assert sfumato("train", recipe, f"run={small_disk / 'run'}", "training.steps=2").code == 0
    run = Run(small_disk / "run")
    kept = {path: path.read_bytes() for path in run.path.rglob("*checkpoint-000002/*")}
    fill(small_disk, leave)
    outcome = sfumato("train", run.path, "training.steps=6", "training.checkpoint_every=1")
    if outcome.code:
        assert outcome.code == 1
        message = outcome.err.strip().split("\n")[-1]
        assert message.startswith("error: ") and ("No space left" in message or "disk" in message)
        assert {path: path.read_bytes() for path in kept} == kept
    assert outcome.code or leave > 16384, "the disk was not full"
    (small_disk / "ballast").unlink()
    assert sfumato("train", run.path, "training.steps=6", "training.checkpoint_every=1").code == 0
    plain = ["training.steps=6", f"run={tmp_path / 'plain'}"]
    assert sfumato("train", recipe, *plain).code == 0
    assert_same_training(run.training(), Run(tmp_path / "plain").training())
