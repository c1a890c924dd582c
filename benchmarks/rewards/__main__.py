"""How fast HPSv2 is beside the package hpsv2, and what prompts, shared backbones and bfloat16 save.

    python benchmarks/rewards            # two sizes of CLIP, 32 pictures; about 15 minutes on one core
    python benchmarks/rewards --quick    # that it works, half a minute

hpsv2 has the environment of tests/golden/make_rewards_clip.py, build/peers-rewards-clip, made at the first run. Each
side is a process that stays loaded; all ways of both take turns. Both sides score the same pictures with the same
random weights, and their scores are compared.

* hpsv2.score: a call for each picture and its prompt, as a training would; every call reads the weights from disk.
* hpsv2.score, one prompt: a single call with all pictures, which it takes one by one.
* loop, loaded once: its model, preprocessing and tokenizer, one picture and prompt at a time.
* products alone: the matrix products of the image tower in float32, of all pictures at once, and nothing else; how much
  slower a loop is than these is what no batch can exceed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT))

from bed import CHECKPOINT, MODEL, SIZES, Bed  # noqa: E402
from tests.golden.make_rewards_clip import install  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402

BAR, TOLERANCE, HALF = 5.0, 1e-5, 2e-2
"""Times faster than hpsv2; differences of cosines allowed in float32 and in bfloat16."""
ELSEWHERE = ("hpsv2.score, one prompt", "two rewards, one pass", "two rewards, two passes", "products alone")
"""Ways that score something else than each picture's own cosine."""
COMPARED = [
    (theirs, ours)
    for theirs in ("hpsv2.score", "hpsv2.score, one prompt", "loop, loaded once")
    for ours in ("batch", "batch, new prompts", "batch, bfloat16")
]
COMPARED += [("batch, new prompts", "batch"), ("batch", "batch, bfloat16"), ("one at a time", "batch")]
COMPARED += [("two rewards, two passes", "two rewards, one pass")]
COMPARED += [(way, "products alone") for way in ("loop, loaded once", "batch")]
Found = dict[str, Any]


class Side:
    """A worker that stays loaded."""

    def __init__(self, name: str, bed: Bed, threads: int):
        python = str(install()) if name == "theirs" else sys.executable
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        local = {"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        self.log = Path(bed.folder) / f"{name}.log"
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name, json.dumps(bed._asdict())],
            env={**os.environ, **limits, **local, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )

    def ask(self, way: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(way + "\n")
        self.process.stdin.flush()
        if not (answer := self.process.stdout.readline()):
            raise RuntimeError(f"{way!r} ended the process: {self.log.read_text()[-2000:]}")
        return json.loads(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(bed: Bed, rounds: int, threads: int) -> dict[str, list[Found]]:
    """Way -> what was found in each round; the first, which warms up, is left out."""
    Path(bed.folder).mkdir(parents=True, exist_ok=True)
    sides = {name: Side(name, bed, threads) for name in ("theirs", "ours")}
    for name, file in (("theirs", CHECKPOINT), ("ours", MODEL)):
        if not (Path(bed.folder) / file).exists():
            sides[name].ask("save")
    ways = [(side, way) for side in sides.values() for way in side.ask("ways")]
    found: dict[str, list[Found]] = defaultdict(list)
    with tqdm(total=(rounds + 1) * len(ways), desc=bed.size, unit="way") as bar:
        for number in range(rounds + 1):
            for side, way in ways if number % 2 == 0 else reversed(ways):
                found[way].append(side.ask(way))
                bar.update()
    for side in sides.values():
        side.end()
    check_equal(found)
    return {way: rows[1:] for way, rows in found.items()}


def check_equal(found: dict[str, list[Found]]) -> None:
    """Raise AssertionError unless all ways give the same cosines."""
    wanted = found["hpsv2.score"][0]["scores"]
    for way, rows in found.items():
        if way not in ELSEWHERE:
            off = max(abs(one - other) for one, other in zip(rows[0]["scores"], wanted, strict=True))
            assert off < (HALF if "bfloat16" in way else TOLERANCE), f"{way} differs from hpsv2.score by {off:.2g}"


def report(bed: Bed, found: dict[str, list[Found]]) -> None:
    """Tables of the ways, and of ratios within a round, so that what else the machine does weighs on both."""
    print(f"\n{bed.size}, {bed.count} pictures of {bed.edge} x {bed.edge}\n\n| way | images / s | CPU ms an image |")
    print("|---|---|---|")
    for way, rows in found.items():
        seconds, cpu = (median(row[key] for row in rows) for key in ("seconds", "cpu"))
        print(f"| {way} | {bed.count / seconds:.1f} | {1000 * cpu / bed.count:.1f} |")
    print("\n| slower / faster | seconds | quartiles | CPU s | |\n|---|---|---|---|---|")
    for slow, fast in COMPARED:
        seconds, cpu = (
            [a[key] / b[key] for a, b in zip(found[slow], found[fast], strict=True)] for key in ("seconds", "cpu")
        )
        low, middle, high = quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
        barred = slow in ("hpsv2.score", "loop, loaded once") and fast != "products alone"
        verdict = ("reached" if middle >= BAR else "MISSED") if barred else ""
        print(f"| {slow} / {fast} | {middle:.2f} | {low:.2f} to {high:.2f} | {median(cpu):.2f} | {verdict} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny CLIP and few pictures, to see that it works")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "ViT-B/32"])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--edge", type=int, default=512, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.images, options.edge, options.rounds = ["tiny"], 4, 64, 1
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    for size in options.sizes:
        folder = ROOT / "build" / "rewards" / size.replace("/", "-")
        bed = Bed(size, str(folder), options.images, options.edge)
        report(bed, measure(bed, options.rounds, options.threads))


if __name__ == "__main__":
    main()
