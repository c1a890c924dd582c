"""Methods compared across runs, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sfumato.frontier.many import ENOUGH, Comparison, Group, Pair
from sfumato.paper.choice import with_limits, wrapped
from sfumato.report.table import aligned
from sfumato.report.vocabulary import number


def comparison_text(comparison: Comparison) -> str:
    """Hypervolumes of the methods by run, which exceeds which in how many runs, and what that can say."""
    axes = " and ".join(comparison.axes.values())
    title = "Methods across runs: " + (
        f"hypervolume on {axes}, each run in its own scale, 95 % intervals over prompts"
        if comparison.groups
        else "none of these runs can be compared"
    )
    paragraphs = [title, *(line for group in comparison.groups for line in _group(group))]
    if comparison.overall:
        paragraphs += ["", f"Over all {len({run for g in comparison.groups for run in g.runs})} runs", ""]
        paragraphs += _pairs(comparison.overall)
        paragraphs += ["The runs differ in more than the training seed, so this is a count, not a test."]
    if comparison.left_out:
        paragraphs += ["", "Left out", *(f"- {what}: {why}." for what, why in comparison.left_out.items())]
    return "\n".join(map(wrapped, paragraphs))


def _group(group: Group) -> Iterator[str]:
    seeds = ", ".join(str(seed) for seed in group.runs.values())
    yield from ["", f"{group.model}, tuned on {group.reward}; training seed{'s' * (len(group.runs) > 1)} {seeds}", ""]
    head = ["", "method", *group.runs, *(["mean"] if len(group.runs) > 1 else [])]
    rows = []
    for method, volumes in group.volumes.items():
        cells = [with_limits(volumes[run]) if run in volumes else "\N{EN DASH}" for run in group.runs]
        mean = sum(volume.mean for volume in volumes.values()) / len(volumes)
        rows.append(["", method, *cells, *([number(mean)] if len(group.runs) > 1 else [])])
    yield from (f"  {line.rstrip()}" for line in aligned([head, *rows]))
    yield ""
    yield from _pairs(group.pairs)
    yield training_caveat(group)


def _pairs(pairs: Sequence[Pair]) -> list[str]:
    """A line per two methods; those with other numbers of points are marked."""
    head = ["", "A > B", "runs", "by", "P over prompts, by run", "sign test p", "median difference"]
    rows = []
    for pair in pairs:
        name = f"{pair.a} > {pair.b}{' (*)' if pair.points_differ else ''}"
        chances = ", ".join(f"{chance:.2f}" for chance in pair.probabilities.values())
        tested = ["" if pair.p is None else f"{pair.p:.3f}", "" if pair.median is None else with_limits(pair.median)]
        rows.append(["", name, f"{pair.wins:g} of {len(pair.differences)}", number(pair.mean), chances, *tested])
    used = [i for i in range(len(head)) if i < 5 or any(row[i] for row in rows)]
    lines = aligned([[row[i] for i in used] for row in [head, *rows]]) if rows else ["no two methods to compare"]
    note = (
        ["(*) not like for like: with more points a hypervolume can only grow."]
        if any(pair.points_differ for pair in pairs)
        else []
    )
    return [*(f"  {line.rstrip()}" for line in lines), *note]


def training_caveat(group: Group) -> str:
    """What the runs of a group can say about yet another training."""
    n = len(group.runs)
    if n == 1:
        return "One training: the probabilities are over prompts, and say nothing about another training seed."
    if group.varied:
        return (
            f"These runs also differ in {', '.join(group.varied)}: their spread is not that of the training seed "
            "alone, so there is no test over trainings."
        )
    shared = "The trainings were measured on the same prompts, so do not multiply their probabilities."
    if n < ENOUGH:
        by_chance = 2 / 2**n
        return (
            f"{n} trainings: of two equal methods one would win all {n} with probability {by_chance:.2f}, and the "
            f"range of the differences holds the median over all trainings with {1 - by_chance:.0%} only. A 95 % "
            f"interval over trainings takes {ENOUGH} of them, so there is none. {shared}"
        )
    return (
        f"{n} trainings, each with a seed of its own: p is the exact sign test over them, and the median "
        "difference has an interval of at least 95 % from order statistics; neither is corrected for comparing many "
        f"methods. {shared}"
    )
