"""One measure of made-up features, timed in a process of its own: `python worker.py MEASURE N D`, prints JSON.

It runs in either environment: measures of sfumato in one, those of the packages `prdc` and `vendi-score` in the other.
"""

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Gaussian rows (n, d), float32, of equal variance in all directions: the hardest case for neighbourhoods."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def ours(name: str, n: int, d: int) -> Callable[[], object]:
    import torch

    from sfumato import metrics

    real = torch.from_numpy(features(n, d, 0))
    if name in ("vendi_score", "truncated_entropy"):
        return lambda: getattr(metrics, name)(real)
    if name == "euclidean":
        return lambda: metrics.mean_pairwise_distance(real, "euclidean")
    if name == "nearest_neighbours":
        return lambda: float(metrics.nearest_neighbours(real).distances.min())
    fake = torch.from_numpy(features(n, d, 1))
    if name == "prdc":
        return lambda: metrics.prdc(real, fake)._asdict()
    return lambda: getattr(metrics, name)(real, fake)


def theirs(name: str, n: int, d: int) -> Callable[[], object]:
    """The packages, given float64, in which `prdc` is faster than in float32."""
    real = features(n, d, 0).astype(np.float64)
    if name == "vendi-score":
        from vendi_score import vendi

        return lambda: float(vendi.score_X(real))
    from prdc import compute_prdc

    fake = features(n, d, 1).astype(np.float64)
    return lambda: {key: float(value) for key, value in compute_prdc(real, fake, 5).items()}


def main(name: str, n: int, d: int) -> None:
    run = theirs(name.removeprefix("peer:"), n, d) if name.startswith("peer:") else ours(name, n, d)
    start, used = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "result": result}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
