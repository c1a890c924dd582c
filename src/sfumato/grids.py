"""The noise levels that a sampling run goes through, and the clocks that turn them into progress u. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CLOCKS = ("index", "nemo", "timestep", "sigma", "logsnr")
"""What u can be, for the i-th of N distinct noise levels:

* `index`: i / (N - 1), exactly 0 at the first denoiser call and 1 at the last (1 if there is only one);
* `nemo`: i / N, the clock of the authors' code in NeMo-Aligner, which never reaches 1;
* `timestep`, `sigma`: 1 - x / x_max with the noisiest level of training as x_max; sigma is the ratio of noise to
  signal, except in flow matching, where it is the share of noise, in [0, 1];
* `logsnr`: the log of the signal-to-noise ratio of powers, from the noisiest to the cleanest level of training.

The last three are clamped to [0, 1] and are 1 at the last call. They mean the same whatever the number of steps.
"""


@dataclass(frozen=True)
class Levels:
    """One physical measure of noise along a run.

    Attributes:
        values: at each distinct level, in the order of sampling.
        noisiest: its value at the noisy end of training, where u = 0.
        cleanest: its value at the clean end, where u = 1.
    """

    values: tuple[float, ...]
    noisiest: float
    cleanest: float

    def progress(self) -> list[float]:
        span = self.cleanest - self.noisiest
        return [*(min(1.0, max(0.0, (value - self.noisiest) / span)) for value in self.values[:-1]), 1.0]


@dataclass(frozen=True)
class Grid:
    """The distinct noise levels of a run.

    Attributes:
        count: how many there are.
        measures: clock -> its levels, for the physical clocks that were read off the scheduler.
    """

    count: int
    measures: Mapping[str, Levels]

    def progress(self, clock: str) -> list[float]:
        """u at each level.

        Raises:
            ValueError: the scheduler does not say what this clock needs.
        """
        if clock == "index":
            return [i / (self.count - 1) for i in range(self.count)] if self.count > 1 else [1.0]
        if clock == "nemo":
            return [i / self.count for i in range(self.count)]
        if clock not in self.measures:
            raise ValueError(f"this scheduler does not tell the {clock} of its steps: use the clock 'index'")
        return self.measures[clock].progress()

    def since(self, start: int) -> Grid:
        """The run that begins at the `start`-th level, as in image-to-image."""
        later = {name: Levels(m.values[start:], m.noisiest, m.cleanest) for name, m in self.measures.items()}
        return Grid(self.count - start, later)
