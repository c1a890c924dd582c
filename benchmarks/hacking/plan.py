"""What is trained and looked at."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.config import Recipe, load_recipe

RECIPE, MEMBERS = "emoji64-demo", 5


@dataclass(frozen=True)
class Way:
    """One curve: a training, or AIG at its checkpoints.

    Attributes:
        name: of its folder.
        label: in figures and tables.
        proxy: the folder of the reward that is trained on.
        kl: coefficient of the penalty.
        power: of AIG, at the checkpoints of the training that is named as the proxy is.
    """

    name: str
    label: str
    proxy: str
    kl: float | None = None
    power: float | None = None


SIZES: dict[str, int | None] = {"100": 100, "1000": 1000, "all": None}
CURED = "100"
"""The proxy that the cures are tried on: the worst one."""
ENSEMBLE = f"{CURED}-ensemble"
PROXIES = [*SIZES, ENSEMBLE]
PLAIN = [Way("100", "100 pairs", "100"), Way("1000", "1,000 pairs", "1000"), Way("all", "all pairs", "all")]
CURES = [Way(ENSEMBLE, f"ensemble of {MEMBERS}", ENSEMBLE)]
CURES += [Way(f"{CURED}-kl-{kl:g}", f"KL {kl:g}", CURED, kl=kl) for kl in (1.0, 5.0)]
CURES += [Way(f"{CURED}-aig-{power:g}", f"AIG, power {power:g}", CURED, power=power) for power in (1.0, 2.0)]


@dataclass(frozen=True)
class Plan:
    """Where everything goes, and how much is done.

    Attributes:
        folder: of the proxies and run folders.
        every: updates between two looks at held-out prompts, and between checkpoints.
        prompts: held-out prompts looked at.
        images: of each.
        emoji: of the artwork that pairs are made of; None means all.
        fit: steps of a proxy at most.
        more: further settings of the recipe.
    """

    folder: Path = Path("runs/hacking")
    updates: int = 60
    every: int = 5
    prompts: int = 12
    images: int = 6
    emoji: int | None = None
    fit: int = 2000
    more: dict[str, Any] = field(default_factory=dict)

    def recipe(self, way: Way) -> Recipe:
        """The demonstration's tuning, on a proxy that is measured in deviations of the base model."""
        proxy = {"name": "preference", "model": str(self.folder / "proxies" / way.proxy), "normalize": "base"}
        values = {
            "run": str(self.folder / way.name),
            "name": f"hacking-{way.name}",
            "description": f"emoji-64 tuned on a proxy: {way.label}",
            "reward": proxy,
            "variants": {},
            "evaluation.points": [{"kind": "base"}, {"kind": "tuned"}],
            "training.steps": self.updates,
            "training.checkpoint_every": self.every,
            "training.monitor_every": self.every,
            "training.monitor_prompts": self.prompts,
            "training.monitor_images": self.images,
            "training.watch": {"action": "warn"},
        }
        if way.kl:
            values["training.regularizers.kl.coefficient"] = way.kl
        return load_recipe(RECIPE, [f"{key}={json.dumps(value)}" for key, value in (values | self.more).items()])


TINY = {"sampling.num_inference_steps": 3, "training.batch_size": 2}
QUICK = Plan(Path("runs/hacking-quick"), updates=3, every=1, prompts=3, images=2, emoji=60, fit=60, more=TINY)
