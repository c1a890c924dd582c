"""The planes of a study's report: what people say, and what the run measured, with the same marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sfumato.report import vocabulary
from sfumato.report.figure import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Mark,
    draw_axes,
    draw_bars,
    draw_names,
    draw_shape,
)

Ends = tuple[float, float, float]
"""Mean, low and high."""


def plane_svg(
    points: Sequence[tuple[str, Ends, Ends]], keys: tuple[str, str], looks: Mapping[str, tuple[str, str]]
) -> str:
    """Points on two axes on which more is better, with intervals; a ring where none beats a point on both.

    Args:
        points: name, place across and place up.
        keys: what the axes are called, as `vocabulary.metric` takes it.
        looks: label and style class of every point.
    """
    x = _axis([value for _, across, _ in points for value in across], LEFT, RIGHT)
    y = _axis([value for _, _, up in points for value in up], BOTTOM, TOP)
    marks = []
    for name, across, up in points:
        label, style = looks[name]
        best = not any(_beats((a[0], b[0]), (across[0], up[0])) for _, a, b in points)
        bars = (x(across[1]), x(across[2]), y(up[1]), y(up[2]))
        marks.append(Mark(x(across[0]), y(up[0]), bars, name, label, style, best))
    parts = [draw_axes(x, y, keys), *map(draw_bars, marks), *map(draw_shape, marks), *draw_names(marks)]
    words = ", ".join(
        f"{looks[name][0]} {vocabulary.number(across[0])} / {vocabulary.number(up[0])}" for name, across, up in points
    )
    titles = " against ".join(vocabulary.metric(key).label.lower() for key in reversed(keys))
    label = escape(f"{vocabulary.capitalise(titles)}: {words}")
    return f'<svg viewBox="0 36 {WIDTH} {HEIGHT - 36}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def ends(row: Mapping[str, Any]) -> Ends:
    """Mean, low and high of a row; without an interval the mean three times."""
    mean, low, high = row["mean"], row["low"], row["high"]
    return mean, mean if low is None else low, mean if high is None else high


def track(rows: Sequence[Mapping[str, float | None]]) -> list[dict[str, float]]:
    """Where means, lows and highs are on one common track, in percent of its width."""
    values = [value for row in rows for value in row.values() if value is not None]
    low, width = min(values), (max(values) - min(values)) or 1.0
    return [{key: 5 + 90 * (value - low) / width for key, value in row.items() if value is not None} for row in rows]


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = ((high - low) or abs(high) or 1.0) * 0.05
    return Axis(low - margin, high + margin, start, end)


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b
