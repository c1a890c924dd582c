"""A world of two modes on a line, tuned to another, and a pipeline between them."""

from sfumato.analytic import analytic_pipeline, mixture, tune
from tests.analytic.bed import scheduler

BASE = mixture([0.6, 0.4], [[-1.5], [1.5]], [[0.25], [0.16]])
TUNED = mixture([0.3, 0.7], [[-1.0], [2.0]], [[0.05], [0.04]])
VALLEY = 0.2
AIG = {"schedule": "power", "p": 2}


def modes_pipeline(name: str, **config):
    """The base world behind a pipeline, with the LoRA that makes it the tuned one."""
    pipe = analytic_pipeline(BASE, scheduler(name, **config))
    tune(pipe, TUNED)
    return pipe
