"""The statements of the voting protocol, built once: building them costs more than the database takes to run them."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from sqlalchemy import bindparam

from sfumato.study.models import Assignment, Rater, StudyRow, Vote

study, rater, assignment, vote = (cast(sa.Table, model.__table__) for model in (StudyRow, Rater, Assignment, Vote))
places, votes = assignment.c, vote.c
WHO: sa.BindParameter[str] = bindparam("who")
MINE = places.rater == WHO

JOIN = sa.insert(rater)
IS_OPEN = sa.select(study.c.open)
LOCK = sa.select(IS_OPEN.scalar_subquery()).select_from(rater).where(rater.c.id == WHO).with_for_update(of=rater)
"""A row if there is such a rater: whether the study is open. Others wait who want to act for the same rater."""

LAST_KEY = sa.select(votes.key).where(votes.rater == WHO, votes.undone_at.is_(None)).order_by(votes.id.desc()).limit(1)
ANSWERED = sa.select(sa.func.count()).select_from(assignment).where(MINE, places.voted)
STATE = sa.select(
    IS_OPEN.scalar_subquery().label("open"),
    sa.exists().where(rater.c.id == WHO).label("joined"),
    ANSWERED.scalar_subquery().label("answered"),
    LAST_KEY.scalar_subquery().label("last_key"),
)

HELD = (
    sa.select(places.id, places.item, places.turn, places.position)
    .where(MINE, ~places.voted)
    .order_by(places.position)
    .limit(bindparam("most"))
)
LAST_POSITION = sa.select(sa.func.coalesce(sa.func.max(places.position), 0)).where(MINE)
SEEN = sa.select(places.item).where(MINE)

FREE = (
    sa.select(places.id)
    .where(places.rater.is_(None), places.slot.is_not(None), places.item.not_in(SEEN))
    .order_by(places.slot, places.shuffle)
    .limit(1)
    .with_for_update(skip_locked=True)
)
"""A free place of an item that the rater has not seen; first votes of all items come before second ones."""
CLAIM = (
    sa.update(assignment)
    .where(places.id == FREE.scalar_subquery())
    .values(rater=WHO, position=bindparam("at"), claimed_at=bindparam("now"))
    .returning(places.id, places.item, places.turn, places.position)
)
MEET_CHECK = sa.insert(assignment).returning(places.id)

TAKE = sa.update(assignment).where(places.id == bindparam("place"), MINE, ~places.voted).values(voted=True)
KNOWN = sa.select(votes.rater, votes.undone_at, votes.assignment).where(votes.key == bindparam("of"))
VOTE = sa.insert(vote)
WITHDRAW = sa.update(vote).where(votes.key == bindparam("of")).values(undone_at=bindparam("now"), answer=None)
GIVE_BACK = sa.update(assignment).where(places.id == bindparam("place")).values(voted=False)

LATE = (
    sa.select(places.id)
    .where(places.slot.is_not(None), ~places.voted, places.claimed_at < bindparam("before"))
    .with_for_update(skip_locked=True)
)
EMPTY = {"rater": None, "position": None, "claimed_at": None, "voted": False}
RELEASE = sa.update(assignment).where(places.id.in_(bindparam("late", expanding=True))).values(**EMPTY)

FORGET = (
    sa.delete(vote).where(votes.rater == WHO),
    sa.delete(assignment).where(MINE, places.slot.is_(None)),
    sa.update(assignment).where(MINE).values(**EMPTY),
    sa.delete(rater).where(rater.c.id == WHO),
)
"""In this order: votes, checks, the places that others can have, the rater."""
