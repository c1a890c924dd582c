"""One side, which stays loaded: `python worker.py SIDE BED` reads the names of ways and answers each with JSON.

SIDE is `ours` or `theirs`, BED the JSON of a `bed.Bed`. It runs in either environment. The first line says which ways
there are; the name `save` writes the side's weights instead.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time

import torch
from bed import Bed


def main(name: str, bed: Bed) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed goes to stderr
    side = importlib.import_module(name)
    for line in sys.stdin:
        if (asked := line.strip()) == "save":
            side.save(bed)
            found: object = None
        elif asked == "ways":
            ways = side.ways(bed)
            found = list(ways)
        else:
            wall, used = time.perf_counter(), time.process_time()
            scores = ways[asked]()
            found = {
                "seconds": time.perf_counter() - wall,
                "cpu": time.process_time() - used,
                "scores": scores,
                "threads": torch.get_num_threads(),
            }
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], Bed(**json.loads(sys.argv[2])))
