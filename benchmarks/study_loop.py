"""The loop closed on emoji-64 with simulated raters: pictures, votes, a reward, a tuned model, AIG, and votes again.

    python benchmarks/study_loop.py            # about 15 minutes on one core; an interrupted loop continues
    python benchmarks/study_loop.py --table    # only show what there is

Nobody is asked: raters are simulated, they like the house style as emoji-64's bundled preference measures it, which no
training sees except through their votes, and find sets varied by their Vendi score. So it is known what the second
study should find. It starts from an evaluated run (`sfumato run emoji64-frontier`, or --start), whose pictures the
first study shows; the second study shows other prompts. Every step is a command that is printed. Results are in
docs/study-analysis.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.emoji64 import scorer_path
from sfumato.runs import read_json

SHOWN = ("base", "lora-0.25", "lora-0.5", "tuned-10", "kl-5", "aig-power-4")
FIRST = "dog, horse, duck, fish, butterfly, rose, strawberry, carrot, doughnut, bus, turtle, cat"
POINTS = "[{kind: base}, {kind: tuned}, {kind: guidance, schedule: power, parameters: {p: 2}}]"
TUNED = ("base", "tuned", "aig-power-2")


@dataclass(frozen=True)
class Plan:
    """The settings of a loop.

    Attributes:
        folder: of everything that it makes.
        start: the evaluated run whose pictures are shown first.
        shown: its operating points in the first study.
        first: settings of the first study.
        raters: in either study.
        measures: the score that they like by, as the start and as the run on the learned reward call it.
        learning: settings of the reward.
        recipe: of the training and evaluation on that reward, and what it changes.
        second: settings of the second study.
    """

    folder: Path = Path("runs/study-loop")
    start: Path = Path("runs/emoji64-frontier")
    shown: tuple[str, ...] = SHOWN
    first: tuple[str, ...] = ("questions=[{kind: pair, repeats: 3}]", f"prompts=[{FIRST}]", "votes_per_item=2")
    raters: int = 60
    measures: tuple[str, str] = ("reward", "house")
    learning: tuple[str, ...] = (f"model={scorer_path()}", "held_out=0.25")
    recipe: tuple[str, ...] = (
        "emoji64-demo",
        "variants={}",
        "training.steps=40",
        "training.checkpoint_every=10",
        "evaluation.rewards={house: {name: preference, model: emoji64}}",
        f"evaluation.points={POINTS}",
    )
    second: tuple[str, ...] = (
        "questions=[{kind: pair, repeats: 3}, {kind: variety, set_size: 6, repeats: 2}]",
        "votes_per_item=8",
    )


@dataclass(frozen=True)
class Step:
    """A command, and the file that is there when it is done."""

    done: Path
    command: tuple[str, ...]


def steps(plan: Plan) -> list[Step]:
    """The loop as commands of sfumato."""
    first, pairs, reward, run, second = (
        plan.folder / name for name in ("first", "pairs.jsonl", "reward", "run", "second")
    )
    return [
        *_study(first, plan, plan.start, plan.shown, plan.first, number=0),
        Step(pairs, ("study", "export", str(first), "--pairs", str(pairs))),
        Step(reward / "evaluation.json", ("preference", "train", f"pairs={pairs}", f"folder={reward}", *plan.learning)),
        Step(
            run / "evaluation" / "frontier.json",
            ("run", *plan.recipe, "reward.name=preference", f"reward.model={reward}", f"run={run}"),
        ),
        *_study(second, plan, run, TUNED, plan.second, number=1),
    ]


def _study(
    folder: Path, plan: Plan, run: Path, points: tuple[str, ...], settings: tuple[str, ...], number: int
) -> list[Step]:
    sources = "points={" + ", ".join(f"{name}: {{run: {run}}}" for name in points) + "}"
    like = ("--raters", str(plan.raters), "--seed", str(number), "--measure", plan.measures[number])
    return [
        Step(folder / "study.json", ("study", "create", f"name={folder.name}", f"folder={folder}", sources, *settings)),
        Step(folder / "simulation.json", ("study", "simulate", str(folder), *like)),
        Step(folder / "analysis" / "report.html", ("study", "analyse", str(folder))),
    ]


def close(plan: Plan, sfumato: Callable[[tuple[str, ...]], None]) -> None:
    """Do what is not done yet.

    Args:
        plan: the settings.
        sfumato: runs a command.
    """
    for step in steps(plan):
        if step.done.exists():
            continue
        if step.done.name == "study.json":
            shutil.rmtree(step.done.parent, ignore_errors=True)
        print(f"$ sfumato {shlex.join(step.command)}", flush=True)
        sfumato(step.command)


def recovered(plan: Plan) -> list[dict[str, Any]]:
    """What the second study found about every two points beside what was true of careful raters."""
    found = read_json(plan.folder / "second" / "analysis" / "analysis.json")
    truths = read_json(plan.folder / "second" / "simulation.json")["expected"]
    rates = {(q["name"], row["a"], row["b"]): row for q in found["questions"] for row in q["win_rates"]}
    rows = []
    for truth in truths:
        row = rates[truth["question"], truth["a"], truth["b"]]
        low, high = row["clustered_low"], row["clustered_high"]
        rows.append({**truth, "found": row["share"], "low": low, "high": high, "p_adjusted": row["p_adjusted"]})
    return rows


def show(plan: Plan) -> None:
    """Print the reward's accuracy and the table."""
    learned = read_json(plan.folder / "reward" / "evaluation.json")
    print(
        f"\nreward: accuracy {learned['accuracy']:.3f} [{learned['low']:.3f}, {learned['high']:.3f}] on held-out votes"
    )
    print("\n| question | points | true win rate | found | 95 % interval | p, Holm |\n|---|---|---|---|---|---|")
    for row in recovered(plan):
        print(
            f"| {row['question']} | {row['a']} over {row['b']} | {row['share']:.0%} | {row['found']:.0%} | "
            f"{row['low']:.0%} to {row['high']:.0%} | {row['p_adjusted']:.2g} |"
        )


def _in_a_process(command: tuple[str, ...]) -> None:
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **os.environ}
    subprocess.run([sys.executable, "-m", "sfumato.cli", *command], check=True, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=Plan.start, help="an evaluated run of emoji64-frontier")
    parser.add_argument("--folder", type=Path, default=Plan.folder, help="where everything goes")
    parser.add_argument("--table", action="store_true", help="only show what there is")
    options = parser.parse_args()
    plan = Plan(folder=options.folder, start=options.start)
    if not options.table:
        close(plan, _in_a_process)
    show(plan)


if __name__ == "__main__":
    main()
