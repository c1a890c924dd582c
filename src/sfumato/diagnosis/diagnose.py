"""From a run folder to `evaluation/diagnosis.json`: findings of every point, a verdict, the pictures."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from sfumato.diagnosis.case import Case, Finding
from sfumato.diagnosis.collapse import diversity, duplicates, modes, prompts
from sfumato.diagnosis.evidence import draw_sheet
from sfumato.diagnosis.hacks import rewards, shortcuts
from sfumato.diagnosis.samples import Samples, Table
from sfumato.diagnosis.significance import FEWEST_PROMPTS
from sfumato.diagnosis.training import training as over_training
from sfumato.runs import Run, write_json

SIGNS: dict[str, Callable[[Case], Finding]] = {
    "rewards": rewards,
    "diversity": diversity,
    "duplicates": duplicates,
    "shortcuts": shortcuts,
    "prompts": prompts,
    "modes": modes,
}
FEWEST_IMAGES = 4
RULE = (
    "hacked: an alarm about rewards or shortcuts, or two alarms of any kind. suspicious: one other alarm, or a "
    "warning. sound: neither, and both rewards and diversity could be judged. unknown: neither, but one could not."
)


def diagnose(run: Run, point: str | None = None, training: str | None = None) -> dict[str, Any]:
    """Judge every point of an evaluated run against the base, and one of them in full.

    Writes `evaluation/diagnosis.json` and the pictures in `evaluation/diagnosis/`; see docs/diagnose.md. These hold the
    run's own verdict: about another point, or with another training's log, `diagnosis-POINT` is written beside them.

    Args:
        point: name or label of the one that the verdict is about; without it the training's, if it was measured, or
            else the first.
        training: whose log is read for over-training; without it the point's own, up to the checkpoint that the point
            is, and none for a point that is no training's.

    Returns:
        What is written: `file` (where, relative to the run), `verdict`, `sentences`, `findings` (of the point, with
        evidence), and `points` (a verdict and the levels of all), `rule`, and how many prompts and images it rests on.

    Raises:
        ValueError: no evaluated images, an evaluation that is not finished, no such point or training, or a picture
            that is gone or damaged.
    """
    _check_finished(run)
    table, known = Table(run), _described(run)
    labels = {name: known.get(name, {}).get("label", name) for name in table.points}
    default = _chosen(labels, None, None)
    wanted = _chosen(labels, point, training)
    if training is not None and training not in run.trainings:
        raise ValueError(f"there is no training {training!r}: choose one of {', '.join(run.trainings) or '(none)'}")
    own = _log_of(run, wanted, known.get(wanted, {}).get("definition"))
    log = own if training in (None, own and own[0]) else (training, None)
    stem = "diagnosis" if (wanted, log) == (default, own) else f"diagnosis-{wanted}"
    neighbours = (run.recipe.get("evaluation") or {}).get("neighbours", 3)
    points, result = [], {}
    for name, label in labels.items():
        base, drawn, again = table.compared(name)
        findings = _examine(label, base, drawn, again, neighbours)
        if name == wanted and log is not None:
            findings.append(over_training(run, *log))
        levels = {finding.name: finding.level for finding in findings}
        points.append({"name": name, "label": label, "verdict": verdict(levels), "levels": levels})
        if name == wanted:
            result = {
                "file": f"evaluation/{stem}.json",
                "verdict": points[-1]["verdict"],
                "point": name,
                "sentences": _sentences(label, points[-1]["verdict"], findings),
                "findings": _with_pictures(run, findings, stem),
                "prompts": len(base.prompts),
                "images_per_prompt": base.images,
            }
    result |= {"points": points, "rule": RULE}
    write_json(run.path / result["file"], result)
    return result


def _check_finished(run: Run) -> None:
    """Refuse a sweep under way, or one that was interrupted: its rows are not brought together yet."""
    if any(run.evaluation.glob("rows-*.jsonl")):
        raise ValueError(
            f"the evaluation of {run.path} is not finished: run `sfumato evaluate {run.path}`, which continues it"
        )


def _examine(label: str, base: Samples, point: Samples, again: Samples, neighbours: int) -> list[Finding]:
    short = ""
    if len(base.prompts) < FEWEST_PROMPTS:
        short = f"{len(base.prompts)} prompts cannot tell a change from chance: evaluate {FEWEST_PROMPTS} or more."
    elif base.images < FEWEST_IMAGES:
        short = f"{base.images} images per prompt to compare are too few: evaluate {FEWEST_IMAGES} or more."
    if short:
        return [Finding(name, "unknown", short) for name in SIGNS]
    case = Case.of(label, base, point, again, neighbours)
    return [sign(case) for sign in SIGNS.values()]


def verdict(levels: dict[str, str]) -> str:
    """The verdict by `RULE`, from the level of each finding."""
    alarms = [name for name, level in levels.items() if level == "alarm"]
    if len(alarms) > 1 or {"rewards", "shortcuts"} & set(alarms):
        return "hacked"
    if alarms or "warn" in levels.values():
        return "suspicious"
    return "unknown" if "unknown" in (levels.get("rewards"), levels.get("diversity")) else "sound"


def _chosen(labels: dict[str, str], point: str | None, training: str | None) -> str:
    """The name of the point that is asked for by name or label, or that stands for the run."""
    if point is not None:
        if point in labels:
            return point
        for name, label in labels.items():
            if label == point:
                return name
        near = difflib.get_close_matches(point, [*labels, *labels.values()], 1)
        hint = f"did you mean {near[0]!r}? Or " if near else ""
        raise ValueError(f"there is no point {point!r}: {hint}choose one of {', '.join(labels) or '(none)'}")
    if not labels:
        raise ValueError("only the base model was evaluated: add a point, such as {kind: tuned}, and evaluate again")
    wanted = training or "tuned"
    return wanted if wanted in labels else next(iter(labels))


def _log_of(run: Run, point: str, definition: dict[str, Any] | None) -> tuple[str, int | None] | None:
    """The training whose log tells of a point, and the update it ends at; None for a point that is no training's."""
    if definition is None:
        return (point, None) if point in run.trainings else None
    return (definition["training"], definition.get("checkpoint")) if definition["kind"] == "tuned" else None


