"""A search for a schedule as a picture and as a table, read from its `search.json`."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from sfumato.report import vocabulary
from sfumato.report.figure import BOTTOM, HEIGHT, LEFT, RIGHT, STYLE, TOP, WIDTH, Axis, Mark, draw_axes, draw_names
from sfumato.report.table import aligned
from sfumato.runs import read_json, write_text

KEYS = ("reward", "vendi")
PANEL = (WIDTH + 26, TOP + 6, 190, 190)
"""Left, top, width and height of the panel with g(u)."""
SHEET = WIDTH + 240
STYLES = {"predictions": "m0", "weights": "m1"}
OWN_STYLE = """
.stopped .shape { opacity: .4 } .trial { cursor: default }
.edge { stroke: var(--accent); stroke-width: 1.4; stroke-dasharray: 5 4 }
.more { opacity: 0; pointer-events: none } .found .more, .trial:hover .more { opacity: 1 }
svg:has(.trial:hover) .found:not(:hover) .more { opacity: 0 }
.trial:hover .shape { stroke: var(--ink) }
.panel { fill: none } .curve, .rival { fill: none; stroke: var(--c); stroke-width: 2.2 }
.rival { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 3 3 }
"""


def write_search(folder: str | Path) -> Path:
    """Draw the search of a folder with `search.json` as `search.svg` beside it; returns its path."""
    path = Path(folder) / "search.svg"
    write_text(path, search_svg(read_json(Path(folder) / "search.json")))
    return path


def search_svg(found: dict[str, Any]) -> str:
    """Every schedule that was tried, reward across and diversity up; the panel shows g(u) of the one pointed at.

    Args:
        found: what `search.json` holds.
    """
    trials = found["trials"]
    x, y = (
        _axis([t[key] for t in trials], *ends)
        for key, ends in (("reward", (LEFT, RIGHT)), ("diversity", (BOTTOM, TOP)))
    )
    best = trials[found["found"]]
    order = sorted(trials, key=lambda t: (t is best, t["fixed"], not t["stopped"]))
    words = f"{len(trials)} schedules; found: {best['label']}"
    palette = (Path(__file__).parent / "web" / "palette.css").read_text(encoding="utf-8")
    parts = [
        f'<rect class="sheet" x=".5" y=".5" width="{SHEET - 1}" height="{HEIGHT - 1}" rx="14"/>',
        draw_axes(x, y, KEYS),
        _edge(found, x, y),
        _panel(trials, trials[found["fixed"]]),
        *draw_names([_mark(t, x, y, t is best) for t in trials if t["fixed"] or t is best]),
        *(_trial(t, t is best, x, y, _highest(trials)) for t in order),
        _legend(),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SHEET} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">\n'
        f"<style>{palette}{STYLE}{OWN_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _axis(values: list[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = ((high - low) or abs(high) or 1.0) * 0.06
    return Axis(low - margin, high + margin, start, end)


def _edge(found: dict[str, Any], x: Axis, y: Axis) -> str:
    """The line on whose far side enough is kept."""
    goal, needed = found["goal"], found["needed"]
    words = f"keeps {goal['share']:.0%} of the " + ("diversity" if goal["keep"] == "diversity" else "gain in reward")
    if goal["keep"] == "diversity":
        line, place = f"M{LEFT} {y(needed):.1f}H{RIGHT}", f'x="{RIGHT - 4}" y="{y(needed) - 6:.1f}" text-anchor="end"'
    else:
        line, place = f"M{x(needed):.1f} {TOP}V{BOTTOM}", f'x="{x(needed) + 6:.1f}" y="{BOTTOM - 8}"'
    return f'<path class="edge" d="{line}"/><text class="soft name" {place}>{words}</text>'


def _style(trial: dict[str, Any]) -> str:
    kind = trial["point"]["kind"]
    return kind if kind in ("base", "tuned") else STYLES[trial["point"].get("blend", "weights")]


def _mark(trial: dict[str, Any], x: Axis, y: Axis, best: bool) -> Mark:
    across, up = x(trial["reward"]), y(trial["diversity"])
    return Mark(across, up, (across, across, up, up), trial["label"], trial["label"], _style(trial), best)


def _trial(trial: dict[str, Any], best: bool, x: Axis, y: Axis, highest: float) -> str:
    """A schedule's mark; pointed at, it shows its curve and its figures in the panel."""
    style, left, top = _style(trial), PANEL[0], PANEL[1] + PANEL[3] + 44
    prompts = f"{trial['prompts']} prompts"
    state = f"stopped after {prompts}: too little {trial['stopped']}" if trial["stopped"] else f"on all {prompts}"
    figures = [
        f"{vocabulary.metric(key).label} {vocabulary.number(trial[name])}"
        for key, name in zip(KEYS, ("reward", "diversity"), strict=True)
    ]
    lines = [trial["label"], *figures, state, "" if trial["valid"] or trial["stopped"] else "keeps too little"]
    texts = "".join(f'<text x="{left}" y="{top + 19 * i}">{escape(line)}</text>' for i, line in enumerate(lines))
    ring = '<circle class="ring" r="9.5"/>' if best else ""
    classes = " ".join(["trial", style, *(["stopped"] if trial["stopped"] else []), *(["found"] if best else [])])
    return (
        f'<g class="{classes}"><g transform="translate({x(trial["reward"]):.1f} {y(trial["diversity"]):.1f})">'
        f"<title>{escape('; '.join(filter(None, lines)))}</title>{ring}"
        f'<path class="shape" d="{vocabulary.shape(style)}"/></g>'
        f'<g class="more"><path class="curve" d="{_curve(trial, highest)}"/>{texts}</g></g>'
    )


