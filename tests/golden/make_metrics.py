"""Make metrics.safetensors and metrics.json: what other packages say about fixed features.

In an environment of its own (the first line once, torch of any version):

    python -m venv build/peers && build/peers/bin/python -m pip install prdc==0.2 vendi-score==0.0.3 "scipy<1.14" torch
    build/peers/bin/python -m pip install --no-deps torch-fidelity==0.4.0 tqdm safetensors
    build/peers/bin/python tests/golden/make_metrics.py

torch-fidelity goes without its dependencies: its metrics of given features need no torchvision, and find a stand-in.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch
from prdc import compute_prdc
from safetensors.numpy import save_file
from vendi_score import vendi

HERE = Path(__file__).parent
PEERS = ("prdc", "vendi-score", "torch-fidelity", "numpy", "scipy", "scikit-learn", "torch")


class StandIn(ModuleType):
    """A module in which everything is found, and nothing works."""

    __path__ = ()

    def __getattr__(self, name: str) -> MagicMock:
        return MagicMock(name=name)


for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
    sys.modules[name] = StandIn(name)

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402


def vendi_scores(x: np.ndarray) -> dict[str, float]:
    """Orders of the Vendi score; `score_X` forgets its order, so the kernel is made here."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return {str(q): float(vendi.score_K(unit @ unit.T, q=q)) for q in (1, 2, 5, "inf")}


def fidelity(real: torch.Tensor, fake: torch.Tensor) -> dict[str, object]:
    """FID, KID over subsets, precision and recall, as torch-fidelity computes them from features in float64."""
    statistics = [fid_features_to_statistics(x) for x in (fake, real)]
    cases = []
    for subsets, size, seed in ((1, 50, 2020), (10, 20, 2020), (5, 33, 7)):
        found = kid_features_to_metric(
            fake, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
        )
        mean, std = found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]
        cases.append({"subsets": subsets, "subset_size": size, "seed": seed, "mean": mean, "std": std})
    return {
        "fid": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kid": cases,
        "prc": {k: prc_features_to_metric(fake, real, prc_neighborhood=k, verbose=False) for k in (1, 3, 5, 20)},
    }


def main() -> None:
    random = np.random.default_rng(0)
    features = {
        "real": random.normal(size=(60, 16)).astype(np.float32),
        "fake": (0.8 * random.normal(size=(50, 16)) + 0.6).astype(np.float32),
    }
    real, fake = (features[name].astype(np.float64) for name in ("real", "fake"))
    prdc = {k: {name: float(value) for name, value in compute_prdc(real, fake, k).items()} for k in (1, 3, 5, 20)}
    scores = {name: vendi_scores(x) for name, x in (("real", real), ("fake", fake), ("wide", real[:10]))}
    peers = {name: version(name) for name in PEERS}
    results = {"prdc": prdc, "vendi": scores, "torch-fidelity": fidelity(*map(torch.from_numpy, (real, fake)))}
    save_file(features, HERE / "metrics.safetensors")
    (HERE / "metrics.json").write_text(json.dumps({"versions": peers, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
