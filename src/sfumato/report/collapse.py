"""The prompts of an evaluation, those first that lost most of their diversity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato.report.choice import END_POINTS, end_point
from sfumato.report.vocabulary import floor


@dataclass(frozen=True)
class Collapse:
    """What happened to one prompt.

    Attributes:
        text: the prompt.
        base: diversity of the base's images of it.
        tuned: diversity of the tuned model's.
        chosen: diversity of the recommended point's; None without one.
        share: of the base's diversity that is lost; None if the base had none.
        gain: what tuning added to the reward; None if it was not measured.
    """

    text: str
    base: float
    tuned: float
    chosen: float | None
    share: float | None
    gain: float | None

    @property
    def loss(self) -> float:
        """Diversity lost."""
        return self.base - self.tuned

    @property
    def regained(self) -> float | None:
        """Share of the loss that the recommended point gives back; None if nothing was lost."""
        return None if self.chosen is None or self.loss <= 0 else (self.chosen - self.tuned) / self.loss


def by_collapse(frontier: dict[str, Any], chosen: dict[str, Any] | None) -> list[Collapse]:
    """Every prompt of which base and tuned were measured, the largest loss of diversity first.

    Args:
        chosen: the recommended point, or None.
    """
    reward, diversity = frontier["axes"]["reward"], frontier["axes"]["diversity"]
    base, tuned = (end_point(frontier, method) for method in END_POINTS)
    found = []
    for i, text in enumerate(frontier["prompts"]):
        old, new = _value(base, diversity, i), _value(tuned, diversity, i)
        if old is None or new is None:
            continue
        rewards = _value(base, reward, i), _value(tuned, reward, i)
        gain = None if None in rewards else rewards[1] - rewards[0]  # type: ignore[operator]
        least = floor(diversity)
        share = (old - new) / (old - least) if old > least else None
        found.append(Collapse(text, old, new, _value(chosen, diversity, i), share, gain))
    return sorted(found, key=lambda row: -row.loss)


def _value(point: dict[str, Any] | None, key: str, prompt: int) -> float | None:
    values = ((point or {}).get("per_prompt") or {}).get(key) or []
    return values[prompt] if prompt < len(values) else None
