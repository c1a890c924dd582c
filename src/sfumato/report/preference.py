"""What a learned preference reward is worth, as one HTML file: accuracy, reliability, learning curve, training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sfumato.report.figure import Axis
from sfumato.report.vocabulary import number, percent, plural
from sfumato.report.web import asset, template
from sfumato.runs import read_json, write_text

WIDTH, HEIGHT = 460, 360
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 16, 16, HEIGHT - 56
Mark = tuple[float, float, float, float, str]
"""x, y, low and high end of the interval of y, and what a pointer over it reads."""


def write_preference_page(folder: str | Path) -> Path:
    """Write `evaluation.html` beside the `evaluation.json` of a reward's folder; it needs nothing but itself.

    Raises:
        FileNotFoundError: the folder has no `evaluation.json`: the reward is not learned to the end.
    """
    folder = Path(folder)
    found = read_json(folder / "evaluation.json")
    page = template("preference.html").render(
        name=folder.resolve().name,
        found=found,
        on="pairs to report on" if found["reported_on"] == "test" else "held-out pairs",
        reliability=reliability_svg(found),
        curve=curve_svg(found["curve"]) if len(found["curve"]) > 1 else "",
        training=training_svg(found["members"]),
        asset=asset,
    )
    path = folder / "evaluation.html"
    write_text(path, page)
    return path


def reliability_svg(found: dict[str, Any]) -> str:
    """How often the raters took the reward's side against how sure it was; hollow: before calibration."""
    x, y = Axis(0.5, 1.0, LEFT, RIGHT), Axis(0.0, 1.0, BOTTOM, TOP)
    parts = [_grid(x, y, "confidence of the reward", "raters agree")]
    parts.append(f'<path class="ideal" d="M{x(0.5):.1f} {y(0.5):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    most = max(each["count"] for each in found["calibration"]["bins"])
    for each in found["calibration"]["bins"]:
        height, middle = 40 * each["count"] / most, x(each["confidence"])
        parts.append(
            f'<rect class="count" x="{middle - 9:.1f}" y="{BOTTOM - height:.1f}" width="18" height="{height:.1f}"/>'
        )
    before = found.get("uncalibrated", {}).get("bins", [])
    parts += [_marks(x, y, map(_bin, before), "m6 before"), _marks(x, y, map(_bin, found["calibration"]["bins"]), "m0")]
    words = f"calibration error {number(found['calibration']['ece'])}"
    return _svg(parts, f"Reliability diagram: {words}")


def _bin(each: dict[str, Any]) -> Mark:
    label = f"{plural(each['count'], 'pair')}: sure {percent(each['confidence'])}, right {percent(each['right'])}"
    return each["confidence"], each["right"], each["low"], each["high"], label


def curve_svg(curve: Sequence[dict[str, Any]]) -> str:
    """Accuracy against the number of pairs, which doubles at equal distances."""
    counts = [math.log2(each["pairs"]) for each in curve]
    margin = (counts[-1] - counts[0]) * 0.06 or 1.0
    x = Axis(counts[0] - margin, counts[-1] + margin, LEFT, RIGHT)
    y = _fitting([each[key] for each in curve for key in ("low", "high")], BOTTOM, TOP)
    ticks = [(count, f"{each['pairs']:,}") for count, each in zip(counts, curve, strict=True)]
    marks = [
        (count, e["accuracy"], e["low"], e["high"], f"{e['pairs']:,} pairs: {percent(e['accuracy'])}")
        for count, e in zip(counts, curve, strict=True)
    ]
    line = _line(x, y, [mark[:2] for mark in marks], "m0")
    words = ", ".join(mark[-1] for mark in marks)
    grid = _grid(x, y, "pairs to learn from (logarithmic)", "accuracy", ticks)
    return _svg([grid, line, _marks(x, y, marks, "m0")], f"Learning curve: {words}")


def training_svg(members: Sequence[dict[str, Any]]) -> str:
    """Held-out loss of every member by step, its training loss thin; a ring where it was taken."""
    looks = [look for member in members for look in member["looks"]]
    x = Axis(0.0, max(look["step"] for look in looks), LEFT, RIGHT)
    y = _fitting([look[key] for look in looks for key in ("loss", "train_loss")], BOTTOM, TOP)
    parts = [_grid(x, y, "step", "loss")]
    for number_, member in enumerate(members):
        style, own = f"m{number_ % 9}", member["looks"]
        parts.append(_line(x, y, [(look["step"], look["train_loss"]) for look in own], f"{style} thin"))
        parts.append(_line(x, y, [(look["step"], look["loss"]) for look in own], style))
        best = min(own, key=lambda look: look["loss"])
        parts.append(f'<circle class="ring {style}" cx="{x(best["step"]):.1f}" cy="{y(best["loss"]):.1f}" r="6"/>')
    return _svg(parts, f"Loss over {number(x.high)} steps")


def _fitting(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = (high - low or 1.0) * 0.08
    return Axis(low - margin, high + margin, start, end)


def _grid(x: Axis, y: Axis, across: str, up: str, ticks: Sequence[tuple[float, str]] | None = None) -> str:
    parts = []
    for value, text in y.ticks(6):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in ticks or x.ticks(6):
        parts.append(f'<path class="grid" d="M{x(value):.1f} {TOP}V{BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{text}</text>')
    middle = (TOP + BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 42}" text-anchor="middle">{across} →</text>')
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{up} →</text>')
    return "".join(parts)


def _marks(x: Axis, y: Axis, marks: Iterable[Mark], style: str) -> str:
    parts = []
    for across, up, low, high, label in marks:
        parts.append(f'<path class="bars" d="M{x(across):.1f} {y(low):.1f}V{y(high):.1f}"/>')
        circle = f'<circle class="dot" cx="{x(across):.1f}" cy="{y(up):.1f}" r="4.5"/>'
        parts.append(f"<g><title>{label}</title>{circle}</g>")
    return f'<g class="{style}">{"".join(parts)}</g>'


def _line(x: Axis, y: Axis, points: Iterable[Sequence[float]], style: str) -> str:
    return f'<path class="path {style}" d="M{"L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)}"/>'


def _svg(parts: Sequence[str], words: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
