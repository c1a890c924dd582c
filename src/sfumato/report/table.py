"""The figures of a frontier as plain text."""

from __future__ import annotations

from typing import Any

from sfumato.report.story import unscaled

COLUMNS = ("reward", "gold", "vendi", "distance", "recall", "precision", "style_entropy", "subcategory_entropy")
LEGEND = "* no other point is at least as good on both axes and better on one"


def frontier_table(frontier: dict[str, Any]) -> str:
    """One line per operating point, `*` where no other is better on both axes, then methods compared and warnings.

    Where tuning did not change an axis beyond noise a sentence stands in the place of the hypervolumes.
    """
    points = frontier["points"]
    columns = [name for name in COLUMNS if any(name in point["metrics"] for point in points)]
    head = ["", "operating point", *columns, "F/image"]
    rows = [
        ["*" if point["nondominated"] else "", point["label"]]
        + [f"{point['metrics'][name]['mean']:.3f}" if name in point["metrics"] else "" for name in columns]
        + [f"{point['forwards']:.1f}"]
        for point in points
    ]
    told = [why] if (why := unscaled(frontier)) else _volumes(frontier)
    warnings = [f"\nwarning: {warning}" for warning in frontier["warnings"]]
    return "\n".join([*aligned([head, *rows]), "", LEGEND, "", *told, *warnings])


def _volumes(frontier: dict[str, Any]) -> list[str]:
    volumes = [
        f"{m['name']}: {m['hypervolume']['mean']:.3f} [{m['hypervolume']['low']:.3f}, {m['hypervolume']['high']:.3f}]"
        + (" (another number of points: not like for like)" if m["points_differ"] else "")
        for m in frontier["methods"]
    ]
    chances = [f"P({c['a']} > {c['b']}) = {c['probability']:.2f}" for c in frontier["comparisons"]]
    return ["hypervolume (95 % over prompts)", *volumes, "", *chances]


def aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
