"""A PostgreSQL server of our own, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

USER = "postgres"


def find_postgres(environment: Mapping[str, str] = os.environ, places: str = "postgresql/*/bin/postgres") -> Path:
    """The folder of PostgreSQL's programs; without it the test fails in CI and is skipped elsewhere."""
    found = sorted(Path("/usr/lib").glob(places))
    if found:
        return found[-1].parent
    message = "the tests with PostgreSQL need its server: run .ci/install-packages"
    if environment.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Postgres:
    """A server on a free port, with its data in a folder that goes when it is removed."""

    def __init__(self) -> None:
        self._programs = find_postgres()
        self.folder = Path(tempfile.mkdtemp(prefix="sfumato-postgres-"))
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self.folder, USER)
        self._run("initdb", "--username", USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Of a database, as SQLAlchemy writes it."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it; after a kill it recovers what was committed."""
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "-o", settings, "-l", str(self.folder / "log"), "-w", "-t", "60", "start")

    def kill(self) -> None:
        """kill -9 of the server and all its processes, as the power would: what was only in memory is gone."""
        lock = self.folder / "data" / "postmaster.pid"
        parent = int(lock.read_text().split()[0])
        processes = [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while any(map(_runs, processes)):
            time.sleep(0.005)
        lock.unlink()

    def new_database(self, name: str) -> str:
        """Make a database, and give its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def remove(self) -> None:
        """Stop it, and delete its data."""
        self._run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self.folder / "data"), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        with (self.folder / "commands").open("a+") as log:
            result = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=False)
            log.seek(0)
            assert result.returncode == 0, log.read()


def _runs(process: int) -> bool:
    """Whether a process is there, and more than an entry that its parent has not read."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
