"""How items are given out, answered and taken back. Every function works inside a transaction of the caller.

A rater holds the item on the page and the one after it, whose images are already on their way. What is sent twice
counts once: a page has a key, and a key makes one vote, even after that vote was taken back.
"""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from sfumato.study.answers import Answer
from sfumato.study.folder import Study
from sfumato.study.models import Assignment, Rater, StudyRow, Vote

HELD = 2


class StaleError(ValueError):
    """What was sent does not fit what is in the database now; nothing was changed."""


class ClosedError(ValueError):
    """The study takes no more votes; nothing was changed."""


class UnknownRaterError(ValueError):
    """There is no such rater, or not any more."""


@dataclass(frozen=True)
class Held:
    """An item that a rater is to answer.

    Attributes:
        assignment: its place.
        item: its id.
        turn: in which it is shown: `Item.order`.
        position: which of the rater's items it is, from 1.
    """

    assignment: int
    item: str
    turn: int
    position: int


def join(session: Session, rater: str) -> None:
    """Let a rater take part; nothing happens if they do already.

    Raises:
        ClosedError: the study is closed.
    """
    if not is_open(session):
        raise ClosedError("the study is closed")
    if session.get(Rater, rater) is None:
        session.add(Rater(id=rater, label=secrets.token_hex(6), joined_at=time.time()))


def is_rater(session: Session, rater: str) -> bool:
    """Whether somebody takes part."""
    return session.get(Rater, rater) is not None


def is_open(session: Session) -> bool:
    """Whether votes are taken."""
    return session.execute(sa.select(StudyRow.open)).scalar_one()


def held(session: Session, rater: str) -> list[Held]:
    """What a rater is to answer, the next first; at most two."""
    columns = (Assignment.id, Assignment.item, Assignment.turn, Assignment.position)
    mine = sa.select(*columns).where(Assignment.rater == rater, ~Assignment.voted)
    rows = session.execute(mine.order_by(Assignment.position).limit(HELD))
    return [Held(place, item, turn, position or 0) for place, item, turn, position in rows]


def answered(session: Session, rater: str) -> int:
    """How many items a rater has answered."""
    return session.execute(
        sa.select(sa.func.count()).select_from(Assignment).where(Assignment.rater == rater, Assignment.voted)
    ).scalar_one()


def last_key(session: Session, rater: str) -> str | None:
    """The key of a rater's last vote that was not taken back."""
    return session.execute(
        sa.select(Vote.key).where(Vote.rater == rater, Vote.undone_at.is_(None)).order_by(Vote.id.desc()).limit(1)
    ).scalar_one_or_none()


def give(session: Session, study: Study, rater: str) -> list[Held]:
    """What a rater is to answer, after items were added up to `HELD` if there are any for them.

    Raises:
        UnknownRaterError: there is no such rater.
    """
    is_open = _lock(session, rater)
    return _fill(session, study, rater) if is_open else held(session, rater)


def vote(
    session: Session, study: Study, rater: str, assignment: int, key: str, answer: Answer, seconds: float
) -> list[Held]:
    """Take a vote, and give the rater the next item; the same key again changes nothing.

    Raises:
        UnknownRaterError: there is no such rater.
        StaleError: the rater does not hold the item any more, or has answered it on another page.
        ClosedError: the study is closed.
    """
    is_open = _lock(session, rater)
    known = session.execute(sa.select(Vote.rater).where(Vote.key == key)).scalar_one_or_none()
    if known == rater:
        return held(session, rater)
    if known is not None:
        raise StaleError("the page belongs to somebody else")
    if not is_open:
        raise ClosedError("the study is closed")
    mine = (Assignment.id == assignment, Assignment.rater == rater, ~Assignment.voted)
    if not _changed(session, sa.update(Assignment).where(*mine).values(voted=True)):
        raise StaleError("the item was answered before, or has gone to somebody else")
    row = {"key": key, "assignment": assignment, "rater": rater, "answer": answer, "seconds": seconds}
    session.execute(sa.insert(Vote).values(**row, voted_at=time.time()))
    return _fill(session, study, rater)


def undo(session: Session, rater: str, key: str) -> None:
    """Take back a rater's last vote, which becomes their next item; the same key again changes nothing.

    Raises:
        UnknownRaterError: there is no such rater.
        StaleError: it is not the last vote.
        ClosedError: the study is closed.
    """
    is_open = _lock(session, rater)
    found = session.execute(sa.select(Vote).where(Vote.key == key, Vote.rater == rater)).scalar_one_or_none()
    if found is None or (found.undone_at is None and key != last_key(session, rater)):
        raise StaleError("only the last vote can be taken back")
    if found.undone_at is None:
        if not is_open:
            raise ClosedError("the study is closed")
        found.undone_at, found.answer = time.time(), None
        session.execute(sa.update(Assignment).where(Assignment.id == found.assignment).values(voted=False))
        session.flush()


