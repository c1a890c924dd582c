"""What a pipeline call would do, found out before it is done."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any

from sfumato.pipelines.patching import patched


class _Left(Exception):
    """Carries the number of scheduler steps out of a pipeline call that is left before any denoising."""


def planned_steps(pipe: Any, **arguments: Any) -> int:
    """The number of scheduler steps that `pipe(**arguments)` would take; only the prompt is encoded for it.

    It differs from `num_inference_steps` for schedulers of higher order.

    Raises:
        ValueError: the pipeline has no such argument (the nearest is named), or refuses its value.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{type(pipe).__name__} takes no argument {name!r}{hint}")
    scheduler = pipe.scheduler
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def set_and_leave(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        raise _Left(len(scheduler.timesteps))

    with patched(scheduler, "set_timesteps", set_and_leave):
        try:
            pipe(**arguments)
        except _Left as left:
            return left.args[0]
    raise ValueError(f"{type(pipe).__name__} set no timesteps: sfumato works with pipelines that denoise")
