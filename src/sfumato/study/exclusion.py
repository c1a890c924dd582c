"""Whose votes are left out, by the rules that the study's YAML fixed before there were any."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from sfumato.study.config import ExclusionConfig

FEWEST = 20
"""Votes by which it is judged whether somebody chooses the same place all the time."""


def reasons_by_rater(votes: Iterable[dict[str, Any]], rules: ExclusionConfig) -> dict[str, list[str]]:
    """Why raters are left out: label -> reasons, those of whom nothing is wrong left out.

    Args:
        votes: rows of `vote_rows`, attention checks included.
    """
    own = defaultdict(list)
    for row in votes:
        own[row["rater"]].append(row)
    found = {rater: _reasons(rows, rules) for rater, rows in own.items()}
    return {rater: reasons for rater, reasons in found.items() if reasons}


def _reasons(rows: Sequence[dict[str, Any]], rules: ExclusionConfig) -> list[str]:
    reasons = []
    checks = [row["passed"] for row in rows if row["passed"] is not None]
    failed = checks.count(False)
    if rules.failed_checks is not None and checks and failed / len(checks) > rules.failed_checks:
        reasons.append(f"failed {failed} of {len(checks)} attention checks")
    seconds = median(row["seconds"] for row in rows)
    if rules.seconds is not None and seconds < rules.seconds:
        reasons.append(f"took {seconds:.1f} s for a vote, at the median")
    places = [row["place"] for row in rows if row["place"] is not None]
    most = max(Counter(places).values(), default=0)
    if rules.same_place is not None and len(places) >= FEWEST and most / len(places) > rules.same_place:
        reasons.append(f"chose the same place in {most} of {len(places)} votes")
    return reasons