def forget(session: Session, rater: str) -> None:
    """Delete a rater and all that they answered; their places are free again."""
    session.execute(sa.select(Rater.id).where(Rater.id == rater).with_for_update())
    session.execute(sa.delete(Vote).where(Vote.rater == rater))
    session.execute(sa.delete(Assignment).where(Assignment.rater == rater, Assignment.slot.is_(None)))
    session.execute(sa.update(Assignment).where(Assignment.rater == rater).values(**FREE))
    session.execute(sa.delete(Rater).where(Rater.id == rater))


FREE = {"rater": None, "position": None, "claimed_at": None, "voted": False}


def _lock(session: Session, rater: str) -> bool:
    """Keep other transactions from acting for the same rater, and say whether the study is open."""
    is_open = sa.select(StudyRow.open).scalar_subquery()
    row = sa.select(is_open).select_from(Rater).where(Rater.id == rater).with_for_update(of=Rater)
    if (found := session.execute(row).scalar_one_or_none()) is None:
        raise UnknownRaterError("there is no such rater")
    return found


def _fill(session: Session, study: Study, rater: str) -> list[Held]:
    """Give a rater items until they hold `HELD`, as far as there are any."""
    mine = held(session, rater)
    while len(mine) < HELD and (more := _claim(session, study, rater)):
        mine.append(more)
    return mine


def _claim(session: Session, study: Study, rater: str) -> Held | None:
    """Give a rater one more item, if there is one."""
    own = sa.select(sa.func.max(Assignment.position)).where(Assignment.rater == rater)
    position = (session.execute(own).scalar_one() or 0) + 1
    if study.config.items_per_rater and position > study.config.items_per_rater:
        return None
    taken = {"rater": rater, "position": position, "claimed_at": time.time()}
    if _is_check(study, rater, position) and (check := _unseen_check(session, study, rater)):
        turn = random.randrange(len(study.items[check].options))
        row = {"item": check, "slot": None, "turn": turn, "shuffle": 0, **taken}
        place = session.execute(sa.insert(Assignment).values(**row).returning(Assignment.id)).scalar_one()
        return Held(place, check, turn, position)
    free = _free(session, rater)
    if free is None and _release(session, study):
        free = _free(session, rater)
    if free is None:
        return None
    session.execute(sa.update(Assignment).where(Assignment.id == free.id).values(**taken))
    return Held(free.id, free.item, free.turn, position)


def _free(session: Session, rater: str) -> Any:
    """The next free place of an item that the rater has not seen; first votes of all items come before second ones."""
    seen = sa.select(Assignment.item).where(Assignment.rater == rater)
    return session.execute(
        sa.select(Assignment.id, Assignment.item, Assignment.turn)
        .where(Assignment.rater.is_(None), Assignment.slot.is_not(None), Assignment.item.not_in(seen))
        .order_by(Assignment.slot, Assignment.shuffle)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()


def _changed(session: Session, statement: sa.Update) -> bool:
    """Whether a statement found a row to change."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return bool(getattr(result, "rowcount"))  # noqa: B009


def _release(session: Session, study: Study) -> int:
    """Free the places that were held too long without an answer, and count them."""
    late = (
        sa.select(Assignment.id)
        .where(Assignment.slot.is_not(None), ~Assignment.voted)
        .where(Assignment.claimed_at < time.time() - 60 * study.config.lease_minutes)
        .with_for_update(skip_locked=True)
    )
    places = session.execute(late).scalars().all()
    if places:
        session.execute(sa.update(Assignment).where(Assignment.id.in_(places)).values(**FREE))
    return len(places)


def _is_check(study: Study, rater: str, position: int) -> bool:
    """Whether a rater's item is to be an attention check: one in each run of `check_every`, at a random place."""
    every = study.config.check_every
    if not every:
        return False
    run, place = divmod(position - 1, every)
    return place == random.Random(f"{rater} {run}").randrange(every)


def _unseen_check(session: Session, study: Study, rater: str) -> str | None:
    seen = set(session.execute(sa.select(Assignment.item).where(Assignment.rater == rater)).scalars())
    unseen = [item.id for item in study.checks if item.id not in seen]
    return random.choice(unseen) if unseen else None
