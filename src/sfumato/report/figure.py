"""The frontier as a still picture: an SVG for a README, legible on light and on dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import floor, log10
from pathlib import Path
from typing import Any

from sfumato.report import vocabulary
from sfumato.report.choice import mean
from sfumato.report.data import read_frontier
from sfumato.runs import Run

WIDTH, HEIGHT = 880, 560
LEFT, RIGHT, TOP, BOTTOM = 70, WIDTH - 24, 56, HEIGHT - 62
LETTER = 6.7  # px, the mean width of a letter at 12.5 px

STYLE = """
svg { font: 12.5px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
text { fill: var(--ink) } .soft, .tick { fill: var(--soft) } .tick { font-size: 12px }
.sheet { fill: var(--paper); stroke: var(--line) } .grid { stroke: var(--grid) }
.ground { fill: var(--accent); opacity: .07 }
.path, .bars { fill: none; stroke: var(--c) } .path { stroke-width: 1.6; opacity: .45 } .bars { opacity: .4 }
.shape { fill: var(--c); stroke: var(--paper); stroke-width: 1.5 }
.base .shape { fill: var(--paper); stroke: var(--c); stroke-width: 2 }
.ring { fill: none; stroke: var(--c); stroke-width: 1.2 }
.name { paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
"""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """An operating point on the picture: centre, ends of its intervals, label and style class."""

    x: float
    y: float
    bars: tuple[float, float, float, float]
    name: str
    label: str
    style: str
    best: bool


@dataclass(frozen=True)
class Axis:
    """A linear map from figures to px, with round numbers to label it."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """At most about `count` round numbers and how they are written."""
        raw = (self.high - self.low) / count
        power = 10.0 ** floor(log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        digits = max(0, -floor(log10(step) + 1e-9))
        first, last = -floor(-self.low / step + 1e-9), floor(self.high / step + 1e-9)
        return [(i * step, f"{i * step:.{digits}f}".replace("-", "\N{MINUS SIGN}")) for i in range(first, last + 1)]


def frontier_svg(run: Run) -> str:
    """The run's frontier as a static SVG: reward across, diversity up, 95 % intervals, non-dominated points ringed.

    Raises:
        FileNotFoundError: the run was not evaluated yet.
    """
    frontier = read_frontier(run)
    keys = (frontier["axes"]["reward"], frontier["axes"]["diversity"])
    points = [p for p in frontier["points"] if all(mean(p, key) is not None for key in keys)]
    methods = [method["name"] for method in frontier["methods"]]
    styles = vocabulary.styles([*methods, *(point["method"] for point in points)])
    parts = [f'<rect class="sheet" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="14"/>']
    if points:
        x, y = (_axis(points, key, *ends) for key, ends in zip(keys, ((LEFT, RIGHT), (BOTTOM, TOP)), strict=True))
        marks = [_mark(point, keys, x, y, styles) for point in points]
        parts += [draw_axes(x, y, keys), _ground([m for m in marks if m.best]), _lines(frontier, marks, styles)]
        parts += [*map(draw_bars, marks), *map(draw_shape, marks), *draw_names(marks)]
    parts.append(_legend(methods, styles))
    words = f"{vocabulary.metric(keys[1]).label} against {vocabulary.lower_first(vocabulary.metric(keys[0]).label)}: "
    words += ", ".join(
        f"{p['label']} {' / '.join(vocabulary.number(mean(p, key)) for key in reversed(keys))}" for p in points
    )
    palette = (Path(__file__).parent / "web" / "palette.css").read_text(encoding="utf-8")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">\n<style>{palette}{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _axis(points: list[dict[str, Any]], key: str, start: float, end: float) -> Axis:
    values = [value for point in points for value in _interval(point["metrics"][key])]
    low, high = min(values), max(values)
    margin = ((high - low) or abs(high) or 1.0) * 0.05
    return Axis(low - margin, high + margin, start, end)


def _interval(value: dict[str, Any]) -> tuple[float, float, float]:
    """Mean, low and high; without an interval the mean three times."""
    middle, low, high = value["mean"], value["low"], value["high"]
    return middle, middle if low is None else low, middle if high is None else high


def _mark(point: dict[str, Any], keys: tuple[str, str], x: Axis, y: Axis, styles: dict[str, str]) -> Mark:
    across, up = (_interval(point["metrics"][key]) for key in keys)
    return Mark(
        x(across[0]),
        y(up[0]),
        (x(across[1]), x(across[2]), y(up[1]), y(up[2])),
        point["name"],
        point["label"],
        styles[point["method"]],
        point["nondominated"],
    )


def draw_axes(x: Axis, y: Axis, keys: tuple[str, str]) -> str:
    """Grid, ticks and titles of both axes."""
    across, up = (vocabulary.metric(key).label for key in keys)
    parts = []
    for value, text in y.ticks(8):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 9}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in x.ticks(9):
        parts.append(f'<path class="grid" d="M{x(value):.1f} {TOP}V{BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{BOTTOM + 19}" text-anchor="middle">{text}</text>')
    middle = (TOP + BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 43}" text-anchor="middle">{escape(across)} →</text>')
    parts.append(f'<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle">{escape(up)} →</text>')
    return "".join(parts)


def _ground(best: list[Mark]) -> str:
    """What the non-dominated points cover."""
    steps = "".join(f"V{m.y:.1f}H{m.x:.1f}" for m in sorted(best, key=lambda mark: mark.x))
    return f'<path class="ground" d="M{LEFT} {BOTTOM}{steps}V{BOTTOM}Z"/>' if best else ""


def _lines(frontier: dict[str, Any], marks: list[Mark], styles: dict[str, str]) -> str:
    at = {mark.name: f"{mark.x:.1f} {mark.y:.1f}" for mark in marks}
    parts = []
    for method in frontier["methods"]:
        stops = [at[name] for name in method.get("points", []) if name in at]
        if len(stops) > 1:
            parts.append(f'<path class="path {styles[method["name"]]}" d="M{"L".join(stops)}"/>')
    return "".join(parts)


def draw_bars(mark: Mark) -> str:
    """The intervals of a mark."""
    x1, x2, y1, y2 = mark.bars
    d = f"M{x1:.1f} {mark.y:.1f}H{x2:.1f}M{mark.x:.1f} {y1:.1f}V{y2:.1f}"
    return f'<path class="bars {mark.style}" d="{d}"/>'


def draw_shape(mark: Mark) -> str:
    """A mark in its method's shape, ringed if it is among the best."""
    ring = '<circle class="ring" r="9.5"/>' if mark.best else ""
    return (
        f'<g class="{mark.style}" transform="translate({mark.x:.1f} {mark.y:.1f})"><title>{escape(mark.label)}</title>'
        f'{ring}<path class="shape" d="{vocabulary.shape(mark.style)}"/></g>'
    )


def draw_names(marks: list[Mark]) -> list[str]:
    """Labels at the first free place around their marks, non-dominated points first."""
    taken = [(m.x - 10, m.y - 10, m.x + 10, m.y + 10) for m in marks]
    bars: list[Box] = []
    for m in marks:
        x1, x2, y1, y2 = m.bars
        bars += [(x1, m.y - 1, x2, m.y + 1), (m.x - 1, y2, m.x + 1, y1)]
    parts = []
    for mark in sorted(marks, key=lambda m: not m.best):
        around = _around(mark, len(mark.label) * LETTER + 4)
        spot = next((box for box in around if _free(box, taken + bars)), None)
        spot = spot or next((box for box in around if _free(box, taken)), None)
        if spot:
            taken.append(spot)
            soft = "" if mark.best else " soft"
            parts.append(
                f'<text class="name{soft}" x="{spot[0] + 2:.1f}" y="{spot[1] + 12:.1f}">{escape(mark.label)}</text>'
            )
    return parts


def _around(mark: Mark, width: float) -> list[Box]:
    """Places for a label, the best first."""
    shifts = [(12, -16), (12, 1), (-12 - width, 1), (-12 - width, -16), (-width / 2, -27), (-width / 2, 12)]
    shifts += [(8, -27), (8, 12), (-8 - width, -27), (-8 - width, 12), (16, -34), (16, 20)]
    return [(mark.x + dx, mark.y + dy, mark.x + dx + width, mark.y + dy + 15) for dx, dy in shifts]


def _free(box: Box, others: list[Box]) -> bool:
    x1, y1, x2, y2 = box
    inside = x1 >= LEFT and x2 <= RIGHT and y1 >= TOP and y2 <= BOTTOM
    return inside and not any(a < x2 and x1 < c and b < y2 and y1 < d for a, b, c, d in others)


def _legend(methods: list[str], styles: dict[str, str]) -> str:
    parts, x = [], float(LEFT)
    for name in methods:
        parts.append(f'<g class="{styles[name]}" transform="translate({x + 6:.1f} 32)">')
        parts.append(f'<path class="shape" d="{vocabulary.shape(styles[name])}"/></g>')
        parts.append(f'<text class="soft" x="{x + 17:.1f}" y="36">{escape(name)}</text>')
        x += 38 + len(name) * LETTER
    return "".join(parts)
