"""Answers: from what a page sends, which speaks of places on it, to options of the item; and what they say.

| kind | answer |
|---|---|
| pair, variety | the option that was chosen, or None for a tie |
| best_of | the option that was chosen |
| rank | all options, the best first |
| rating | 1 to the question's scale |

Options are counted from 0 in the order of the item's `options`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from sfumato.study.config import Question
from sfumato.study.folder import Item

Answer = int | list[int] | None
TIE = "tie"


def read_answer(question: Question, item: Item, turn: int, answer: str | None, ranks: Sequence[int] = ()) -> Answer:
    """What was answered.

    Args:
        turn: in which the item was shown.
        answer: the place that was chosen, from 1, or "tie"; of a rating its value.
        ranks: instead, for every place its rank, 1 for the best.

    Raises:
        ValueError: it answers another question.
    """
    order = item.order(turn)
    if question.kind == "rank":
        if sorted(ranks) != list(range(1, len(order) + 1)):
            raise ValueError("ranks must all differ")
        return [order[place] for place in sorted(range(len(order)), key=lambda place: ranks[place])]
    if answer == TIE and question.kind in ("pair", "variety") and question.ties:
        return None
    most = question.scale if question.kind == "rating" else len(order)
    if answer not in {str(value) for value in range(1, most + 1)}:
        raise ValueError(f"{answer!r} is no answer to this question")
    return int(answer) if question.kind == "rating" else order[int(answer) - 1]


def passes(question: Question, item: Item, answer: Answer) -> bool:
    """Whether an answer to an attention check is one that somebody who looks can give."""
    if question.kind == "rating":
        return isinstance(answer, int) and 2 * answer <= question.scale
    if question.kind == "rank":
        return isinstance(answer, list) and answer[-1] == item.check
    return answer is not None and answer != item.check


def comparisons(row: dict[str, Any]) -> Iterator[tuple[int, int, float]]:
    """What a vote says about two options: their numbers, and 1, 0 or, for a tie, 0.5 as the share of the first.

    The best of several was preferred to each of the others; in a ranking each option to all after it.

    Args:
        row: a vote as it is exported, of any kind but rating.
    """
    answer, options = row["answer"], range(len(row["points"]))
    for first, second in combinations(options, 2):
        if isinstance(answer, list):
            yield first, second, float(answer.index(first) < answer.index(second))
        elif answer is None or answer in (first, second):
            yield first, second, 0.5 if answer is None else float(answer == first)
