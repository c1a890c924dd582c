"""How items are given out, answered and taken back. Every function works inside a transaction of the caller.

A rater holds the item on the page and the one after it, whose images are already on their way. What is sent twice
counts once: a page has a key, and a key makes one vote, even after that vote was taken back.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from sfumato.study import statements as sql
from sfumato.study.answers import Answer
from sfumato.study.folder import Study

HELD = 2


class StaleError(ValueError):
    """What was sent does not fit what is in the database now; nothing was changed."""


class ClosedError(ValueError):
    """The study takes no more votes; nothing was changed."""


class UnknownRaterError(ValueError):
    """There is no such rater, or not any more."""


class State(NamedTuple):
    """Where a rater stands.

    Attributes:
        open: whether the study takes votes.
        joined: whether there is such a rater.
        answered: how many items they have answered.
        last_key: the key of their last vote that was not taken back.
    """

    open: bool
    joined: bool
    answered: int
    last_key: str | None


class Held(NamedTuple):
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


def join(connection: Connection, rater: str) -> None:
    """Let a rater take part; nothing happens if they do already.

    Raises:
        ClosedError: the study is closed.
    """
    where = state(connection, rater)
    if not where.open:
        raise ClosedError("the study is closed")
    if not where.joined:
        row = {"id": rater, "label": secrets.token_hex(6), "joined_at": time.time()}
        with contextlib.suppress(IntegrityError), connection.begin_nested():  # the same form, sent twice at once
            connection.execute(sql.JOIN, row)


def state(connection: Connection, rater: str) -> State:
    """Where somebody stands, rater or not."""
    return State(*connection.execute(sql.STATE, {"who": rater}).one())


def held(connection: Connection, rater: str) -> list[Held]:
    """What a rater is to answer, the next first; at most `HELD`."""
    return [Held(*row) for row in connection.execute(sql.HELD, {"who": rater, "most": HELD})]


def give(connection: Connection, study: Study, rater: str) -> list[Held]:
    """What a rater is to answer, after items were added up to `HELD` if there are any for them.

    Raises:
        UnknownRaterError: there is no such rater.
    """
    is_open = _lock(connection, rater)
    return _fill(connection, study, rater) if is_open else held(connection, rater)


def vote(
    connection: Connection, study: Study, rater: str, assignment: int, key: str, answer: Answer, seconds: float
) -> list[Held]:
    """Take a vote, and give the rater the next item; the same key again changes nothing.

    Raises:
        UnknownRaterError: there is no such rater.
        StaleError: the rater does not hold the item any more, or has answered it on another page.
        ClosedError: the study is closed.
    """
    is_open = _lock(connection, rater)
    if known := connection.execute(sql.KNOWN, {"of": key}).first():
        if known.rater != rater:
            raise StaleError("the page belongs to somebody else")
        return held(connection, rater)
    if not is_open:
        raise ClosedError("the study is closed")
    if not connection.execute(sql.TAKE, {"place": assignment, "who": rater}).rowcount:
        raise StaleError("the item was answered before, or has gone to somebody else")
    row = {"key": key, "assignment": assignment, "rater": rater, "answer": answer}
    connection.execute(sql.VOTE, {**row, "seconds": seconds, "voted_at": time.time(), "undone_at": None})
    return _fill(connection, study, rater)


def undo(connection: Connection, rater: str, key: str) -> None:
    """Take back a rater's last vote, which becomes their next item; the same key again changes nothing.

    Raises:
        UnknownRaterError: there is no such rater.
        StaleError: it is not the last vote.
        ClosedError: the study is closed.
    """
    is_open = _lock(connection, rater)
    found = connection.execute(sql.KNOWN, {"of": key}).first()
    if found and found.rater == rater and found.undone_at is not None:
        return
    if found is None or key != state(connection, rater).last_key:
        raise StaleError("only the last vote can be taken back")
    if not is_open:
        raise ClosedError("the study is closed")
    connection.execute(sql.WITHDRAW, {"of": key, "now": time.time()})
    connection.execute(sql.GIVE_BACK, {"place": found.assignment})


def forget(connection: Connection, rater: str) -> None:
    """Delete a rater and all that they answered; their places are free again."""
    connection.execute(sql.LOCK, {"who": rater})
    for statement in sql.FORGET:
        connection.execute(statement, {"who": rater})


def _lock(connection: Connection, rater: str) -> bool:
    """Keep other transactions from acting for the same rater, and say whether the study is open."""
    if (is_open := connection.execute(sql.LOCK, {"who": rater}).scalar_one_or_none()) is None:
        raise UnknownRaterError("there is no such rater")
    return is_open


def _fill(connection: Connection, study: Study, rater: str) -> list[Held]:
    """Give a rater items until they hold `HELD`, as far as there are any."""
    mine = held(connection, rater)
    while len(mine) < HELD and (more := _claim(connection, study, rater)):
        mine.append(more)
    return mine


def _claim(connection: Connection, study: Study, rater: str) -> Held | None:
    """Give a rater one more item, if there is one."""
    position = connection.execute(sql.LAST_POSITION, {"who": rater}).scalar_one() + 1
    if study.config.items_per_rater and position > study.config.items_per_rater:
        return None
    if _is_check(study, rater, position) and (check := _meet_check(connection, study, rater, position)):
        return check
    values = {"who": rater, "at": position, "now": time.time()}
    found = connection.execute(sql.CLAIM, values).first()
    if found is None and _release(connection, study):
        found = connection.execute(sql.CLAIM, values).first()
    return Held(*found) if found else None


def _release(connection: Connection, study: Study) -> bool:
    """Free the places that were held too long without an answer, and say whether there were any."""
    before = time.time() - 60 * study.config.lease_minutes
    late = connection.execute(sql.LATE, {"before": before}).scalars().all()
    if late:
        connection.execute(sql.RELEASE, {"late": late})
    return bool(late)


def _is_check(study: Study, rater: str, position: int) -> bool:
    """Whether a rater's item is to be an attention check: one in each run of `check_every`, at a random place."""
    every = study.config.check_every
    if not every:
        return False
    run, place = divmod(position - 1, every)
    return place == random.Random(f"{rater} {run}").randrange(every)


def _meet_check(connection: Connection, study: Study, rater: str, position: int) -> Held | None:
    """Give a rater an attention check that they have not seen, if there is one."""
    seen = set(connection.execute(sql.SEEN, {"who": rater}).scalars())
    unseen = [item for item in study.checks if item.id not in seen]
    if not unseen:
        return None
    item = random.choice(unseen)
    turn = random.randrange(len(item.options))
    row = {"item": item.id, "slot": None, "turn": turn, "shuffle": 0, "rater": rater, "position": position}
    values = {**row, "claimed_at": time.time(), "voted": False}
    return Held(connection.execute(sql.MEET_CHECK, values).scalar_one(), item.id, turn, position)
