"""One point against the base: the quantities that findings are made of, and what a finding is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sfumato.diagnosis.quantities import quantities
from sfumato.diagnosis.samples import Samples
from sfumato.diagnosis.significance import Change, Quantity, changes

PROXY = "reward"
"""The score that tuning maximised."""
QUARTER = 0.25
"""The loss that makes an alarm: of eight pictures in a row, two are gone."""
TITLES = {
    "rewards": "Reward against other rewards",
    "diversity": "Diversity within a prompt",
    "duplicates": "Near-duplicates",
    "shortcuts": "Shortcuts in the pixels",
    "prompts": "Difference between prompts",
    "modes": "Styles and kinds",
    "training": "Over-training",
}
LEVELS = ("unknown", "ok", "warn", "alarm")


@dataclass(frozen=True)
class Evidence:
    """A sheet of images to be drawn: rows of a picture each, some of them belonging together.

    Attributes:
        caption: what is to be seen.
        groups: (title, rows of image files relative to the evaluation folder, with a name each).
    """

    caption: str
    groups: list[tuple[str, list[tuple[str, list[str]]]]]


@dataclass(frozen=True)
class Finding:
    """What was found about one sign of hacking.

    Attributes:
        name: of the sign.
        level: "ok", "warn", "alarm", or "unknown" where it cannot be told.
        text: one or two plain sentences.
        numbers: what the sentences rest on.
        evidence: pictures.
    """

    name: str
    level: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def title(self) -> str:
        return TITLES[self.name]


@dataclass(frozen=True)
class Case:
    """A point, the base, and the base with other seeds: the same prompts, as many images each.

    Attributes:
        name: of the point, as sentences call it.
        quantities: by key; see `quantities`.
        changes: by the same keys.
    """

    name: str
    base: Samples
    point: Samples
    again: Samples
    quantities: dict[str, Quantity]
    changes: dict[str, Change]

    @classmethod
    def of(cls, name: str, base: Samples, point: Samples, again: Samples, neighbours: int) -> Case:
        """Compute all quantities and their changes; `neighbours` is the k of recall."""
        found = quantities(base, point, again, min(neighbours, base.images - 1))
        return cls(name, base, point, again, found, changes(found))

    def under(self, prefix: str) -> dict[str, Change]:
        """The changes whose keys start with `prefix`/, by the rest of the key."""
        return {key.removeprefix(f"{prefix}/"): c for key, c in self.changes.items() if key.startswith(f"{prefix}/")}

    def numbers(self, *keys: str) -> dict[str, Any]:
        """The changes as plain values, those that are there."""
        return {key: asdict(self.changes[key]) for key in keys if key in self.changes}

    def most_changed(self, key: str, sign: float, count: int = 3) -> list[int]:
        """The prompts, by place, where a quantity rose (sign 1) or fell (-1) most."""
        q = self.quantities[key]
        return np.argsort(-sign * (q.point - q.base), kind="stable")[:count].tolist()

    def side_by_side(self, caption: str, prompts: list[int], count: int = 8) -> Evidence:
        """Pictures of the base above those of the point, with the same seeds."""
        groups = []
        for j in prompts:
            rows = [(name, [row["file"] for row in s.rows[j][:count]]) for name, s in self._both()]
            groups.append((self.base.prompts[j], rows))
        return Evidence(caption, groups)

    def _both(self) -> list[tuple[str, Samples]]:
        return [("base", self.base), (self.name, self.point)]


def number(value: float) -> str:
    """A figure with three significant digits."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    return f"{round(100 * share)} %".replace("-", "\N{MINUS SIGN}")


def listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def from_to(change: Change, offset: float = 0) -> str:
    return f"from {number(change.base + offset)} to {number(change.point + offset)}"
