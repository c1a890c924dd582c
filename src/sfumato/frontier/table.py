"""The table of a sweep, `images.jsonl`: written by many processes, checked against the pictures, byte-equal in the end.

While a sweep is under way every process appends to files of its own; `merge` brings them into the one table, in the
order of the plan. A picture that is gone, or has not the hash in its record, loses its record and so is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from sfumato.frontier.plan import MicroBatch, Rows
from sfumato.runs import Run, read_json, read_jsonl, write_json, write_jsonl

LOST = "lost.json"


def rows_of(run: Run) -> Rows:
    """The records by image."""
    return {(row["point"], row["prompt"], row["seed"]): row for row in run.images()}


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drop_lost(run: Run, batches: Sequence[MicroBatch], stale: Mapping[str, str]) -> None:
    """Bring the table in order and remove the records whose picture is gone or damaged, and those of stale points.

    Why each was lost ("missing", "damaged", or why its point is stale) stands in `lost.json` before the records go,
    until the pictures are there again: a sweep that is killed meanwhile still knows.

    Args:
        batches: the plan.
        stale: point -> why none of its pictures counts any more.
    """
    merge(run, batches)
    for unfinished in run.evaluation.glob("images/*/.*.png"):  # of a process that was killed
        unfinished.unlink()
    rows, lost = run.images(), {}
    for row in tqdm(rows, desc="checking pictures", unit="image", leave=False, delay=2):
        path = run.evaluation / row["file"]
        if row["point"] in stale:
            lost[row["file"]] = stale[row["point"]]
        elif not path.exists():
            lost[row["file"]] = "missing"
        elif "sha256" in row and file_hash(path) != row["sha256"]:
            lost[row["file"]] = "damaged"
    if lost:
        write_json(run.evaluation / LOST, why_lost(run) | lost)
        write_jsonl(run.evaluation / "images.jsonl", [row for row in rows if row["file"] not in lost])


def why_lost(run: Run) -> dict[str, str]:
    """Why pictures that once were there have to be made again, by their path in the evaluation's folder."""
    path = run.evaluation / LOST
    return read_json(path) if path.exists() else {}


def merge(run: Run, batches: Sequence[MicroBatch]) -> None:
    """Bring the processes' rows and logs into `images.jsonl` and `sweep.jsonl`, each once.

    Args:
        batches: the plan, whose order the table takes; what is not in it comes last.
    """
    folder = run.evaluation
    place = {image: i for i, image in enumerate(image for batch in batches for image in batch.images)}
    rows = rows_of(run)
    ordered = [rows[image] for image in sorted(rows, key=lambda image: (place.get(image, len(place)), image))]
    if ordered != read_jsonl(folder / "images.jsonl"):
        write_jsonl(folder / "images.jsonl", ordered)
    logs = sorted(folder.glob("log-*.jsonl"))
    if logs:
        lines = [json.dumps(record) for file in [folder / "sweep.jsonl", *logs] for record in read_jsonl(file)]
        records = map(json.loads, dict.fromkeys(lines))
        write_jsonl(folder / "sweep.jsonl", sorted(records, key=lambda record: record["time"]))
    for part in [*folder.glob("rows-*.jsonl"), *logs]:
        part.unlink()
    there = {row["file"] for row in ordered}
    if (folder / LOST).exists() and there.issuperset(why_lost(run)):
        (folder / LOST).unlink()
