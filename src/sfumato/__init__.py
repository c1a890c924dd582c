"""sfumato: reward-tune text-to-image diffusion models without losing their diversity.

Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import Any

from sfumato._version import __version__

_HOME = {
    "annealed_guidance": "sfumato.pipelines.guidance",
    "enable_annealed_guidance": "sfumato.pipelines.guidance",
    "disable_annealed_guidance": "sfumato.pipelines.guidance",
    "Savings": "sfumato.pipelines.savings",
    "rollout": "sfumato.pipelines.rollout",
    "replay": "sfumato.pipelines.rollout",
    "continued": "sfumato.pipelines.rollout",
    "Rollout": "sfumato.pipelines.rollout",
    "base_weights": "sfumato.pipelines.adapters",
    "lora_scale": "sfumato.pipelines.adapters",
    "schedule": "sfumato.schedules",
    "Schedule": "sfumato.schedules",
    "Run": "sfumato.runs",
    "load": "sfumato.bundle",
    "save": "sfumato.bundle",
    "push_to_hub": "sfumato.bundle",
    "tune_schedule": "sfumato.frontier.tune",
    "demo_pipeline": "sfumato.emoji64",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    try:
        return import_module(f"sfumato.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"sfumato.{name}":
            raise
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
