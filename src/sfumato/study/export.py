"""Votes as data: a row per vote, and pairs to learn a reward from.

`sfumato study export STUDY` writes JSON lines with

| column | meaning |
|---|---|
| `vote` | number of the vote, in the order in which they were taken |
| `rater` | label of the rater, random |
| `item` | id of the item, as in `items.jsonl` |
| `question`, `kind` | name of the question, and pair, best_of, rank, variety or rating |
| `prompt` | what the images should show |
| `points` | for each option its operating point (null in attention checks) |
| `images` | for each option its files, relative to the study folder |
| `order` | the options in the order in which they were shown |
| `answer` | pair, variety, best_of: option chosen, null for a tie; rank: all options, best first; rating: a number |
| `place` | where on the page the chosen (or best) option was, from 0; null for ties and ratings |
| `passed` | whether an attention check was passed; null if it was none |
| `position` | which of the rater's items it was, from 1 |
| `seconds` | from the page to the answer |
| `voted_at` | ISO 8601, UTC |
| `excluded` | why the rater is left out by the study's rules, a list of reasons; empty if not |

Options count from 0. Votes that were taken back are not among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sfumato.runs import write_jsonl
from sfumato.study.answers import Answer, comparisons, passes
from sfumato.study.config import Question
from sfumato.study.exclusion import reasons_by_rater
from sfumato.study.folder import Study
from sfumato.study.models import Assignment, Rater, Vote

PAIRED = ("pair", "best_of", "rank")
"""Kinds whose answers say which of two images was preferred."""


def vote_rows(connection: sa.Connection, study: Study) -> list[dict[str, Any]]:
    """All votes that were not taken back, attention checks included, with the columns above."""
    columns = (Vote.id, Rater.label, Assignment.item, Assignment.turn, Assignment.position)
    found = connection.execute(
        sa.select(*columns, Vote.answer, Vote.seconds, Vote.voted_at)
        .join(Assignment, Vote.assignment == Assignment.id)
        .join(Rater, Vote.rater == Rater.id)
        .where(Vote.undone_at.is_(None))
        .order_by(Vote.id)
    )
    rows = [_row(study, *values) for values in found]
    excluded = reasons_by_rater(rows, study.config.exclusion)
    return [{**row, "excluded": excluded.get(row["rater"], [])} for row in rows]


def _row(
    study: Study,
    vote: int,
    rater: str,
    item_id: str,
    turn: int,
    position: int | None,
    answer: Any,
    seconds: float,
    at: float,
) -> dict[str, Any]:
    item = study.items[item_id]
    question = study.question(item)
    order = item.order(turn)
    return {
        "vote": vote,
        "rater": rater,
        "item": item_id,
        "question": question.label,
        "kind": question.kind,
        "prompt": item.prompt,
        "points": [option.point for option in item.options],
        "images": [[f"images/{name}" for name in option.images] for option in item.options],
        "order": order,
        "answer": answer,
        "place": _place(question, order, answer),
        "passed": passes(question, item, answer) if item.check is not None else None,
        "position": position,
        "seconds": round(seconds, 3),
        "voted_at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
    }


def _place(question: Question, order: list[int], answer: Answer) -> int | None:
    if answer is None or question.kind == "rating":
        return None
    return order.index(answer[0] if isinstance(answer, list) else answer)


def pair_rows(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What votes say about two images of a prompt: prompt, image_0, image_1 and label, as `Pair` of preferences.

    Attention checks, ratings, sets, and raters who are left out give none. Image paths are relative to the study
    folder.
    """
    for row in rows:
        if row["kind"] not in PAIRED or row["passed"] is not None or row["excluded"]:
            continue
        for first, second, label in comparisons(row):
            yield {
                "prompt": row["prompt"],
                "image_0": row["images"][first][0],
                "image_1": row["images"][second][0],
                "label": label,
            }


def write_pairs(path: str | Path, study: Study, rows: Iterable[dict[str, Any]]) -> int:
    """Write what `sfumato preference train` reads, image paths relative to the file, and count the pairs."""
    path = Path(path)
    pairs = []
    for row in pair_rows(rows):
        paths = {key: os.path.relpath(study.path / row[key], path.parent) for key in ("image_0", "image_1")}
        pairs.append({**row, **paths})
    write_jsonl(path, pairs)
    return len(pairs)
