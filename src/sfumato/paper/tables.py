"""The operating points of runs as files: CSV for a spreadsheet, JSON for a program, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import floor, log10
from typing import Any

from sfumato.frontier.choice import Choice
from sfumato.frontier.many import Comparison
from sfumato.frontier.statistics import Interval
from sfumato.frontier.tuned_runs import TunedRun
from sfumato.paper.comparison import training_caveat
from sfumato.report.vocabulary import lower_first, metric, number

BESIDE = ("gold", "recall")
"""Metrics that a table for a paper shows beside those on the axes."""
ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{EN DASH}": "--"}
ESCAPES |= {"\N{MINUS SIGN}": "$-$"} | {letter: f"\\{letter}" for letter in "&%$#_{}"}


def csv_table(runs: Sequence[TunedRun], choices: Sequence[Choice]) -> str:
    """One row for each operating point of each run.

    Columns: which run and point it is, whether it is non-dominated and chosen, forwards per image, then for every
    metric its mean over prompts and the limits of its 95 % interval (`NAME`, `NAME_low`, `NAME_high`), its value over
    all prompts together (`pooled_NAME`), and the drift on unrelated prompts (`drift_NAME`, ...). What a run did not
    measure is left empty.
    """
    rows = [row for run, choice in zip(runs, choices, strict=True) for row in _csv_rows(run, choice)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _csv_rows(run: TunedRun, choice: Choice) -> list[dict[str, Any]]:
    rows = []
    for point in run.frontier["points"]:
        row = {"run": run.name, "model": run.model, "tuned_on": run.reward, "training_seed": run.seed}
        row |= {"point": point["name"], "label": point.get("label", ""), "method": point.get("method", "")}
        row["nondominated"] = point["nondominated"]
        row["chosen"] = choice.chosen is not None and choice.chosen.name == point["name"]
        row["forwards"] = point.get("forwards")
        for prefix, values in (("", point["metrics"]), ("drift_", point.get("drift") or {})):
            for name, value in values.items():
                row |= {f"{prefix}{name}": value["mean"], f"{prefix}{name}_low": value.get("low")}
                row[f"{prefix}{name}_high"] = value.get("high")
        row |= {f"pooled_{name}": value for name, value in (point.get("pooled") or {}).items()}
        rows.append(row)
    return rows


def json_text(runs: Sequence[TunedRun], choices: Sequence[Choice], comparison: Comparison | None) -> str:
    """Everything: each run with its frontier and the choice, and the comparison of methods across runs."""
    described = [
        {"name": run.name, "path": run.path, "model": run.model, "tuned_on": run.reward, "training_seed": run.seed}
        | {"choice": choice.to_dict(), "frontier": run.frontier}
        for run, choice in zip(runs, choices, strict=True)
    ]
    found = {"runs": described, "comparison": comparison.to_dict() if comparison else None}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def latex(runs: Sequence[TunedRun], choices: Sequence[Choice], comparison: Comparison | None) -> str:
    r"""Tables for a paper, to be `\input`; needs the package booktabs."""
    tables = [_points_table(runs, choices)]
    if comparison and comparison.groups:
        tables += [_volumes_table(comparison), _pairs_table(comparison)]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def escaped(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _points_table(runs: Sequence[TunedRun], choices: Sequence[Choice]) -> str:
    axes = list(dict.fromkeys(key for choice in choices for key in choice.axes.values()))
    shown = [key for run in runs for point in run.frontier["points"] for key in point["metrics"]]
    keys = axes + [key for key in BESIDE if key in shown and key not in axes]
    head = ["", *(metric(key).label for key in keys), "F"]
    found = {
        key: [p["metrics"][key] for run in runs for p in run.frontier["points"] if key in p["metrics"]] for key in keys
    }
    digits = {key: _digits([value["mean"] for value in values]) for key, values in found.items()}
    lines = []
    for run, choice in zip(runs, choices, strict=True):
        if len(runs) > 1:
            title = escaped(f"{run.name}: {run.model}, tuned on {run.reward}, seed {run.seed}")
            lines.append(rf"\multicolumn{{{len(head)}}}{{@{{}}l}}{{\emph{{{title}}}}} \\")
        lines += [_point_row(point, choice, digits) for point in run.frontier["points"]] + [r"\midrule"]
    return _table(head, lines[:-1], _points_caption(runs, choices), "tab:frontier")


def _digits(values: Sequence[float]) -> int:
    """Decimals with which the largest of a column's values has three digits, and none more than three."""
    largest = max(map(abs, values), default=0.0)
    return 3 if largest < 1 else max(0, 2 - floor(log10(largest)))


