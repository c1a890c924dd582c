"""What each form of guidance costs and how far it is from exact AIG: the tables and the picture in docs/blends.md.

    python benchmarks/guidance cost      # time and memory on emoji-64, a wider UNet and a wider DiT
    python benchmarks/guidance quality   # reward and diversity on emoji-64, 24 prompts x 32 seeds; resumable
    python benchmarks/guidance tables    # what both found, as markdown, and whether the bars were reached
    python benchmarks/guidance strip     # docs/images/blends.webp

`--quick` sees that it works, on tiny settings. Every number is kept as JSON in the folder `--run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cost
import quality
import strip
from beds import BEDS
from forms import COST, EXACT, QUALITY, STRIP, WEIGHTS

from sfumato.runs import read_json, write_json

Row = dict[str, Any]
CACHED = [form for form in COST if form in QUALITY and "reuse" in form.guidance.get("savings", {})]
QUICK: dict[str, dict[str, Any]] = {
    "emoji-64": {"images": 1},
    "wide UNet": {"channels": (32, 32, 32)},
    "wide DiT": {"layers": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "quality", "tables", "strip"])
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it works")
    parser.add_argument("--run", type=Path, default=Path("runs/guidance"), help="folder of the results")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of every timing")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps, N")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=32, help="images per prompt")
    parser.add_argument("--workers", type=int, default=2, help="processes that sample for `quality`; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("docs/images/blends.webp"), help="picture of `strip`")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.prompts, options.seeds, options.workers = 1, 6, 2, 4, 0
        options.run = options.run / "quick"
        options.out = options.run / "blends.webp"
    match options.what:
        case "cost":
            measure_costs(options)
        case "quality":
            measure_quality(options)
        case "strip":
            print(strip.draw(STRIP, ["face", "fruit"], 2 if options.quick else 6, options.steps, options.out))
            return
    print(*tables(options.run), sep="\n")


def measure_costs(options: argparse.Namespace) -> None:
    beds = {}
    for name, make in BEDS.items():
        bed = make(steps=options.steps, **(QUICK[name] if options.quick else {}))
        rows = cost.measure(bed, COST, options.rounds, name)
        beds[name] = {"mebibytes": cost.weights(bed.pipe) / 2**20, "forms": rows}
    write_json(options.run / "cost.json", {"steps": options.steps, "rounds": options.rounds, "beds": beds})


def measure_quality(options: argparse.Namespace) -> None:
    tasks = [
        quality.Task(options.run, form, prompt, options.seeds, options.steps)
        for prompt in quality.prompts()[: options.prompts]
        for form in QUALITY
    ]
    try:
        quality.sample_all(tasks, options.workers)
    finally:
        if done := quality.finished(tasks):
            facts = {"steps": options.steps, "seeds": options.seeds, "forms": quality.analyse(done)}
            write_json(options.run / "quality.json", facts)


def tables(run: Path) -> Iterator[str]:
    """Everything in the folder, as markdown."""
    bars = []
    if (run / "cost.json").exists():
        found = read_json(run / "cost.json")
        for name, bed in found["beds"].items():
            yield f"\n{name}, {found['steps']} steps, {bed['mebibytes']:.0f} MiB of weights\n"
            yield from cost.table(bed["forms"])
            bars += cost_bars(name, {row["form"]: row for row in bed["forms"]})
    if (run / "quality.json").exists():
        found = read_json(run / "quality.json")
        prompts = found["forms"][0]["prompts"]
        yield f"\nemoji-64, {prompts} prompts x {found['seeds']} seeds, {found['steps']} steps\n"
        yield from quality.table(found["forms"])
        bars += quality_bars({row["form"]: row for row in found["forms"]})
    yield "\n| to reach | on | measured | |\n|---|---|---|---|"
    for bar, where, measured, limit in bars:
        yield f"| {bar} | {where} | {measured:.3f} | {'holds' if measured <= limit else 'DOES NOT HOLD'} |"


def cost_bars(bed: str, rows: dict[str, Row]) -> Iterator[tuple[str, str, float, float]]:
    """What was to be reached, on which bed, what was measured, and its limit."""
    limits = [(EXACT, "time", 2.02), (WEIGHTS, "time", 1.05), (EXACT, "memory", 1.02), (WEIGHTS, "memory", 1.02)]
    for form, what, limit in [*limits, *((form, "time", 1.35) for form in CACHED)]:
        yield f"{form.name}: {what} at most {limit} of plain", bed, rows[form.name][what], limit


def quality_bars(rows: dict[str, Row]) -> Iterator[tuple[str, str, float, float]]:
    """As `cost_bars`: how far the interval of the difference to exact AIG reaches from 0, on the worse axis."""
    for form in CACHED:
        reach = max(abs(limit) for axis in ("reward", "vendi") for limit in rows[form.name][axis][1:])
        yield f"{form.name}: 90 % intervals within ±10 % of the gap", "emoji-64", reach, quality.MARGIN


if __name__ == "__main__":
    main()
