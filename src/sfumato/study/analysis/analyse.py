"""All that the votes of a study say, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from sfumato.runs import versions
from sfumato.study.analysis.agreement import agreement
from sfumato.study.analysis.automatic import Automatic, read_automatic
from sfumato.study.analysis.effects import describe_raters, position_bias, variance_shares
from sfumato.study.analysis.predict import predictions
from sfumato.study.analysis.proportions import POWER, Proportion, detectable, holm
from sfumato.study.analysis.ratings import mean_ratings
from sfumato.study.analysis.strengths import REPETITIONS, Strengths
from sfumato.study.analysis.votes import Duels, Row, is_simulated
from sfumato.study.config import Question
from sfumato.study.folder import Study


def analyse_study(study: Study, rows: Sequence[Row], repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Analyse votes, without those of excluded raters and, for comparison, with them.

    Args:
        study: the study folder; its runs are read for the automatic measures, as far as they are there.
        rows: its votes, as `sfumato study export` gives them.
        repetitions: number of bootstrap resamples.

    Returns:
        What `docs/study-analysis.md` lists, as plain values.

    Raises:
        ValueError: there is no vote that counts.
    """
    real = [row for row in rows if row["passed"] is None]
    kept = [row for row in real if not row["excluded"]]
    if not kept:
        left_out = f" ({len(real)} are of raters who are left out)" if real else ""
        raise ValueError(f"{study.path} has no votes to analyse{left_out}: serve the study first, or simulate raters")
    automatic = read_automatic(study)
    raters = describe_raters(rows)
    questions = [
        _question(question, kept, real, automatic, list(study.config.points), repetitions)
        for question in study.config.questions
        if any(row["question"] == question.label for row in kept)
    ]
    _adjust(questions)
    return {
        "name": study.config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "votes": len(kept),
        "raters": len({row["rater"] for row in kept}),
        "simulated": sum(is_simulated(row["rater"]) for row in raters),
        "excluded": {row["rater"]: row["excluded"] for row in raters if row["excluded"]},
        "excluded_votes": len(real) - len(kept),
        "rules": study.config.exclusion.model_dump(mode="json"),
        "power": POWER,
        "questions": questions,
        "rater_table": raters,
        "automatic": {"points": automatic.points, "axes": automatic.axes, "missing": automatic.missing},
        "versions": versions(),
    }


def _question(
    question: Question,
    kept: Sequence[Row],
    real: Sequence[Row],
    automatic: Automatic,
    points: list[str],
    repetitions: int,
) -> dict[str, Any]:
    """One question; `all_votes` has its main figures with nobody left out."""
    own, everyone = ([row for row in rows if row["question"] == question.label] for rows in (kept, real))
    rating = question.kind == "rating"
    found = _preferences(own, points, repetitions) if not rating else _means(own, points)
    if len(everyone) > len(own):
        found["all_votes"] = _preferences(everyone, points, repetitions) if not rating else _means(everyone, points)
    return {
        "name": question.label,
        "kind": question.kind,
        "votes": len(own),
        "raters": len({row["rater"] for row in own}),
        "prompts": len({row["prompt"] for row in own}),
        "ties": sum(row["answer"] is None for row in own),
        **found,
        "effects": None if rating else variance_shares(Duels.of(own, points)),
        "position": [] if rating else position_bias(own),
        "agreement": {scale: asdict(agreement(own, scale)) for scale in _scales(question)},
        "predictions": predictions(own, automatic),
    }


def _scales(question: Question) -> list[Any]:
    """A chosen option of several has no order."""
    return ["nominal"] if question.kind == "best_of" else ["nominal", "ordinal"]


def _preferences(rows: Sequence[Row], points: list[str], repetitions: int) -> dict[str, Any]:
    """Win rates and strengths of the points that have votes."""
    present = _present(rows, points)
    duels = Duels.of(rows, present)
    rates = [row for i, j in combinations(range(len(present)), 2) if (row := _win_rate(duels, i, j))]
    try:
        strengths = _strengths(Strengths.of(rows, present, repetitions))
    except ValueError as error:
        strengths = {"model": None, "why": str(error), "points": []}
    return {"win_rates": rates, "strengths": strengths}


def _win_rate(duels: Duels, i: int, j: int) -> dict[str, Any] | None:
    shares, clusters = duels.between(i, j)
    if not len(shares):
        return None
    found = Proportion.of(shares, clusters)
    counts = {"wins": int((shares == 1).sum()), "ties": int((shares == 0.5).sum()), "losses": int((shares == 0).sum())}
    return {"a": duels.points[i], "b": duels.points[j], **counts, **found.row(), "freedom": found.freedom}


def _strengths(found: Strengths) -> dict[str, Any]:
    rows = [
        {"point": name, **{key: value if math.isfinite(value) else None for key, value in asdict(interval).items()}}
        for name, interval in zip(found.points, found.intervals, strict=True)
    ]
    return {"model": found.model, "tie": found.tie, "separable": found.separable, "points": rows}


def _means(rows: Sequence[Row], points: list[str]) -> dict[str, Any]:
    means, differences = mean_ratings(rows, _present(rows, points))
    return {"ratings": means, "differences": differences}


def _present(rows: Sequence[Row], points: list[str]) -> list[str]:
    there = {name for row in rows for name in row["points"]}
    return [name for name in points if name in there]


def _adjust(questions: Sequence[dict[str, Any]]) -> None:
    """Add to every comparison of two points, of all questions, its p-value by Holm and what could be detected."""
    for everyone in (False, True):
        parts = [own.get("all_votes", own) if everyone else own for own in questions]
        family = [row for part in parts for row in part.get("win_rates", part.get("differences", []))]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_adjusted"] = p
            if "worth" in row:
                row["detectable"] = detectable(row["worth"], row["freedom"])
                row["detectable_adjusted"] = detectable(row["worth"], row["freedom"], len(family))
