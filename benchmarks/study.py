"""How many votes a second a study's server takes, and how long a rater waits for one to be durable.

Run: python benchmarks/study.py [--raters 100] [--pause 0.4] [--seconds 30] [--workers 1] [--database URL]

Simulated raters in a process of their own look at a page, pause, answer and wait, over HTTP on the same machine. A vote
counts when the server has acknowledged it, and so committed it to the disk. The first five seconds are left out.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from multiprocessing import Process
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.study.bed import make_pictures, make_study
from tests.study.raters import read_log, run_raters

WARM_UP = 5.0


def start_server(folder: Path, port: int, workers: int, database: str | None) -> subprocess.Popen:
    """`sfumato study serve`, once it answers."""
    command = [sys.executable, "-m", "sfumato.cli", "study", "serve", str(folder), "--port", str(port)]
    command += ["--workers", str(workers), *(["--database", database] if database else [])]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            return server
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def processor_seconds(process: int) -> float:
    """Of a process and those that it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(int(child)) for child in children)


def flush_seconds(folder: Path) -> float:
    """How long the disk takes to flush a page, at the median."""
    found = []
    with (folder / "flushed").open("wb") as file:
        for _ in range(100):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind, default in (("raters", int, 100), ("pause", float, 0.4), ("seconds", float, 30.0)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        points = make_pictures(folder / "pictures", images=20)
        settings = {"questions": [{"kind": "pair", "repeats": 20}], "items_per_rater": None}
        study = make_study(folder, points=points, votes_per_item=options.raters, **settings)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log, stop = folder / "log", folder / "stop"
        arguments = (port, options.raters, str(log), options.pause, str(stop))
        server = start_server(study.path, port, options.workers, options.database)
        raters = Process(target=run_raters, args=arguments, daemon=True)
        try:
            raters.start()
            time.sleep(WARM_UP)
            begun, used = time.time(), processor_seconds(server.pid)
            time.sleep(options.seconds)
            ended, used = time.time(), processor_seconds(server.pid) - used
            stop.touch()
            raters.join()
        finally:
            server.terminate()
            server.wait()
        waits = sorted(vote.seconds for vote in read_log(log) if begun <= vote.at < ended)
        print(f"{options.raters} raters, {options.workers} server processes, load {os.getloadavg()[0]:.1f}")
        print(f"flush of the disk: {1000 * flush_seconds(folder):.1f} ms at the median")
    cost = 1000 * used / len(waits)
    print(f"{len(waits) / (ended - begun):.0f} votes/s, {cost:.1f} ms of processor per vote and page")
    for share in (0.5, 0.95, 0.99):
        print(f"{share:.0%} wait less than {1000 * waits[int(share * len(waits))]:.0f} ms")


if __name__ == "__main__":
    main()
