"""Seconds and memory of an update on the same random pipeline, the sides taking turns."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from bed import Settings
from peers import run
from tqdm.auto import tqdm

OURS = ("draft", "draft, float32", "draft, exact", "draft, nothing saved", "draft, decoding singly", "ddpo")
THEIRS = ("AlignProp, K = 1", "AlignProp, default", "DDPO")
Found = dict[str, Any]


class Bar(NamedTuple):
    """What theirs over ours is to reach, in seconds per update or in bytes above the loaded model."""

    theirs: str
    ours: str
    what: str
    limit: float


BARS = (
    Bar("AlignProp, K = 1", "draft, nothing saved", "seconds", 1.0),
    Bar("AlignProp, K = 1", "draft, exact", "seconds", 1.15),
    Bar("AlignProp, K = 1", "draft, float32", "seconds", 1.15),
    Bar("AlignProp, K = 1", "draft", "seconds", 1.6),
    Bar("AlignProp, default", "draft", "seconds", 2.0),
    Bar("DDPO", "ddpo", "seconds", 1.0),
    Bar("AlignProp, K = 1", "draft", "bytes", 1 / 0.8),
    Bar("AlignProp, K = 1", "draft, decoding singly", "bytes", 1 / 0.8),
    Bar("AlignProp, default", "draft", "bytes", 1 / 0.8),
    Bar("DDPO", "ddpo", "bytes", 1 / 0.8),
)


def compare(folder: Path, rounds: int, updates: int, threads: int) -> Iterator[str]:
    """Tables of what was measured, and of the bars."""
    found: dict[str, list[Found]] = defaultdict(list)
    names = [("ours", name) for name in OURS] + [("theirs", name) for name in THEIRS]
    with tqdm(total=rounds * len(names), unit="process") as progress:
        for number in range(rounds):
            for module, name in names if number % 2 == 0 else reversed(names):
                found[name].append(run("worker.py", module, Settings(name, str(folder)), threads, updates))
                progress.update()
    yield f"load {os.getloadavg()[0]:.1f}"
    yield from table(found, Settings("", "").batch)
    yield from bars(found)


def table(found: dict[str, list[Found]], images: int) -> Iterator[str]:
    yield "\n| update | s | CPU s | images / s | UNet calls | MiB above the loaded model |"
    yield "|---|---|---|---|---|---|"
    for name, rows in found.items():
        seconds = typical(rows, "seconds")
        memory = typical(rows, "bytes") / 2**20
        yield (
            f"| {name} | {seconds:.2f} | {typical(rows, 'cpu'):.2f} | {images / seconds:.2f} | "
            f"{median(row['calls'] for row in rows):.1f} | {memory:.1f} |"
        )


def bars(found: dict[str, list[Found]]) -> Iterator[str]:
    """Ratios are those within a round, so that what else the machine does weighs on both sides."""
    yield "\n| theirs / ours | of | ratio | quartiles | CPU s | bar | |\n|---|---|---|---|---|---|---|"
    for bar in BARS:
        found_ratios = ratios(found, bar, bar.what)
        low, middle, high = quantiles(found_ratios) if len(found_ratios) > 1 else found_ratios * 3
        cpu = f"{median(ratios(found, bar, 'cpu')):.2f}" if bar.what == "seconds" else ""
        verdict = "is reached" if middle >= bar.limit else "IS MISSED"
        yield (
            f"| {bar.theirs} / {bar.ours} | {bar.what} | {middle:.2f} | {low:.2f} to {high:.2f} | {cpu} | "
            f"{bar.limit:.2f} | {verdict} |"
        )


def ratios(found: dict[str, list[Found]], bar: Bar, key: str) -> list[float]:
    """Theirs over ours, for each round."""
    pairs = zip(found[bar.theirs], found[bar.ours], strict=True)
    return [value(theirs, key) / value(ours, key) for theirs, ours in pairs]


def value(row: Found, key: str) -> float:
    """Of one process: a mean over its updates, since those of AlignProp differ in how many steps they attach."""
    return sum(row[key]) / len(row[key]) if isinstance(row[key], list) else float(row[key])


def typical(rows: list[Found], key: str) -> float:
    return median(value(row, key) for row in rows)
