"""The database: made or checked at the start; what is written is durable when the call returns."""

from __future__ import annotations

import hashlib
import random
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from sfumato.study.batches import Batches
from sfumato.study.folder import Study
from sfumato.study.models import SCHEMA, Assignment, Base, StudyRow

T = TypeVar("T")
LOCK = 0x5F0A70
"""Of PostgreSQL's advisory locks, the one under which the tables are made."""
PATIENCE = 30
"""Seconds to wait for others who write to SQLite."""


class Store:
    """The votes of a study.

    Any number of processes may share a database. With SQLite, jobs that wait at the same time are committed together;
    with PostgreSQL each is a transaction of its own and the server does the same.

    Args:
        study: the study that the votes are of.
        url: of the database, as SQLAlchemy writes it; None for `votes.sqlite3` in the study folder.

    Raises:
        ValueError: there is no such database, or it belongs to another study or another version of sfumato.
        ImportError: PostgreSQL needs an extra.
    """

    def __init__(self, study: Study, url: str | None = None) -> None:
        self.study = study
        self.engine = _engine(sa.make_url(url or f"sqlite:///{study.path.resolve() / 'votes.sqlite3'}"))
        self._sqlite = self.engine.dialect.name == "sqlite"
        self.writer = self.engine.execution_options(begin="BEGIN IMMEDIATE")
        try:
            with self.writer.begin() as connection:
                if not self._sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                self._prepare(connection)
        except sa.exc.OperationalError as error:
            raise ValueError(f"cannot open the database: {' '.join(str(error.orig).split())}") from None
        self._batches = Batches(self.writer) if self._sqlite else None

    def read(self) -> sa.Connection:
        """A connection to look with, for a `with` statement."""
        return self.engine.connect()

    def write(self, job: Callable[[sa.Connection], T]) -> T:
        """What a job returns, once everything it wrote is on the disk; if it raises, nothing is written."""
        if self._batches:
            return self._batches.submit(job).result()
        with self.writer.begin() as connection:
            return job(connection)

    def first_admin_token(self) -> str | None:
        """The token of the admin page if there was none yet, else None: only its hash is kept."""
        token = secrets.token_urlsafe(32)
        first = sa.update(StudyRow).where(StudyRow.admin_hash == "").values(admin_hash=token_hash(token))
        return token if self.write(lambda connection: connection.execute(first).rowcount) else None

    def renew_admin_token(self) -> str:
        """A new token for the admin page; an old one is worth nothing any more."""
        token = secrets.token_urlsafe(32)
        self.write(lambda connection: connection.execute(sa.update(StudyRow).values(admin_hash=token_hash(token))))
        return token

    def close(self) -> None:
        """Finish what waits, and let the database go."""
        if self._batches:
            self._batches.close()
        self.engine.dispose()

    def _prepare(self, connection: sa.Connection) -> None:
        if sa.inspect(connection).has_table(StudyRow.__tablename__):
            self._check(connection)
            return
        Base.metadata.create_all(connection)
        own = {"schema_version": SCHEMA, "fingerprint": self.study.fingerprint, "secret": secrets.token_hex(32)}
        connection.execute(sa.insert(StudyRow), {**own, "votes_per_item": 0})
        add_slots(connection, self.study, self.study.config.votes_per_item)

    def _check(self, connection: sa.Connection) -> None:
        version, fingerprint = connection.execute(sa.select(StudyRow.schema_version, StudyRow.fingerprint)).one()
        if version != SCHEMA:
            raise ValueError(
                f"the votes are in tables of version {version}, and this sfumato reads version {SCHEMA}: use the "
                "sfumato that made them"
            )
        if fingerprint != self.study.fingerprint:
            raise ValueError(
                f"the database has votes of another study than {self.study.path}, or of this one with other items or "
                "exclusion rules, which are fixed once there can be votes: name another database"
            )


def add_slots(connection: sa.Connection, study: Study, more: int) -> None:
    """Give every item but attention checks places for so many more votes."""
    planned = connection.execute(sa.select(StudyRow.votes_per_item).with_for_update()).scalar_one()
    places = [
        {"item": item.id, "slot": slot, "turn": slot, "shuffle": random.getrandbits(31)}
        for slot in range(planned, planned + more)
        for item in study.items.values()
        if item.check is None
    ]
    if places:
        connection.execute(sa.insert(Assignment), places)
    connection.execute(sa.update(StudyRow).values(votes_per_item=planned + more))


def token_hash(token: str) -> str:
    """What is kept of a token: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": PATIENCE, "check_same_thread": False})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        durable = {"options": "-c synchronous_commit=on"}
        return sa.create_engine(url, pool_pre_ping=True, pool_size=20, connect_args=durable)
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: PostgreSQL needs pip install 'sfumato[study-postgres]'") from None


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: sa.Connection) -> None:
    if (begin := connection.get_execution_options().get("begin")) is None:
        connection.exec_driver_sql("BEGIN")
        return
    end = time.monotonic() + PATIENCE
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")  # SQLite's own waits for other writers grow to 100 ms
    try:
        while not _has_begun(connection, begin, time.monotonic() > end):
            time.sleep(0.001)
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * PATIENCE}")


def _has_begun(connection: sa.Connection, begin: str, last: bool) -> bool:
    """Whether a transaction began; an error if it did not and this was the last try."""
    try:
        connection.exec_driver_sql(begin)
    except sa.exc.OperationalError as error:
        if last or getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
