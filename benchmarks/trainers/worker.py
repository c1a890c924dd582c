"""One side's updates, timed and weighed in a process of its own: `python worker.py MODULE SETTINGS COUNT`, prints JSON.

It runs in either environment; MODULE is `ours` or `theirs`, SETTINGS the JSON of `bed.Settings`.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time

from bed import Settings, Side
from torch.profiler import ProfilerActivity, profile


def main(module: str, settings: Settings, count: int) -> None:
    side = importlib.import_module(module).start(settings)
    side.update()  # warms up
    calls: list[int] = []
    hook = side.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    seconds, cpu = [], []
    for _ in range(count):
        wall, used = time.perf_counter(), time.process_time()
        side.update()
        seconds.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - used)
    hook.remove()
    found = {"seconds": seconds, "cpu": cpu, "calls": len(calls) / count, "bytes": peak_memory(side)}
    print(json.dumps(found))


def peak_memory(side: Side) -> int:
    """Bytes of tensors at the worst moment of an update, beyond those that were there before it."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        side.update()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


if __name__ == "__main__":
    main(sys.argv[1], Settings(**json.loads(sys.argv[2])), int(sys.argv[3]))
