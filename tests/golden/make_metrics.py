"""Make metrics.safetensors and metrics.json: what the packages `prdc` and `vendi-score` say about fixed features.

In an environment of its own: `pip install prdc==0.2 vendi-score==0.0.3 safetensors "scipy<1.14"`, then run this file.
"""

import json
from pathlib import Path

import numpy as np
from prdc import compute_prdc
from safetensors.numpy import save_file
from vendi_score import vendi

HERE = Path(__file__).parent


def vendi_scores(x: np.ndarray) -> dict[str, float]:
    """Orders of the Vendi score; `score_X` forgets its order, so the kernel is made here."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return {str(q): float(vendi.score_K(unit @ unit.T, q=q)) for q in (1, 2, 5, "inf")}


def main() -> None:
    random = np.random.default_rng(0)
    features = {
        "real": random.normal(size=(60, 16)).astype(np.float32),
        "fake": (0.8 * random.normal(size=(50, 16)) + 0.6).astype(np.float32),
    }
    real, fake = (features[name].astype(np.float64) for name in ("real", "fake"))
    prdc = {k: {name: float(value) for name, value in compute_prdc(real, fake, k).items()} for k in (1, 3, 5, 20)}
    scores = {name: vendi_scores(x) for name, x in (("real", real), ("fake", fake), ("wide", real[:10]))}
    save_file(features, HERE / "metrics.safetensors")
    (HERE / "metrics.json").write_text(json.dumps({"prdc": prdc, "vendi": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