def _point_row(point: dict[str, Any], choice: Choice, digits: dict[str, int]) -> str:
    bold = point["nondominated"]
    chosen = choice.chosen is not None and choice.chosen.name == point["name"]
    label = escaped(point.get("label", point["name"]))
    cells = [(rf"\textbf{{{label}}}" if bold else label) + (r"$^\dagger$" if chosen else "")]
    for key, decimals in digits.items():
        value = point["metrics"].get(key)
        cells.append(_cell(Interval(**value), decimals, bold and key in choice.axes.values()) if value else "--")
    forwards = point.get("forwards")
    return " & ".join([*cells, "--" if forwards is None else f"{forwards:.4g}"]) + r" \\"


def _cell(value: Interval, decimals: int, bold: bool = False) -> str:
    parts = (round(part, decimals) + 0.0 for part in (value.mean, value.low, value.high))  # + 0.0: no negative zero
    mean, low, high = (f"{part:.{decimals}f}".replace("-", "$-$") for part in parts)
    return (rf"\textbf{{{mean}}}" if bold else mean) + rf" {{\scriptsize [{low}, {high}]}}"


def _points_caption(runs: Sequence[TunedRun], choices: Sequence[Choice]) -> str:
    first, run = choices[0], runs[0]
    sizes = {(choice.prompts, choice.images_per_prompt) for choice in choices}
    size = f"{first.prompts} prompts with {first.images_per_prompt} images each" if len(sizes) == 1 else "the prompts"
    what = escaped(f"{run.model} tuned on {run.reward}") if len(runs) == 1 else f"{len(runs)} tuned models"
    reward, diversity = (escaped(lower_first(metric(key).label)) for key in first.axes.values())
    caption = (
        rf"Operating points of {what}: means over {size}. Brackets are 95\,\% bootstrap intervals over prompts; they "
        rf"say nothing about another training. Bold: no other point of the run is at least as good in both {reward} "
        rf"and {diversity} and better in one. F: denoiser forwards per image."
    )
    return caption + (r" $^\dagger$: the point chosen." if any(choice.chosen for choice in choices) else "")


def _volumes_table(comparison: Comparison) -> str:
    names = [run for group in comparison.groups for run in group.runs]
    methods = dict.fromkeys(method for group in comparison.groups for method in group.volumes)
    lines = []
    for method in methods:
        volumes = {run: value for group in comparison.groups for run, value in group.volumes.get(method, {}).items()}
        cells = [_cell(volumes[run], 2) if run in volumes else "--" for run in names]
        lines.append(" & ".join([escaped(method), *cells]) + r" \\")
    axes = " and ".join(escaped(lower_first(metric(key).label)) for key in comparison.axes.values())
    caption = (
        rf"Hypervolume of each method on {axes}, each run in its own scale from tuned to base; brackets are 95\,\% "
        r"bootstrap intervals over prompts."
    )
    return _table(["", *names], lines, caption, "tab:hypervolume")


def _pairs_table(comparison: Comparison) -> str:
    lines = []
    for group in comparison.groups:
        if len(comparison.groups) > 1:
            title = escaped(f"{group.model}, tuned on {group.reward}")
            lines.append(rf"\multicolumn{{5}}{{@{{}}l}}{{\emph{{{title}}}}} \\")
        for pair in group.pairs:
            chances = ", ".join(f"{chance:.2f}" for chance in pair.probabilities.values())
            mark = r"$^*$" if pair.points_differ else ""
            cells = [f"{escaped(pair.a)} $>$ {escaped(pair.b)}{mark}", f"{pair.wins:g} of {len(pair.differences)}"]
            cells += [escaped(number(pair.mean)), chances, "--" if pair.p is None else f"{pair.p:.3f}"]
            lines.append(" & ".join(cells) + r" \\")
        lines.append(r"\midrule")
    caveats = dict.fromkeys(training_caveat(group) for group in comparison.groups)
    caption = (
        "How often one method's hypervolume exceeds another's: in how many runs, by how much on average, with which "
        "bootstrap probability over prompts in each run, and $p$ of the exact sign test over trainings. $^*$: "
        f"different numbers of points. {escaped(' '.join(caveats))}"
    )
    return _table(["", "runs", "by", "probability", "p"], lines[:-1], caption, "tab:methods")


def _table(head: Sequence[str], lines: Sequence[str], caption: str, label: str) -> str:
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize",
            rf"\caption{{{caption}}}\vspace{{1ex}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(head) - 1)}@{{}}}}",
            r"\toprule",
            " & ".join(map(escaped, head)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )
