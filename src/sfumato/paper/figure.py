"""The frontier as a figure for a paper: PDF with embedded fonts, SVG or PNG, in the width of one column or two.

Methods differ in colour and in the shape of their marks, as in the report, so that the figure can be read in grey. The
same data give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from sfumato.frontier.choice import Candidate, Choice
from sfumato.frontier.tuned_runs import TunedRun
from sfumato.paper.labels import Point, Segment, nearest, place_labels
from sfumato.report.vocabulary import metric, styles
from sfumato.runs import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {1: 3.25, 2: 6.75}
"""Inches, by columns of a paper."""
INK, GRID = "#26221d", "#e4dccf"
COLOURS = ("#1f6f94", "#c46f1c", "#7a559f", "#45803f", "#b8435c", "#82751f", "#546478", "#8c4a2f", "#1f8a80")
"""The report's palette on light ground."""
BAR = ((-1.0, -0.6), (1.0, -0.6), (1.0, 0.6), (-1.0, 0.6))
MARKS: tuple[Any, ...] = ("D", "s", "^", "v", "P", "p", "h", BAR, "*")
"""The report's marks."""
SIZES = {"D": 4.4, "s": 4.8, "P": 6.0, BAR: 6.4, "*": 7.5}
SMALL: dict[str, Any] = {"fontsize": 6, "va": "bottom", "linespacing": 0.95, "zorder": 4}
MANY = 16
"""Points in a panel up to which all are named; the marks of the others still tell their method."""
FAR = 11.0
"""Points from a mark to its label from which on a line joins them."""
STYLE: dict[Any, Any] = {
    "font.size": 7.0,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "pdf.fonttype": 42,
    "svg.hashsalt": "sfumato",
    "savefig.dpi": 300,
}
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def write_figures(paths: Sequence[Path], runs: Sequence[TunedRun], choices: Sequence[Choice], columns: int = 2) -> None:
    """Draw reward against diversity with 95 % intervals, a panel for each run, and save it.

    Filled marks are non-dominated; a ring is around the chosen point.

    Args:
        paths: files that end in .pdf, .svg or .png.
        runs: one or more.
        choices: of each run, on the axes to be drawn.
        columns: 1 for a width of 3.25 in, 2 for 6.75 in.

    Raises:
        ValueError: another kind of file.
        ImportError: matplotlib is not installed.
    """
    check_figures(paths)
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = draw(runs, choices, columns)
        for path in paths:
            kind = path.suffix[1:]
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=UNDATED[kind])


def check_figures(paths: Sequence[Path]) -> None:
    """Raise ValueError or ImportError unless such figures can be written."""
    for path in paths:
        if path.suffix[1:] not in UNDATED:
            raise ValueError(f"a figure ends in .pdf, .svg or .png, not {path.name!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'sfumato[figures]'") from None


