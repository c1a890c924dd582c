"""Where Adjoint Matching ends on a Gaussian world, whose tilted optimum is known.

    .venv/bin/python benchmarks/adjoint.py        # about a minute of CPU

Means and variances are shares: 1 is all the way from the base to p_base · exp(r / β).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.analytic.test_adjoint import BASE, BETA, REWARD, trained

from sfumato.analytic import tilt

SETTINGS = [(8, 1.0), (16, 1.0), (32, 1.0), (16, 0.5)]


def main() -> None:
    optimum = tilt(BASE, REWARD, BETA).world
    print("| sampling steps | eta | mean | variance |\n|---|---|---|---|")
    for steps, eta in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            shift, left = trained(folder, eta, steps)
        mean = (shift / (optimum.mean - BASE.mean)).mean().item()
        variance = ((1 - left) / (1 - optimum.variance / BASE.variance)).mean().item()
        print(f"| {steps} | {eta:g} | {mean:.2f} | {variance:.2f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
