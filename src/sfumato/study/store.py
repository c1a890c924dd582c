"""The database: made or checked at the start; what is written is durable when the call returns."""

from __future__ import annotations

import hashlib
import random
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from sfumato.study.batches import Batches
from sfumato.study.folder import Study
from sfumato.study.models import SCHEMA, Assignment, Base, StudyRow

T = TypeVar("T")
LOCK = 0x5F0A70
"""Of PostgreSQL's advisory locks, the one under which the tables are made."""


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
            with Session(self.writer) as session, session.begin():
                if not self._sqlite:
                    session.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
                self._prepare(session)
        except sa.exc.OperationalError as error:
            raise ValueError(f"cannot open the database: {' '.join(str(error.orig).split())}") from None
        self._batches = Batches(self.writer) if self._sqlite else None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session to look with."""
        with Session(self.engine) as session:
            yield session

    def write(self, job: Callable[[Session], T]) -> T:
        """What a job returns, once everything it wrote is on the disk; if it raises, nothing is written."""
        if self._batches:
            return self._batches.submit(job).result()
        with Session(self.writer, expire_on_commit=False) as session, session.begin():
            return job(session)

    def first_admin_token(self) -> str | None:
        """The token of the admin page if there was none yet, else None: only its hash is kept."""
        token = secrets.token_urlsafe(32)
        first = sa.update(StudyRow).where(StudyRow.admin_hash == "").values(admin_hash=token_hash(token))
        return token if self.write(lambda session: session.connection().execute(first).rowcount) else None

    def renew_admin_token(self) -> str:
        """A new token for the admin page; an old one is worth nothing any more."""
        token = secrets.token_urlsafe(32)
        self.write(lambda session: session.execute(sa.update(StudyRow).values(admin_hash=token_hash(token))))
        return token

    def close(self) -> None:
        """Finish what waits, and let the database go."""
        if self._batches:
            self._batches.close()
        self.engine.dispose()

    def _prepare(self, session: Session) -> None:
        if sa.inspect(session.connection()).has_table(StudyRow.__tablename__):
            self._check(session)
            return
        Base.metadata.create_all(session.connection())
        row = StudyRow(
            schema_version=SCHEMA,
            fingerprint=self.study.fingerprint,
            secret=secrets.token_hex(32),
            votes_per_item=0,
        )
        session.add(row)
        add_slots(session, self.study, self.study.config.votes_per_item)

    def _check(self, session: Session) -> None:
        version, fingerprint = session.execute(sa.select(StudyRow.schema_version, StudyRow.fingerprint)).one()
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


def add_slots(session: Session, study: Study, more: int) -> None:
    """Give every item but attention checks places for so many more votes."""
    row = session.execute(sa.select(StudyRow).with_for_update()).scalar_one()
    places = [
        {"item": item.id, "slot": slot, "turn": slot, "shuffle": random.getrandbits(31)}
        for slot in range(row.votes_per_item, row.votes_per_item + more)
        for item in study.items.values()
        if item.check is None
    ]
    if places:
        session.execute(sa.insert(Assignment), places)
    row.votes_per_item += more


def token_hash(token: str) -> str:
    """What is kept of a token: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
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
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
