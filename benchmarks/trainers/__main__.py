"""Our trainer beside TRL 0.21's AlignPropTrainer and DDPOTrainer, which TRL removed with version 0.23.

    python benchmarks/trainers          # time and memory of an update on one random pipeline; about 20 minutes
    python benchmarks/trainers reward   # time to a held-out reward on emoji-64; hours, an interrupted run continues
    python benchmarks/trainers units    # what cheaper steps save, and what they do to the gradient; 10 minutes

The peers get an environment of their own, build/peers-trl, made at the first run. Every measurement is a process of its
own on the CPU; the sides take turns. `--quick` sees that it works.
"""

from __future__ import annotations

import argparse
import os

import race
import speed
import units
from bed import make
from peers import BUILD

PIPELINE = BUILD / "trainers" / "pipeline"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "reward", "units"], nargs="?", default="speed")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it works")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of speed and units")
    parser.add_argument("--rounds", type=int, default=5, help="of speed and units")
    parser.add_argument("--updates", type=int, default=4, help="of speed: updates in each process")
    parser.add_argument("--lrs", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3], help="of reward")
    parser.add_argument("--gain", type=float, default=race.GAIN, help="of reward: above that of the base, to reach")
    parser.add_argument("--cap", type=float, default=20, help="of reward: CPU minutes of training at most in each run")
    parser.add_argument("--batches", type=int, default=6, help="of units: whose gradients are compared")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.updates = options.batches = 1
        options.lrs, options.cap = [1e-3], 0.01
    if not PIPELINE.exists():
        make(PIPELINE)
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    match options.what:
        case "speed":
            lines = speed.compare(PIPELINE, options.rounds, options.updates, options.threads)
        case "reward":
            lines = race.compare(options.lrs, options.gain, options.cap)
        case "units":
            lines = units.report(PIPELINE, options.rounds, options.batches, options.threads)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
