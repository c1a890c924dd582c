"""What has come in so far, for whoever runs the study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from statistics import median
from typing import Any

import sqlalchemy as sa

from sfumato.study.export import vote_rows
from sfumato.study.folder import Study
from sfumato.study.models import Assignment, Rater, StudyRow

ACTIVE = timedelta(minutes=10)


def summarise(connection: sa.Connection, study: Study) -> dict[str, Any]:
    """Whether a study is open, and its raters, votes by question and excluded raters, as the admin page shows them."""
    row = connection.execute(sa.select(StudyRow.open, StudyRow.votes_per_item)).one()
    votes = vote_rows(connection, study)
    since = (datetime.now(UTC) - ACTIVE).isoformat()
    excluded: dict[str, dict[str, Any]] = {}
    for vote in votes:
        if vote["excluded"]:
            own = excluded.setdefault(vote["rater"], {"votes": 0, "reasons": vote["excluded"]})
            own["votes"] += 1
    return {
        "open": row.open,
        "votes_per_item": row.votes_per_item,
        "raters": connection.execute(sa.select(sa.func.count()).select_from(Rater)).scalar_one(),
        "active": len({vote["rater"] for vote in votes if vote["voted_at"] > since}),
        "held": connection.execute(
            sa.select(sa.func.count()).where(Assignment.rater.is_not(None), ~Assignment.voted)
        ).scalar_one(),
        "questions": [
            _question(study, question.label, votes, row.votes_per_item) for question in study.config.questions
        ],
        "excluded": excluded,
    }


def _question(study: Study, name: str, votes: Iterable[dict[str, Any]], per_item: int) -> dict[str, Any]:
    own = [vote for vote in votes if vote["question"] == name and vote["passed"] is None]
    items = sum(item.question == name and item.check is None for item in study.items.values())
    seconds = [vote["seconds"] for vote in own]
    return {
        "name": name,
        "votes": len(own),
        "wanted": items * per_item,
        "agreement": agreement(own),
        "seconds": median(seconds) if seconds else None,
    }


def agreement(votes: Sequence[dict[str, Any]]) -> float | None:
    """The share of pairs of votes on the same item that are the same answer; None if no item has two votes."""
    answers: dict[str, list[Any]] = defaultdict(list)
    for vote in votes:
        answers[vote["item"]].append(vote["answer"])
    same = [a == b for own in answers.values() for a, b in combinations(own, 2)]
    return sum(same) / len(same) if same else None
