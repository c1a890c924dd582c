"""`sfumato ...` in a process of its own that can be killed; the libraries are imported once for all of them.

Processes are forked from a server that has imported the libraries and done nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "sfumato.experiment",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "tests.tiny",
        "sfumato.study.server.app",
        "uvicorn",
        "psycopg",
        "tests.study.raters",
    ]
)


def sfumato(*arguments: Any, log: Path, **environment: str) -> BaseProcess:
    """Start the command line; stdout and stderr go into the log."""
    return start(_sfumato, [str(argument) for argument in arguments], log=log, **environment)


def start(function: Callable[..., Any], *arguments: Any, log: Path, **environment: str) -> BaseProcess:
    """Start a function of a module in a process of its own."""
    process = _CONTEXT.Process(target=_child, args=(function, arguments, str(log), environment))
    process.start()
    return process


def finish(*processes: BaseProcess, log: Path, timeout: float = 240) -> None:
    """Wait for the processes and see that they succeeded."""
    for process in processes:
        process.join(timeout)
    assert [process.exitcode for process in processes] == [0] * len(processes), log.read_text()


def _sfumato(arguments: list[str]) -> None:
    from sfumato.cli import main

    sys.argv = ["sfumato", *arguments]
    main()


def _child(function: Callable[..., Any], arguments: tuple, log: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    function(*arguments)
