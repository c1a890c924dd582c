"""The peers' environment, and running either side in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bed import Settings

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
PEERS = BUILD / "peers-trl"
PACKAGES = ["trl==0.21.0", "transformers==4.55.4", "diffusers==0.35.2", "accelerate==1.15.0", "peft==0.21.2"]
SAME = ("torch", "numpy", "safetensors")
"""What both environments have in the version of constraints.txt."""


def environment() -> Path:
    """The peers' python, with everything installed."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "complete").exists():
        pinned = (HERE.parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
        same = [line for line in pinned if line.split("==")[0] in SAME]
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *same, *PACKAGES], check=True)
        (PEERS / "complete").touch()
    return python


def run(script: str, module: str, settings: Settings, threads: int, *arguments: object) -> dict[str, Any]:
    """What a script of this folder prints as its last line, run with `ours` or `theirs`."""
    python = sys.executable if module == "ours" else str(environment())
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    local = {"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [python, str(HERE / script), module, json.dumps(asdict(settings)), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **limits, **local}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} {module} {settings}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
