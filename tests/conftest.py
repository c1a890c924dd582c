"""Nothing here may reach the network: a test that needs a file makes it. No test may fail because a machine is busy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors lose by more threads
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")  # bit for bit, wherever in memory a tensor happens to lie
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with a tiny pipeline and a tiny vision model, for recipes of `tests.tiny_run`; not to be written to."""
    from tests.tiny_run import make_world

    return make_world(tmp_path_factory.mktemp("world"))


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def sfumato(monkeypatch, capsys):
    """Run the command line in this process."""
    from sfumato.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sfumato", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A run that is done, as a user does it: (its folder, what the command printed, its stderr)."""
    from tests.tiny_run import write_recipe

    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder / "recipe.yaml", world)
    command = [Path(sys.executable).with_name("sfumato"), "run", recipe, f"run={folder / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout, done.stderr


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run that is done, to be damaged or continued."""
    from sfumato.runs import Run

    return Run(shutil.copytree(finished[0], tmp_path / "run"))
