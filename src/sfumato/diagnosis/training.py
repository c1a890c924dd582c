"""Over-training, read from the log: did another reward peak and fall while the reward rose?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sfumato.diagnosis.case import LEVELS, PROXY, Evidence, Finding, number
from sfumato.runs import Run

NO_REWARDS = (PROXY, "vendi", "distance", "kept")
FEWEST = 4
SURE = 3.0
"""Standard errors of a difference beyond which a fall from the peak is no chance; see docs/diagnose.md."""


def training(run: Run, name: str, until: int | None = None) -> Finding:
    """Where each other reward peaked over a training, and which checkpoint was the last good one.

    Args:
        until: the update at which the log ends for a checkpoint; without it all of it is read, or what lies before an
            early result.
    """
    until = run.early_result(name) if until is None else until
    records = [
        r for r in run.training_metrics(name) if f"eval/{PROXY}" in r and (until is None or r["update"] <= until)
    ]
    told = f"training {name}" if until is None else f"training {name} up to update {until}"
    first = records[0] if records else {}
    watched = {key.removeprefix("eval/"): value for key, value in first.items() if key.startswith("eval/")}
    others = [key for key, value in watched.items() if key not in NO_REWARDS and isinstance(value, float | int)]
    if not others or len(records) < FEWEST:
        text = f"The log of {told} does not watch another reward at {FEWEST} or more updates."
        return Finding("training", "unknown", text)
    curves = {key: judge_curve(records, key) for key in others}
    worst = max(
        curves, key=lambda key: (LEVELS.index(curves[key]["level"]), curves[key]["fall"] / (curves[key]["noise"] or 1))
    )
    curve = curves[worst]
    checkpoint = _last_good(run.training(name), curve["peak_update"])
    numbers = {**curves, "last_good_checkpoint": checkpoint and str(checkpoint.relative_to(run.path))}
    if curve["level"] == "ok":
        text = f"Over {told}, {worst} did not fall from its peak beyond its noise."
        return Finding("training", "ok", text, numbers)
    good = f"the last good checkpoint is {checkpoint.name}" if checkpoint else "no checkpoint is that early"
    if curve["peak_update"] == 0:
        good = "the base was best"
    text = (
        f"Over {told}, {worst} peaked at update {curve['peak_update']} ({number(curve['peak'])}) and fell to "
        f"{number(curve['end'])} by update {curve['end_update']}, while the reward went on to rise: {good}."
    )
    return Finding("training", curve["level"], text, numbers, _sheets(run, name, records, curve))


def judge_curve(records: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Peak, end and noise of one reward's curve, and the level of its fall."""
    values = np.array([record[f"eval/{key}"] for record in records], dtype=np.float64)
    proxy = [record[f"eval/{PROXY}"] for record in records]
    peak = int(values.argmax())
    noise = curve_noise(values)
    fall = float(values[peak] - values[-1])
    sure = fall > SURE * np.sqrt(2) * noise and proxy[-1] > proxy[peak]
    level = "ok" if not sure else "alarm" if values[-1] <= values[0] else "warn"
    return {
        "level": level,
        "start": float(values[0]),
        "peak": float(values[peak]),
        "peak_update": records[peak]["update"],
        "end": float(values[-1]),
        "end_update": records[-1]["update"],
        "fall": fall,
        "noise": noise,
    }


def curve_noise(values: ArrayLike) -> float:
    """Standard deviation of the noise on a smooth curve (n,), n at least 3: from its median second difference."""
    return float(np.median(np.abs(np.diff(np.asarray(values), 2))) / (0.6745 * np.sqrt(6)))


def _last_good(folder: Path, update: int) -> Path | None:
    """The latest checkpoint up to an update."""
    found = [path for path in sorted(folder.glob("checkpoint-*")) if int(path.name.rpartition("-")[2]) <= update]
    return found[-1] if found else None


def _sheets(run: Run, name: str, records: list[dict[str, Any]], curve: dict[str, Any]) -> list[Evidence]:
    """The contact sheets at the peak and at the end, if both were kept."""
    folder, groups = run.training(name), []
    for record in records:
        file = record.get("eval/image")
        if record["update"] in (curve["peak_update"], curve["end_update"]) and file and (folder / file).exists():
            groups.append((f"update {record['update']}", [("", [f"../training/{name}/{file}"])]))
    caption = "The same prompts and seeds at the peak and at the end of training."
    return [Evidence(caption, groups)] if len(groups) == 2 else []
