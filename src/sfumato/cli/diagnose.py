"""Is a tuned model hacked?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sfumato.cli.shared import app

FAILED = 3
"""Exit code of --fail-on."""
OWN = "evaluation/diagnosis.json"
"""The verdict about the run's default point."""
ORDER = ("alarm", "warn", "ok", "unknown")


@app.command()
def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that was evaluated.")],
    point: Annotated[
        str | None,
        typer.Option(help="The operating point to judge, by name or label. [default: the training's, else the first]"),
    ] = None,
    training: Annotated[
        str | None, typer.Option(help="The training whose log is read. [default: the point's own]")
    ] = None,
    fail_on: Annotated[
        Literal["warn", "alarm"] | None, typer.Option(help="Exit with 3 if a finding is at this level or above.")
    ] = None,
) -> None:
    """Say in plain words whether a tuned model is hacked, with the pictures as evidence.

    Writes evaluation/diagnosis.json and evaluation/diagnosis/*.png into the run; about a point other than the default,
    evaluation/diagnosis-POINT.json and evaluation/diagnosis-POINT/*.png, which the report does not show.

    Example: sfumato diagnose runs/mine
    """
    from sfumato.diagnosis import diagnose
    from sfumato.runs import Run

    run = Run.load(folder)
    result = diagnose(run, point, training)
    print(_text(result, run))
    failing = {"warn", "alarm"} if fail_on == "warn" else {fail_on}
    if any(finding["level"] in failing for finding in result["findings"]):
        raise typer.Exit(FAILED)


def _text(result: dict[str, Any], run: Any) -> str:
    lines = [f"{result['verdict']}: {result['sentences'][0]}"]
    for finding in sorted(result["findings"], key=lambda finding: ORDER.index(finding["level"])):
        lines += ["", f"[{finding['level']}] {finding['title']}", finding["text"]]
        lines += [f"  {run.path / sheet['file']}" for sheet in finding["evidence"]]
    others = [entry for entry in result["points"] if entry["name"] != result["point"]]
    if others:
        width = max(len(entry["name"]) for entry in others)
        lines += ["", "other points:"]
        lines += [f"  {entry['name']:{width}}  {entry['verdict']:10}  {_signs(entry['levels'])}" for entry in others]
    lines += ["", (run.path / result["file"]).as_posix()]
    if result["file"] != OWN:
        lines.append(f"The report shows the run's own verdict, {OWN}; this does not change it.")
    return "\n".join(lines)


def _signs(levels: dict[str, str]) -> str:
    """The signs at each level that speaks against the point."""
    found = {level: [name for name, own in levels.items() if own == level] for level in ("alarm", "warn")}
    return "; ".join(f"{level}: {', '.join(names)}" for level, names in found.items() if names)
