"""An analysis on disk: JSON with everything, a CSV for each table, and the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sfumato.runs import write_json, write_text
from sfumato.study.analysis.page import study_page


def write_analysis(folder: str | Path, found: dict[str, Any]) -> Path:
    """Write `analysis.json`, `*.csv` and `report.html` into a folder.

    Args:
        folder: where; made if need be.
        found: what `analyse_study` returned.

    Returns:
        The path of the report.
    """
    folder = Path(folder)
    write_json(folder / "analysis.json", found)
    for name, rows in _tables(found).items():
        if rows:
            write_text(folder / f"{name}.csv", _csv(rows))
    write_text(folder / "report.html", study_page(found))
    return folder / "report.html"


def _tables(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {"raters": found["rater_table"]}
    for question in found["questions"]:
        whole = [({"question": question["name"], "votes_of": "kept"}, question)]
        whole += [
            ({"question": question["name"], "votes_of": "all"}, part) for part in [question.get("all_votes")] if part
        ]
        for head, part in whole:
            for name in ("win_rates", "ratings", "differences"):
                tables.setdefault(name, []).extend({**head, **row} for row in part.get(name, []))
            tables.setdefault("strengths", []).extend(
                {**head, **row} for row in part.get("strengths", {}).get("points", [])
            )
        own = {"question": question["name"]}
        tables.setdefault("predictions", []).extend({**own, **row} for row in question["predictions"])
    return tables


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """A header and the rows; what is None stays empty, lists are joined by semicolons."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "; ".join(map(str, value))
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"  # a spreadsheet must not run it
    return value
