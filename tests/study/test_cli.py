"""The commands, and a server in a process of its own behind a path that a proxy strips."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.study.bed import make_pictures


def sfumato(*arguments, **settings):
    command = [sys.executable, "-m", "sfumato.cli", "study", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    points = make_pictures(place / "pictures", ("base", "tuned"))
    sources = [f"points.{name}.folder={source['folder']}" for name, source in points.items()]
    made = sfumato("create", "name=mine", f"folder={place / 'mine'}", "check_every=null", *sources)
    assert made.returncode == 0 and made.stdout.strip() == str(place / "mine"), made.stderr
    assert "3 items and 0 attention checks" in made.stderr
    return place / "mine"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def patiently(url):
    """What a server answers that is still starting."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=20) as reply:
                return reply.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")


def test_serve_with_two_processes_under_a_path_and_export(folder):
    exported = sfumato("export", folder)
    assert exported.returncode == 0 and exported.stdout == ""
    port = free_port()
    command = [sys.executable, "-m", "sfumato.cli", "study", "serve", str(folder), "--port", str(port)]
    command += ["--workers", "2", "--root-path", "/studies/mine/"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert 'action="/studies/mine/join"' in patiently(f"http://127.0.0.1:{port}/")
        assert json.loads(patiently(f"http://127.0.0.1:{port}/health")) == {"ok": True}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert said.count("admin token (it is not shown again): ") == 1
    assert f"raters: /studies/mine/   admin: /studies/mine/admin   at the proxy of http://127.0.0.1:{port}\n" in said
    pairs = sfumato("export", folder, "--pairs", folder / "pairs.jsonl")
    assert "0 pairs" in pairs.stderr and (folder / "pairs.jsonl").read_text() == ""
    token = sfumato("admin", folder).stdout.strip()
    assert re.fullmatch(r"[\w-]{43}", token) and token not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "nothing.yaml"], "error: there is no nothing.yaml"),
        (
            ["create", "name=x", "points.a.folder=nowhere", "questions=[{kind: rating}]"],
            "error: there is no folder nowhere",
        ),
        (["serve", "nowhere"], "error: nowhere is not a study folder"),
        (["export", "{folder}", "--database", "postgresql://nobody@127.0.0.1:1/x"], "error: cannot open the database"),
    ],
)
def test_errors_are_one_message(folder, tmp_path, arguments, message):
    result = sfumato(*(argument.replace("{folder}", str(folder)) for argument in arguments), cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.startswith(message), result.stderr
    assert result.stderr.count("\n") == 1


def test_without_the_extra_the_command_names_it(folder):
    program = "import sys; sys.modules['sqlalchemy'] = None; from sfumato.cli import main; sys.argv[1:] = "
    command = [sys.executable, "-c", f"{program}['study', 'export', {str(folder)!r}]; main()"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "pip install 'sfumato[study]'" in result.stderr
