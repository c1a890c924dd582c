"""Group commit: jobs that wait at the same time share one transaction, and so one flush to the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")
Job = tuple[Callable[[sa.Connection], Any], "Future[Any]"]
MOST = 64


class Batches:
    """A thread that does jobs on a database, and commits all that wait in one transaction.

    A job's future has its result only when the transaction is committed. If a job raises, the transaction is rolled
    back and the others are done again without it; an error of the database itself, such as a full disk, is everybody's.

    Args:
        engine: whose transactions lock out other writers from their beginning.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="votes", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue a job."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Do what is queued, then stop."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            outcomes = self._do([job for job, _ in batch])
            for (_, future), (failed, result) in zip(batch, outcomes, strict=True):
                if failed:
                    future.set_exception(failed)
                else:
                    future.set_result(result)

    def _next(self) -> list[Job]:
        """All jobs that wait, at least one; nothing at the end."""
        batch: list[Job] = []
        while len(batch) < MOST and (not batch or not self._jobs.empty()):
            if (job := self._jobs.get()) is None:
                if batch:
                    self._jobs.put(None)
                break
            batch.append(job)
        return batch

    def _do(self, jobs: list[Callable[[sa.Connection], Any]]) -> list[tuple[Exception | None, Any]]:
        """The error or the result of each job, committed; if one of several raises, each is done alone."""
        try:
            with self._engine.begin() as connection:
                return [(None, job(connection)) for job in jobs]
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, sa.exc.OperationalError):
                return [(error, None)] * len(jobs)
        return [outcome for job in jobs for outcome in self._do([job])]
