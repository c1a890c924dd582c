"""The report of a study as one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfumato.report import vocabulary
from sfumato.report.figure import STYLE
from sfumato.report.vocabulary import lower_first, percent, plural
from sfumato.report.web import asset, template
from sfumato.study.analysis.charts import ends, plane_svg, track
from sfumato.study.analysis.predict import PEOPLE

SURE = 0.05
VERBS = {"variety": "find {a} more varied than {b}", "rating": "rate {a} higher than {b}"}
PREFER = "prefer {a} to {b}"
UNSURE = {"variety": "difference in variety", "rating": "difference in ratings"}
ABOUT = {
    "pair": "The better of two pictures",
    "best_of": "The best of several pictures",
    "rank": "The order of several pictures",
    "variety": "The more varied of two sets",
    "rating": "How good a picture is",
}
PERSON, VARIETY = "human_preference", "perceived_diversity"
LIKED = ("pair", "rank", "best_of", "rating")


def study_page(found: dict[str, Any]) -> str:
    """The report.

    Args:
        found: what `analyse_study` returned.
    """
    labels = {name: point["label"] for name, point in found["automatic"]["points"].items()}
    looks = _looks(found, labels)
    who = "Simulated raters" if found["simulated"] == len(found["rater_table"]) else "People"
    questions = [_question(question, labels, who) for question in found["questions"]]
    return template("study.html").render(
        found=found,
        title=questions[0]["sentence"].rstrip("."),
        questions=questions,
        human=_human(found, looks),
        measured=_measured(found, looks),
        beside=_beside(found, looks),
        looks=looks,
        shape=vocabulary.shape,
        label=lambda name: labels.get(name, name),
        measure=lambda key: key if key == PEOPLE else vocabulary.metric(key).label,
        rules=_rules(found["rules"]),
        suspects=[row for row in found["rater_table"] if (row["p_side_adjusted"] or 1) < SURE],
        about=ABOUT,
        style=STYLE,
        asset=asset,
    )


def _looks(found: dict[str, Any], labels: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Label and style class of every operating point that has votes."""
    names = dict.fromkeys(name for question in found["questions"] for name in _points(question))
    points = found["automatic"]["points"]
    styles = vocabulary.styles([points[name]["method"] if name in points else name for name in names])
    return {
        name: (labels.get(name, name), styles[points[name]["method"] if name in points else name]) for name in names
    }


def _points(question: dict[str, Any]) -> list[str]:
    """The points of a question, the most liked first."""
    rows = _scores(question)
    if rows:
        return [row["point"] for row in sorted(rows, key=lambda row: -row["mean"])]
    return list(dict.fromkeys(row[side] for row in question["win_rates"] for side in ("a", "b")))


def _scores(question: dict[str, Any]) -> list[dict[str, Any]]:
    return question["ratings"] if question["kind"] == "rating" else question["strengths"]["points"]


def _question(question: dict[str, Any], labels: dict[str, str], who: str) -> dict[str, Any]:
    """A question as the page shows it: a sentence, the points on one track, the matrix of who beats whom."""
    order = _points(question)
    rows = sorted(_scores(question), key=lambda row: -row["mean"])
    places = track([{key: row[key] for key in ("mean", "low", "high")} for row in rows]) if rows else []
    foreseen = question["predictions"]
    bars = [{"mean": r["share"], "low": r["clustered_low"], "high": r["clustered_high"]} for r in foreseen]
    return {
        **question,
        "sentence": f"{who} {_sentence(question, labels)}.",
        "order": order,
        "rows": list(zip(rows, places, strict=True)),
        "foreseen": list(zip(foreseen, track([*bars, {"mean": 0.5}])[:-1], strict=True)) if foreseen else [],
        "matrix": _matrix(question),
        "pairs": _pairs(question),
        "unequal": _changed(question),
    }