def _described(run: Run) -> dict[str, dict[str, Any]]:
    """The points' entries in frontier.json by name; empty if it was not written yet."""
    try:
        return {entry["name"]: entry for entry in run.frontier()["points"]}
    except FileNotFoundError:
        return {}


def _sentences(label: str, found: str, findings: list[Finding]) -> list[str]:
    """The verdict, then what speaks for it, worst first; or else what was looked at in vain."""
    opening = {
        "hacked": f"{label} is hacked: its reward is not what its pictures are worth.",
        "suspicious": f"{label} is suspicious: look at the pictures before using it.",
        "sound": f"{label} is sound: no sign of hacking was found.",
        "unknown": f"Whether {label} is hacked cannot be told from this evaluation.",
    }
    shown = [finding for level in ("alarm", "warn") for finding in findings if finding.level == level]
    if found == "unknown":
        shown = [finding for finding in findings if finding.level == "unknown"]
    return [opening[found], *dict.fromkeys(finding.text for finding in shown)]


def _with_pictures(run: Run, findings: list[Finding], stem: str) -> list[dict[str, Any]]:
    """The findings as plain values, their evidence drawn into the folder `evaluation/STEM/`."""
    folder = run.evaluation / stem
    for old in folder.glob("*.png"):
        old.unlink()
    described = []
    for finding in findings:
        evidence = []
        for number, sheet in enumerate(finding.evidence, 1):
            path = folder / f"{finding.name}{'' if number == 1 else f'-{number}'}.png"
            draw_sheet(sheet, run.evaluation, path)
            evidence.append({"file": path.relative_to(run.path).as_posix(), "caption": sheet.caption})
        described.append(
            {
                "name": finding.name,
                "level": finding.level,
                "title": finding.title,
                "text": finding.text,
                "numbers": finding.numbers,
                "evidence": evidence,
            }
        )
    return described
