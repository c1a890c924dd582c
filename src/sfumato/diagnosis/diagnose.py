"""From a run folder to `evaluation/diagnosis.json`: findings of every point, a verdict, the pictures."""

from __future__ import annotations

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

    Writes `evaluation/diagnosis.json` and the pictures in `evaluation/diagnosis/`; see docs/diagnose.md.

    Args:
        point: the one that the verdict is about; without it the training's, if it was measured, or else the first.
        training: whose log is read for over-training; without it the point's own.

    Returns:
        What `diagnosis.json` holds: `verdict`, `sentences`, `findings` (of the point, with evidence), and `points` (a
        verdict and the levels of all), `rule`, and how many prompts and images it rests on.

    Raises:
        ValueError: no evaluated images, no such point or training, or a picture that is gone or damaged.
    """
    table = Table(run)
    wanted = _chosen(table, point, training)
    if training is not None and training not in run.trainings:
        raise ValueError(f"there is no training {training!r}: choose one of {', '.join(run.trainings) or '(none)'}")
    known = _described(run)
    neighbours = (run.recipe.get("evaluation") or {}).get("neighbours", 3)
    points, result = [], {}
    for name in table.points:
        base, drawn, again = table.compared(name)
        label = known.get(name, {}).get("label", name)
        findings = _examine(label, base, drawn, again, neighbours)
        if name == wanted:
            log = training or (known.get(name, {}).get("definition") or {}).get("training", "tuned")
            findings.append(over_training(run, log))
        levels = {finding.name: finding.level for finding in findings}
        points.append({"name": name, "label": label, "verdict": verdict(levels), "levels": levels})
        if name == wanted:
            result = {
                "verdict": points[-1]["verdict"],
                "point": name,
                "sentences": _sentences(label, points[-1]["verdict"], findings),
                "findings": _with_pictures(run, findings),
                "prompts": len(base.prompts),
                "images_per_prompt": base.images,
            }
    result |= {"points": points, "rule": RULE}
    write_json(run.evaluation / "diagnosis.json", result)
    return result


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


def _chosen(table: Table, point: str | None, training: str | None) -> str:
    if point is not None:
        if point not in table.points:
            raise ValueError(f"there is no point {point!r}: choose one of {', '.join(table.points) or '(none)'}")
        return point
    if not table.points:
        raise ValueError("only the base model was evaluated: add a point, such as {kind: tuned}, and evaluate again")
    wanted = training or "tuned"
    return wanted if wanted in table.points else table.points[0]


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


def _with_pictures(run: Run, findings: list[Finding]) -> list[dict[str, Any]]:
    """The findings as plain values, their evidence drawn into `evaluation/diagnosis/`."""
    folder = run.evaluation / "diagnosis"
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
