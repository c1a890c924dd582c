"""What Jena et al. (arXiv 2409.06493) claim of reward and diversity, put to measured runs by fixed rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sfumato.change import tuning_change
from sfumato.frontier.many import Comparison
from sfumato.frontier.tuned_runs import TunedRun
from sfumato.report.vocabulary import lower_first, metric

SURE = 0.95
COLLAPSE = ("vendi", "recall")
RULE = (
    f"That one method's frontier lies above another's is sure in a cell where the bootstrap probability is at "
    f"least {SURE}. Over all cells a claim is said to hold if it is sure in more than half of them and the reverse is "
    "sure in none, to fail if the other method is the better one in at least half, and to be open otherwise."
)
ORDERINGS = {
    "LoRA scale": "Claim 3, one LoRA scale for all noise levels gives a worse frontier than AIG",
    "KL": "Claim 4, AIG gives a better frontier than KL-regularised training",
    "early checkpoint": "Claim 4, AIG gives a better frontier than early checkpoints",
    "annealed weights": "Beyond the paper: AIG against annealing the weights, at half the price",
    "constant blend": "Beyond the paper: AIG against one blend of predictions for all noise levels",
    "guidance scale": "Beyond the paper: AIG against another guidance_scale of the tuned model",
    "best of n": "Beyond the paper: AIG against best of n from the base",
}


def claims(runs: Mapping[str, TunedRun], comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    """Sentences of Markdown.

    Args:
        runs: cell -> run.
        comparisons: metric on the diversity axis -> methods compared on it.
    """
    yield from [RULE, "", *_collapse(runs)]
    for other, claim in ORDERINGS.items():
        for diversity, comparison in comparisons.items():
            if chances := _chances(comparison, other):
                yield f"- **{claim}** (reward and {lower_first(metric(diversity).label)}): {_verdict(chances, other)}"
    for diversity, comparison in comparisons.items():
        if ranks := _first(comparison):
            told = ", ".join(f"{method} in {count}" for method, count in ranks.items())
            axes = f"reward and {lower_first(metric(diversity).label)}"
            yield (
                f"- **Claim 4, AIG gives the best frontier of all** ({axes}): the largest hypervolume has {told}, "
                f"of {sum(ranks.values())} cells."
            )


def _collapse(runs: Mapping[str, TunedRun]) -> Iterator[str]:
    told = []
    for name in COLLAPSE:
        changes = [change for run in runs.values() if (change := tuning_change(run.frontier, name))]
        falls, rises = sum(high < 0 for _, _, high in changes), sum(low > 0 for _, low, _ in changes)
        told.append(
            f"{lower_first(metric(name).label)} falls beyond noise in {falls} of {len(changes)} cells and rises beyond "
            f"noise in {rises}"
        )
    yield f"- **Claim 1, tuning on a reward collapses the model**: {'; '.join(told)}."


def _chances(comparison: Comparison, other: str) -> dict[str, float]:
    """Run -> probability that AIG's hypervolume exceeds the other method's."""
    found: dict[str, float] = {}
    for group in comparison.groups:
        for pair in group.pairs:
            if {pair.a, pair.b} == {"AIG", other}:
                found |= {run: p if pair.a == "AIG" else 1 - p for run, p in pair.probabilities.items()}
    return found


def _verdict(chances: Mapping[str, float], other: str) -> str:
    holds = sum(chance >= SURE for chance in chances.values())
    fails = sum(chance <= 1 - SURE for chance in chances.values())
    better = sum(chance > 0.5 for chance in chances.values())
    total = len(chances)
    word = "holds" if holds > total / 2 and not fails else "fails" if 2 * (total - better) >= total else "open"
    return (
        f"**{word}**. AIG is above {other} in {better} of {total} cells, surely in {holds}, surely below in {fails}; "
        f"mean probability {sum(chances.values()) / total:.2f}."
    )


def _first(comparison: Comparison) -> dict[str, int]:
    """Method -> number of runs in which its hypervolume is the largest, most first."""
    found: dict[str, int] = {}
    for group in comparison.groups:
        for run in group.runs:
            volumes = {method: own[run].mean for method, own in group.volumes.items() if run in own}
            best = max(volumes, key=volumes.__getitem__)
            found[best] = found.get(best, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
