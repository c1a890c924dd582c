"""What is compared: every form of guidance, as the arguments of `annealed_guidance`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from sfumato import annealed_guidance
from sfumato.pipelines.adapters import base_weights, lora_scale

POWER_2: dict[str, Any] = {"schedule": "power", "p": 2}


@dataclass(frozen=True)
class Form:
    """One way to sample.

    Attributes:
        name: what tables call it.
        guidance: arguments of `annealed_guidance`; empty where there is none.
        scale: of the LoRA, where there is no guidance: 1 is the tuned model, active and unmerged, 0 the base.
    """

    name: str
    guidance: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0

    def on(self, pipe: Any) -> AbstractContextManager[Any]:
        """Sample so from `pipe` inside the block."""
        if self.guidance:
            return annealed_guidance(pipe, **self.guidance)
        if self.scale == 0:
            return base_weights(pipe)
        return nullcontext() if self.scale == 1 else lora_scale(pipe, self.scale)


BASE, TUNED = Form("base", scale=0.0), Form("tuned")
EXACT = Form("AIG, power 2", POWER_2)


def _aig(p: float) -> Form:
    return Form(f"AIG, power {p}", {"schedule": "power", "p": p})


def _saving(name: str, **savings: Any) -> Form:
    return Form(f"AIG, power 2; {name}", {**POWER_2, "savings": savings})


def _weights(p: float) -> Form:
    return Form(f"weights, power {p}", {"schedule": "power", "p": p, "blend": "weights"})


WEIGHTS = _weights(2)
STEP = Form("switch at 0.6", {"schedule": "step", "f": 0.6})
TOLERANCE = _saving("tolerance 0.01", tolerance=0.01)
REUSE = {k: _saving(f"reuse {k}", reuse=k) for k in (2, 3, 4)}
DRIFT = _saving("drift 1, at most 4", reuse=4, drift=1.0)
COMBINED = _saving("tolerance 0.1, reuse 4", tolerance=0.1, reuse=4)
SHARED = _saving("shared unconditional", share_unconditional=True)
TOGETHER = _saving("one forward", one_forward=True)
SHARED_REUSE = _saving("shared, reuse 2", share_unconditional=True, reuse=2)
SHARED_TOGETHER_REUSE = _saving("shared, one forward, reuse 2", share_unconditional=True, one_forward=True, reuse=2)

COST = [
    BASE,
    TUNED,
    EXACT,
    TOLERANCE,
    STEP,
    WEIGHTS,
    *REUSE.values(),
    DRIFT,
    COMBINED,
    SHARED,
    SHARED_REUSE,
    TOGETHER,
    SHARED_TOGETHER_REUSE,
]
"""Timed and weighed."""

QUALITY = [
    BASE,
    TUNED,
    EXACT,
    _aig(1),
    _weights(1),
    WEIGHTS,
    REUSE[3],
    REUSE[4],
    DRIFT,
    COMBINED,
    SHARED,
    SHARED_REUSE,
]
"""Sampled on all prompts and seeds."""

STRIP = [
    BASE,
    TUNED,
    Form("LoRA scale 0.5", scale=0.5),
    Form("constant 0.5", {"schedule": "constant", "w": 0.5}),
    _aig(1),
    EXACT,
    REUSE[3],
    WEIGHTS,
    STEP,
    Form("falling, power 2", {"schedule": "falling", "p": 2}),
    Form("autoguidance, w = 0.5", {"schedule": "autoguidance", "w": 0.5}),
]
"""Shown in docs/blends.md."""