def _highest(trials: list[dict[str, Any]]) -> float:
    return max(1.0, *(g for trial in trials for _, g in trial["curve"]))


def _curve(trial: dict[str, Any], highest: float) -> str:
    left, top, width, height = PANEL
    return "M" + "L".join(f"{left + u * width:.1f} {top + (1 - g / highest) * height:.1f}" for u, g in trial["curve"])


def _panel(trials: list[dict[str, Any]], rival: dict[str, Any]) -> str:
    """The axes of g(u), with the best fixed schedule as a dotted line."""
    left, top, width, height = PANEL
    highest = _highest(trials)
    one = top + (1 - 1 / highest) * height
    return (
        f'<path class="grid panel" d="M{left} {top}V{top + height}H{left + width}M{left} {one:.1f}H{left + width}"/>'
        f'<text class="tick" x="{left - 6}" y="{one + 4:.1f}" text-anchor="end">1</text>'
        f'<text class="tick" x="{left - 6}" y="{top + height + 4}" text-anchor="end">0</text>'
        f'<text class="tick" x="{left}" y="{top + height + 17}">noise</text>'
        f'<text class="tick" x="{left + width}" y="{top + height + 17}" text-anchor="end">image</text>'
        f'<text x="{left}" y="{top - 12}">g(u), share of the tuned model</text>'
        f'<path class="rival" d="{_curve(rival, highest)}"/>'
    )


def _legend() -> str:
    entries = [("base", "base, tuned"), *((style, f"blend of {name}") for name, style in STYLES.items())]
    parts, x = [], float(LEFT)
    for style, words in entries:
        parts.append(f'<g class="{style}" transform="translate({x + 6:.1f} 32)">')
        parts.append(f'<path class="shape" d="{vocabulary.shape(style)}"/></g>')
        parts.append(f'<text class="soft" x="{x + 17:.1f}" y="36">{words}</text>')
        x += 44 + len(words) * 6.7
    return "".join(parts) + f'<text class="soft" x="{x:.1f}" y="36">pale: stopped early</text>'


def search_table(found: dict[str, Any]) -> str:
    """Base, tuned, the best fixed schedule and the found one, on the search's prompts and on held-out ones."""
    trials = found["trials"]
    rows = {"base": trials[0], "tuned": trials[1], "fixed": trials[found["fixed"]], "found": trials[found["found"]]}
    best = rows["found"]
    lines = [
        f"on the {best['prompts']} prompts of the search, {len(trials)} schedules",
        *_block(rows, found["goal"]),
        "",
    ]
    later = found["held_out"]
    if later is None:
        return "\n".join(lines)
    lines += [f"on {len(later['prompts'])} held-out prompts with {later['images_per_prompt']} images each"]
    points = {
        role: entry | {name: value["mean"] for name, value in entry.items() if isinstance(value, dict)}
        for role, entry in later["points"].items()
    }
    lines += [*_block(points, found["goal"]), "", "found - best fixed, 95 % over prompts"]
    lines += [f"{name}: {_interval(value)}" for name, value in later["difference"].items()]
    lines += [f"{found['goal']['keep']} above what was to be kept: {_interval(later['slack'])}"]
    return "\n".join(lines)


def _block(rows: dict[str, dict[str, Any]], goal: dict[str, Any]) -> list[str]:
    names = [name for name in ("reward", "gold", "diversity", "forwards") if name in rows["base"]]
    table = [["", "schedule", *names, f"{goal['keep']} kept"]]
    for role, row in rows.items():
        table.append(
            [
                role if role in ("fixed", "found") else "",
                row["label"],
                *(f"{row[name]:.3f}" for name in names),
                _kept(row, rows, goal),
            ]
        )
    return aligned(table)


def _kept(row: dict[str, Any], rows: dict[str, dict[str, Any]], goal: dict[str, Any]) -> str:
    if goal["keep"] == "diversity":
        return f"{(row['diversity'] - goal['floor']) / (rows['base']['diversity'] - goal['floor']):.0%}"
    gain = rows["tuned"]["reward"] - rows["base"]["reward"]
    return f"{(row['reward'] - rows['base']['reward']) / gain:.0%}" if gain else "-"


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"
