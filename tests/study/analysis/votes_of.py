"""Rows of votes, as `sfumato study export` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def row(points: Sequence[str], answer: Any, number: int = 0, **changes: Any) -> dict[str, Any]:
    """A vote on these points; every vote has a rater, a prompt and an item of its own unless changes say otherwise."""
    return {
        "rater": number,
        "prompt": f"prompt {number}",
        "item": number,
        "question": changes.get("kind", "pair"),
        "kind": "pair",
        "points": list(points),
        "images": [[f"images/{number}-{place}"] for place in range(len(points))],
        "answer": answer,
        "place": answer if isinstance(answer, int) else None,
        "passed": None,
        "seconds": 3.0,
        "excluded": [],
        **changes,
    }


def pairs(counts: Iterable[tuple[str, str, int, int, int]], raters: int = 12, prompts: int = 7) -> list[dict[str, Any]]:
    """Votes from (a, b, wins of a, ties, wins of b), dealt out to raters and prompts in turn."""
    answers = [
        ((a, b), answer) for a, b, wins, ties, losses in counts for answer in [0] * wins + [None] * ties + [1] * losses
    ]
    order = np.random.default_rng(0).permutation(len(answers))
    return [
        row(*answers[place], number, rater=number % raters, prompt=f"prompt {number % prompts}")
        for number, place in enumerate(order)
    ]
