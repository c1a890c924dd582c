"""The reward-diversity frontier: operating points measured on the same prompts and seeds, compared with intervals.

`pareto_front` and `hypervolume` are the geometry, `bootstrap` and `paired_difference` the statistics over prompts,
`summarise` turns per-prompt values of all points into what `frontier.json` holds.
"""

from sfumato.frontier.compare import summarise
from sfumato.frontier.pareto import hypervolume, pareto_front
from sfumato.frontier.statistics import Interval, bootstrap, paired_difference

__all__ = ["Interval", "bootstrap", "hypervolume", "paired_difference", "pareto_front", "summarise"]
