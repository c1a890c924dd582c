"""Reward hacking on emoji-64: proxies learned from 100, 1,000 and all pairs, and what moves the point where gold falls.

    python -m benchmarks.hacking            # about an hour on one core; an interrupted run continues
    python -m benchmarks.hacking --quick    # that it works, a minute
    python -m benchmarks.hacking --table    # figures and table of what there is

DRaFT-1 tunes emoji-64 to each proxy; held-out prompts are looked at every five updates. On the proxy of 100 pairs an
ensemble, two KL penalties, and AIG at every checkpoint are tried. Every training is a process and a run folder of its
own in runs/hacking. The artwork that pairs are made of is fetched as `python -m tools.emoji` does it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.hacking import draw, looks, proxies
from benchmarks.hacking.plan import CURES, PLAIN, PROXIES, QUICK, Plan, Way
from benchmarks.hacking.turning import Curve

from sfumato.cli.shared import silence
from sfumato.runs import read_json

WAYS = {way.name: way for way in [*PLAIN, *CURES]}
LEARN = "proxies"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it works")
    parser.add_argument("--table", action="store_true", help="only show what there is")
    parser.add_argument("--figures", type=Path, help="folder for the figures [default: that of the runs]")
    parser.add_argument("--one", choices=[LEARN, *WAYS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    if options.one:
        silence()
        proxies.learn(plan) if options.one == LEARN else looks.make(plan, WAYS[options.one])
        return
    for name in [] if options.table else [LEARN, *WAYS]:
        if not (proxies.learned(plan) if name == LEARN else looks.finished(plan, WAYS[name])):
            again = [sys.executable, "-m", "benchmarks.hacking", "--one", name, *(["--quick"] if options.quick else [])]
            subprocess.run(again, check=True, env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **os.environ})
    show(plan, options.figures or plan.folder)


def show(plan: Plan, folder: Path) -> None:
    """Print the tables and draw the figures."""
    print("\n| proxy | pairs | accuracy on held-out pairs, right labels |\n|---|---|---|")
    for name in PROXIES:
        found = read_json(plan.folder / "proxies" / name / "evaluation.json")
        print(f"| {name} | {found['pairs']} | {found['accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}] |")
    worst = [way for way in PLAIN if way.proxy == CURES[-1].proxy]
    for name, ways in (("pairs", PLAIN), ("cures", [*worst, *CURES])):
        curves = {way.label: curve(plan, way) for way in ways if looks.finished(plan, way)}
        print(f"\n{draw.table(curves)}")
        draw.figure(folder / f"hacking-{name}.svg", curves)
    print(f"\nfigures: {folder}")


def curve(plan: Plan, way: Way) -> Curve:
    return Curve.of(looks.read(plan, way))


if __name__ == "__main__":
    main()