def draw(runs: Sequence[TunedRun], choices: Sequence[Choice], columns: int) -> Figure:
    """The figure, in whatever matplotlib's settings are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(len(runs), columns)
    down = -(-len(runs) // across)
    width = WIDTHS[columns]
    height = 0.6 + down * width / across * (0.62 if across < columns else 0.82)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    alike = len({(run.model, run.reward) for run in runs}) == 1
    panels = list(figure.subplots(down, across, sharex=alike, sharey=alike, squeeze=False).ravel())
    looks = styles([method["name"] for run in runs for method in run.frontier.get("methods", [])] + _methods(runs))
    for panel, run, choice in zip(panels, runs, choices, strict=False):
        _panel(panel, run, choice, looks)
        if len(runs) > 1:
            panel.set_title(f"{run.name}, seed {run.seed}" if alike else f"{run.name}: {run.model}, {run.reward}")
    for panel in panels[len(runs) :]:
        panel.remove()
    if alike:
        _label_outer_panels(panels[: len(runs)], across)
    _legend(figure, looks, columns)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed for this layout
    for panel, run, choice in zip(panels, runs, choices, strict=False):
        _names(panel, run, choice, figure.dpi)
    return figure


def _methods(runs: Sequence[TunedRun]) -> list[str]:
    return [point.get("method", "") for run in runs for point in run.frontier["points"]]


def look(style: str) -> tuple[str, Any, float]:
    """Colour, mark and its size of a style class of the report."""
    if style in ("base", "tuned"):
        return INK, "o", 5.0
    number = int(style[1:])
    return COLOURS[number], MARKS[number], SIZES.get(MARKS[number], 5.4)


def _panel(panel: Axes, run: TunedRun, choice: Choice, looks: dict[str, str]) -> None:
    for method, line in _lines(run, choice).items():
        panel.plot(*zip(*line, strict=True), color=look(looks[method])[0], linewidth=0.8, alpha=0.6, zorder=2)
    for point in choice.candidates:
        colour, mark, size = look(looks[point.method])
        across, up = point.reward, point.diversity
        x, y = across.mean, up.mean
        bars: dict[str, Any] = {"color": colour, "linewidth": 0.5, "alpha": 0.5, "zorder": 1}
        panel.plot([across.low, across.high], [y, y], **bars)
        panel.plot([x, x], [up.low, up.high], **bars)
        filled = colour if point.nondominated else "white"
        panel.plot(x, y, marker=mark, markersize=size, markeredgecolor=colour, markerfacecolor=filled, zorder=3)
        if choice.chosen and point.name == choice.chosen.name:
            panel.plot(x, y, "o", markersize=10, markeredgecolor=INK, markerfacecolor="none", markeredgewidth=0.8)
    reward, diversity = (metric(key).label for key in choice.axes.values())
    panel.set_xlabel(f"{reward} \N{RIGHTWARDS ARROW}")
    panel.set_ylabel(f"{diversity} \N{RIGHTWARDS ARROW}")


def _label_outer_panels(panels: Sequence[Axes], across: int) -> None:
    """Axes that all share are labelled at the left, and in each column at the lowest panel."""
    for number, panel in enumerate(panels):
        if number % across:
            panel.set_ylabel("")
        lowest = number + across >= len(panels)
        panel.tick_params(labelbottom=lowest)
        if not lowest:
            panel.set_xlabel("")


def _legend(figure: Figure, looks: dict[str, str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for method, style in looks.items():
        if style not in ("base", "tuned"):
            colour, mark, size = look(style)
            handles.append(Line2D([], [], color=colour, marker=mark, markersize=size, linewidth=0.8, label=method))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 2 + 2 * (columns - 1)))


def _names(panel: Axes, run: TunedRun, choice: Choice, dpi: float) -> None:
    """Write the points' labels where there is room, the chosen and the non-dominated ones first."""
    points = sorted(_named(choice), key=lambda point: (point != choice.chosen, not point.nondominated))
    scale = 72 / dpi  # from pixels to points

    def place(x: float, y: float) -> Point:
        across, up = panel.transData.transform((x, y)) * scale
        return float(across), float(up)

    marks = [place(point.reward.mean, point.diversity.mean) for point in points]
    texts = [panel.text(0, 0, _label(point), transform=panel.transAxes, **SMALL) for point in points]
    sizes = [
        (extent.width * scale + 1, extent.height * scale + 0.5) for extent in (t.get_window_extent() for t in texts)
    ]
    left, bottom, right, top = (edge * scale for edge in panel.get_window_extent().extents)
    segments = [(place(*start), place(*end)) for start, end in _segments(run, choice)]
    boxes = place_labels(marks, sizes, (left, bottom, right, top), segments)
    for text, point, mark, box in zip(texts, points, marks, boxes, strict=True):
        text.remove()
        if box is not None:
            _write(panel, point, (box[0] - mark[0], box[1] - mark[1]), (box[2] - box[0], box[3] - box[1]))


def _named(choice: Choice) -> list[Candidate]:
    """The points with a label: all, or where they are too many the chosen and non-dominated ones, base and tuned."""
    points = list(choice.candidates)
    if len(points) <= MANY:
        return points
    return [
        point for point in points if point.nondominated or point == choice.chosen or point.method in ("base", "tuned")
    ]


def _label(point: Candidate) -> str:
    """A point's label, a long one in two or three lines."""
    return fill(point.label, 18, break_long_words=False)


def _write(panel: Axes, point: Candidate, offset: Point, size: Point) -> None:
    """A label at an offset in points from its mark, with a thin line to it if it is far."""
    near = nearest((*offset, offset[0] + size[0], offset[1] + size[1]), (0.0, 0.0))
    leader = None
    if max(map(abs, near)) > FAR:
        end = (near[0] - offset[0]) / size[0], (near[1] - offset[1]) / size[1]
        leader = {"arrowstyle": "-", "linewidth": 0.4, "color": INK, "shrinkA": 0.5, "shrinkB": 3, "relpos": end}
    at = (point.reward.mean, point.diversity.mean)
    text = panel.annotate(_label(point), at, offset, textcoords="offset points", arrowprops=leader, **SMALL)
    text.set_in_layout(False)


def _segments(run: TunedRun, choice: Choice) -> list[Segment]:
    """The lines of a panel in its data: intervals and methods."""
    found: list[Segment] = []
    for point in choice.candidates:
        x, y = point.reward, point.diversity
        found += [((x.low, y.mean), (x.high, y.mean)), ((x.mean, y.low), (x.mean, y.high))]
    return found + [pair for line in _lines(run, choice).values() for pair in pairwise(line)]


def _lines(run: TunedRun, choice: Choice) -> dict[str, list[Point]]:
    """Every method's points from base to tuned, by reward."""
    at = {point.name: (point.reward.mean, point.diversity.mean) for point in choice.candidates}
    methods = run.frontier.get("methods", [])
    return {method["name"]: sorted(at[name] for name in method["points"] if name in at) for method in methods}
