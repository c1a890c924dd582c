"""Spans of progress: which steps of a sampler are early and which late, whatever their number."""

from __future__ import annotations

from typing import Any

from sfumato.pipelines.plan import planned_steps


def steps_within(span: tuple[float, float], count: int) -> list[int]:
    """The steps of `count` whose progress lies in a span, ends included, where 0 is the first step and 1 the last."""
    low, high = span
    return [index for index in range(count) if low <= index / max(1, count - 1) <= high]


def check_span(pipe: Any, prompt: str, call: dict[str, Any], setting: str, span: tuple[float, float] | None) -> None:
    """Raise ValueError if there is a span, and no step of this pipeline, called like this, lies in it."""
    if span is None:
        return
    count = planned_steps(pipe, prompt=prompt, **call)
    if not steps_within(span, count):
        raise ValueError(
            f"none of the {count} steps has a progress within {setting}, which is {list(span)}: 0 is the first step "
            "and 1 the last"
        )
