"""Figures and the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.hacking.turning import Curve, turn

from sfumato.paper.figure import COLOURS, INK, MARKS, STYLE, UNDATED, WIDTHS
from sfumato.runs import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (("proxy", "proxy, deviations of the base"), ("gold", "gold"), ("vendi", "Vendi score"))


def figure(path: Path, curves: Mapping[str, Curve]) -> None:
    """Proxy, gold and Vendi score over the updates, and gold over the proxy; a ring is where a curve turns, the
    bar across it its 95 % interval over prompts."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        drawn = Figure(figsize=(WIDTHS[2], 4.6), layout="constrained")
        FigureCanvasAgg(drawn)
        panels = drawn.subplots(2, 2).ravel()
        for number, (label, curve) in enumerate(curves.items()):
            _lines(panels, label, curve, number)
        for panel, (_, name) in zip(panels, PANELS, strict=False):
            panel.set_xlabel("update")
            panel.set_ylabel(name)
        panels[3].set_xlabel(PANELS[0][1])
        panels[3].set_ylabel("gold")
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(curves), 6))
        with atomic_path(path) as temporary:
            drawn.savefig(temporary, format=path.suffix[1:], metadata=UNDATED[path.suffix[1:]])


def _lines(panels: list[Axes], label: str, curve: Curve, number: int) -> None:
    """One curve in all panels."""
    found = turn(curve)
    look = {"color": COLOURS[number], "marker": MARKS[number], "markersize": 3, "linewidth": 0.9, "label": label}
    values = {"proxy": curve.proxy.mean(1), "gold": curve.gold.mean(1), "vendi": curve.vendi}
    lines = [(curve.updates, values[name]) for name, _ in PANELS] + [(values["proxy"], values["gold"])]
    for panel, (x, y) in zip(panels, lines, strict=True):
        panel.plot(x, y, **look)
        ring = {"markersize": 9, "markeredgecolor": INK, "markerfacecolor": "none", "markeredgewidth": 0.7}
        panel.plot(x[found.look], y[found.look], "o", **ring)
    for panel, part in ((panels[1], found.update), (panels[3], found.proxy)):
        height = values["gold"][found.look]
        panel.plot([part.low, part.high], [height, height], color=COLOURS[number], linewidth=3, alpha=0.3)


def table(curves: Mapping[str, Curve]) -> str:
    """Where every curve turns, and what it comes to."""
    lines = ["| way | gold turns at update | proxy there | gold gained there | lost again at the end | still rising |"]
    lines[0] += " Vendi there | proxy, gold and Vendi at the end |"
    lines.append("|---" * 8 + "|")
    for label, curve in curves.items():
        found = turn(curve)
        end = (curve.proxy[-1].mean(), curve.gold[-1].mean(), curve.vendi[-1])
        cells = [
            label,
            f"{found.update.mean:g} [{found.update.low:g}, {found.update.high:g}]",
            *(f"{part.mean:.2f} [{part.low:.2f}, {part.high:.2f}]" for part in (found.proxy, found.gain, found.fall)),
            f"{found.rising:.0%}",
            f"{curve.vendi[found.look]:.2f}",
            ", ".join(f"{value:.2f}" for value in end),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
