"""How often something may be done: a bucket of tokens for each that does it, kept in the memory of one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

REMEMBERED = 20_000


class TooManyError(Exception):
    """Somebody does something too often.

    Attributes:
        seconds: after which it may be tried again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests")
        self.seconds = seconds


class Buckets:
    """`burst` times at once, and `rate` times a second in the long run."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: str) -> None:
        """Count once more; raises TooManyError if that is too often."""
        now = time.monotonic()
        with self._lock:
            level, then = self._levels.pop(who, (self._burst, now))
            level = min(self._burst, level + self._rate * (now - then))
            self._levels[who] = (level - 1 if level >= 1 else level, now)
            if len(self._levels) > REMEMBERED:
                self._levels.popitem(last=False)
        if level < 1:
            raise TooManyError((1 - level) / self._rate)


@dataclass(frozen=True)
class Limits:
    """What is counted.

    Attributes:
        answers: votes and what else a rater sends, by rater.
        joining: new raters and personal links, by network address; a class behind one address fits in.
        tokens: tries of the admin token, by network address.
    """

    answers: Buckets = field(default_factory=lambda: Buckets(10, 40))
    joining: Buckets = field(default_factory=lambda: Buckets(2, 120))
    tokens: Buckets = field(default_factory=lambda: Buckets(0.1, 10))
