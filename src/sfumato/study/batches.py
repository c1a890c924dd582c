"""Group commit: jobs that wait at the same time share one transaction, and so one flush to the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

T = TypeVar("T")
Job = tuple[Callable[[Session], Any], "Future[Any]"]
MOST = 64


class Batches:
    """A thread that does jobs on a database, each in a savepoint, and commits all that wait in one transaction.

    A job's future has its result only when the transaction is committed.

    Args:
        engine: whose transactions lock out other writers from their beginning.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="votes", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Session], T]) -> Future[T]:
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
            try:
                results = self._commit(batch)
            except Exception as error:
                results = [(error, None)] * len(batch)
            for (_, future), (failed, result) in zip(batch, results, strict=True):
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

    def _commit(self, batch: list[Job]) -> list[tuple[Exception | None, Any]]:
        results: list[tuple[Exception | None, Any]] = []
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            for job, _ in batch:
                try:
                    with session.begin_nested():
                        results.append((None, job(session)))
                except Exception as error:
                    results.append((error, None))
        return results
