"""The reward-diversity frontier: operating points measured on the same prompts and seeds, compared with intervals.

`pareto_front` and `hypervolume` are the geometry, `bootstrap` and `paired_difference` the statistics over prompts,
`summarise` turns per-prompt values of all points into what `frontier.json` holds. `choose` picks a point from that, and
`compare_runs` sets methods against one another over many runs.
"""

from sfumato.frontier.choice import Choice, choose
from sfumato.frontier.compare import summarise
from sfumato.frontier.many import Comparison, compare_runs
from sfumato.frontier.pareto import hypervolume, pareto_front
from sfumato.frontier.statistics import Interval, bootstrap, paired_difference
from sfumato.frontier.tuned_runs import TunedRun, read_runs

__all__ = [
    "Choice",
    "Comparison",
    "Interval",
    "TunedRun",
    "bootstrap",
    "choose",
    "compare_runs",
    "hypervolume",
    "paired_difference",
    "pareto_front",
    "read_runs",
    "summarise",
]
