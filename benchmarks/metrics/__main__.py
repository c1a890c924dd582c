"""What the measures cost: beside the packages `prdc` and `vendi-score`, and on 50,000 features.

    python benchmarks/metrics          # 10,000 x 2,048 side by side
    python benchmarks/metrics large    # 50,000 x 2,048: time and memory of every measure

The peers get an environment of their own, build/peers, made at the first run. Every measurement is a process of its
own; the sides take turns. Time is that of the measure, without making features and importing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "build" / "peers"
PACKAGES = ["prdc==0.2", "vendi-score==0.0.3", "scipy<1.14"]
LARGE = ["prdc", "precision", "recall", "density", "coverage", "nearest_neighbours", "fid", "spectral_distance"]
LARGE += ["kid_subsets", "kid", "cmmd", "vendi_score", "truncated_entropy", "euclidean"]
BAR, LIMIT = 5.0, 8.0  # times faster; GiB


def measure(name: str, n: int, d: int, threads: int) -> dict:
    """One run of a measure, ours or, as "peer:NAME", theirs."""
    python = str(PEERS / "bin" / "python") if name.startswith("peer:") else sys.executable
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment = {**os.environ, **limits, "OMP_WAIT_POLICY": "passive"}
    command = [python, str(HERE / "worker.py"), name, str(n), str(d)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def peers_environment() -> None:
    if not (PEERS / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)


def side_by_side(n: int, d: int, rounds: int, threads: int) -> None:
    """The sides take turns; ratios are those within a round, so that what else the machine does weighs on both."""
    peers_environment()
    for mine, peer, times in (("prdc", "peer:prdc", rounds), ("vendi_score", "peer:vendi-score", 1)):
        pairs = []
        for number in range(times):
            names = (mine, peer) if number % 2 == 0 else (peer, mine)
            found = {name: measure(name, n, d, threads) for name in names}
            pairs.append((found[mine], found[peer]))
            row = "  ".join(f"{name} {found[name]['seconds']:.1f} s ({found[name]['cpu']:.1f} CPU)" for name in names)
            print(f"round {number + 1}: {row}  load {os.getloadavg()[0]:.1f}", flush=True)
            check_equal(found[mine]["result"], found[peer]["result"])
        for kind in ("seconds", "cpu"):
            ratios = [theirs[kind] / ours[kind] for ours, theirs in pairs]
            spread = ", quartiles {:.1f}, {:.1f}, {:.1f}".format(*quantiles(ratios)) if times > 1 else ""
            verdict = "reached" if median(ratios) >= BAR else "MISSED"
            print(f"{peer} / {mine}, {kind}: {median(ratios):.1f}{spread}; {BAR:g} is {verdict}", flush=True)


def check_equal(mine: object, theirs: object) -> None:
    pairs = zip(mine.values(), theirs.values(), strict=True) if isinstance(mine, dict) else [(mine, theirs)]
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs), f"{mine} is not {theirs}"


def large(names: list[str], n: int, d: int, threads: int) -> None:
    print("measure | seconds | CPU seconds | peak memory, GiB | result | load")
    for name in names:
        found = measure(name, n, d, threads)
        over = "" if found["peak"] < LIMIT else " OVER"
        times = f"{found['seconds']:.0f} | {found['cpu']:.0f}"
        print(
            f"{name} | {times} | {found['peak']:.2f}{over} | {found['result']} | {os.getloadavg()[0]:.1f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "large"], nargs="?", default="peers")
    parser.add_argument("--samples", type=int, help="rows per set instead of 10,000 or 50,000")
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--measures", nargs="+", choices=LARGE, default=LARGE, help="of large")
    options = parser.parse_args()
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}")
    if options.what == "large":
        large(options.measures, options.samples or 50_000, options.dimensions, options.threads)
    else:
        side_by_side(options.samples or 10_000, options.dimensions, options.rounds, options.threads)


if __name__ == "__main__":
    main()