def _sentence(question: dict[str, Any], labels: dict[str, str]) -> str:
    """What raters do, by the difference of two points that is surest."""
    known = [row for row in _pairs(question) if row["p_adjusted"] is not None]
    rating = question["kind"] == "rating"
    best = min(known, key=lambda row: (row["p_adjusted"], row["p"]), default=None)
    if best is None or best["p_adjusted"] >= SURE:
        return f"show no sure {UNSURE.get(question['kind'], 'preference')}"
    turned = best["mean"] < 0 if rating else best["share"] < 0.5
    a, b = (labels.get(best[side], best[side]) for side in (("b", "a") if turned else ("a", "b")))
    said = VERBS.get(question["kind"], PREFER).format(a=a, b=b)
    if rating:
        return said
    share, low, high = (best[key] for key in ("share", "clustered_low", "clustered_high"))
    share, low, high = (1 - share, 1 - high, 1 - low) if turned else (share, low, high)
    of = f"{percent(share)} of {plural(best['votes'], 'comparison')}"
    return f"{said} in {of} ({percent(low)} to {percent(high)})"


def _pairs(question: dict[str, Any]) -> list[dict[str, Any]]:
    return question["differences"] if question["kind"] == "rating" else question["win_rates"]


def _matrix(question: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Win rates of the row over the column, both ways round."""
    cells = {}
    for row in question.get("win_rates", []):
        cells[row["a"], row["b"]] = row
        cells[row["b"], row["a"]] = {
            **row,
            "share": 1 - row["share"],
            **{
                low: None if row[high] is None else 1 - row[high]
                for low, high in (("clustered_low", "clustered_high"), ("clustered_high", "clustered_low"))
            },
        }
    return cells


def _changed(question: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Each point's score without and with the votes of excluded raters."""
    if "all_votes" not in question:
        return []
    everyone = {row["point"]: row["mean"] for row in _scores(question | question["all_votes"])}
    return [
        (row["point"], row["mean"], everyone[row["point"]]) for row in _scores(question) if row["point"] in everyone
    ]


def _human(found: dict[str, Any], looks: dict[str, tuple[str, str]]) -> str:
    """Human preference across and perceived diversity up, if both were asked about."""
    liked = _by_point(found["questions"], LIKED)
    varied = _by_point(found["questions"], ("variety",))
    shared = [name for name in liked if name in varied]
    if len(shared) < 2:
        return ""
    return plane_svg([(name, ends(liked[name]), ends(varied[name])) for name in shared], (PERSON, VARIETY), looks)


def _by_point(questions: Sequence[dict[str, Any]], kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The scores of the first question of the first of these kinds that was asked."""
    for kind in kinds:
        for question in questions:
            if question["kind"] == kind and _scores(question):
                return {row["point"]: row for row in _scores(question)}
    return {}


def _measured(found: dict[str, Any], looks: dict[str, tuple[str, str]]) -> list[str]:
    """The automatic frontiers of the same points: the run's axes, and gold where the run has it."""
    points, axes = found["automatic"]["points"], found["automatic"]["axes"]
    if not axes:
        return []
    drawn = []
    for key in dict.fromkeys([axes[0], "gold"]):
        known = [
            (name, ends(points[name]["metrics"][key]), ends(points[name]["metrics"][axes[1]]))
            for name in looks
            if name in points and {key, axes[1]} <= points[name]["metrics"].keys()
        ]
        if len(known) > 1:
            drawn.append(plane_svg(known, (key, axes[1]), looks))
    return drawn


def _beside(found: dict[str, Any], looks: dict[str, tuple[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Columns of figures by point: what people say, and the run's axes, gold and recall; each by its label."""
    points, axes = found["automatic"]["points"], found["automatic"]["axes"]
    columns = {
        vocabulary.metric(PERSON).label: _by_point(found["questions"], LIKED),
        vocabulary.metric(VARIETY).label: _by_point(found["questions"], ("variety",)),
    }
    for key in dict.fromkeys([axes[0], "gold", axes[1], "recall"]) if axes else ():
        own = {name: point["metrics"][key] for name, point in points.items() if key in point["metrics"]}
        columns[vocabulary.metric(key).label] = {name: own[name] for name in looks if name in own}
    return {label: own for label, own in columns.items() if own}


def _rules(rules: dict[str, float | None]) -> list[str]:
    """The rules of exclusion in words."""
    words = {
        "failed_checks": lambda value: f"who failed more than {percent(value)} of the attention checks",
        "seconds": lambda value: f"whose median time for a vote is below {lower_first(vocabulary.number(value))} s",
        "same_place": lambda value: f"who chose the same place in more than {percent(value)} of 20 votes or more",
    }
    return [words[key](value) for key, value in rules.items() if value is not None]
