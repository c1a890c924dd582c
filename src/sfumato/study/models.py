"""The tables of a study: itself, raters, assignments of items to raters, votes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 1
"""The version of these tables. A server refuses a database of another."""


def _where(condition: ColumnElement[bool]) -> dict[str, Any]:
    """Options of an index over some rows only."""
    return {"sqlite_where": condition, "postgresql_where": condition}


class Base(DeclarativeBase):
    """All tables, under names that may share a database with others."""


class StudyRow(Base):
    """The study: one row.

    Attributes:
        schema_version: `SCHEMA` of the version that made the tables.
        fingerprint: of the study folder that the votes belong to.
        secret: what links and forms are signed with.
        admin_hash: SHA-256 of the token of the admin page, empty until there is one.
        open: whether votes are taken.
        votes_per_item: how many places every item has.
    """

    __tablename__ = "sfumato_study"
    __table_args__ = (CheckConstraint("id = 1"),)
    id: Mapped[int] = mapped_column(primary_key=True, default=1)
    schema_version: Mapped[int]
    fingerprint: Mapped[str] = mapped_column(String(64))
    secret: Mapped[str] = mapped_column(String(64))
    admin_hash: Mapped[str] = mapped_column(String(64), default="")
    open: Mapped[bool] = mapped_column(default=True)
    votes_per_item: Mapped[int]


class Rater(Base):
    """Somebody who agreed to take part.

    Attributes:
        id: random, known to the rater's browser alone.
        label: random, what the data call the rater.
        joined_at: Unix time.
    """

    __tablename__ = "sfumato_rater"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    label: Mapped[str] = mapped_column(String(16), unique=True)
    joined_at: Mapped[float]


class Assignment(Base):
    """A place for one vote on an item, and who has it.

    All places of items are there from the start, so an item never gets more votes than planned; those of attention
    checks are made when a rater meets one.

    Attributes:
        item: its id.
        slot: 0 for the first vote on an item, and so on; None in attention checks.
        turn: what `Item.order` is given.
        shuffle: random; places with the same slot are given out in this order.
        rater: who has the place; None if it is free.
        position: which of the rater's items it is, from 1.
        claimed_at: Unix time since when the rater has it.
        voted: whether it has a vote that was not taken back.
    """

    __tablename__ = "sfumato_assignment"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(32))
    slot: Mapped[int | None]
    turn: Mapped[int]
    shuffle: Mapped[int]
    rater: Mapped[str | None] = mapped_column(ForeignKey("sfumato_rater.id"))
    position: Mapped[int | None]
    claimed_at: Mapped[float | None]
    voted: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (UniqueConstraint("item", "slot"),)


class Vote(Base):
    """An answer.

    Attributes:
        key: names the page on which it was given, so that what is sent twice counts once.
        assignment: what was answered; it has one vote that was not taken back, or none.
        answer: see `sfumato.study.answers`.
        seconds: from the page to the answer.
        voted_at: Unix time.
        undone_at: Unix time at which it was taken back, or None.
    """

    __tablename__ = "sfumato_vote"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    assignment: Mapped[int] = mapped_column(ForeignKey("sfumato_assignment.id"))
    rater: Mapped[str] = mapped_column(ForeignKey("sfumato_rater.id"), index=True)
    answer: Mapped[object] = mapped_column(JSON)
    seconds: Mapped[float]
    voted_at: Mapped[float]
    undone_at: Mapped[float | None]


FREE = Assignment.rater.is_(None)
Index("ix_sfumato_free", Assignment.slot, Assignment.shuffle, **_where(FREE))
Index("ix_sfumato_seen", Assignment.rater, Assignment.item, unique=True, **_where(~FREE))
Index("ix_sfumato_position", Assignment.rater, Assignment.position, unique=True, **_where(~FREE))
Index("ix_sfumato_live", Vote.assignment, unique=True, **_where(Vote.undone_at.is_(None)))
