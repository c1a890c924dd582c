"""The results page of a suite: `results.md` and its figures, every number in it read from the cells' run folders.

The claims of Jena et al. (arXiv 2409.06493) are put to the cells by fixed rules, so that nobody words them after the
fact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sfumato.change import tuning_change
from sfumato.config import Recipe, Suite
from sfumato.frontier.choice import choose
from sfumato.frontier.many import Comparison, compare_runs
from sfumato.frontier.tuned_runs import TunedRun, read_runs
from sfumato.paper.claims import claims
from sfumato.paper.figure import write_figures
from sfumato.report.data import read_diagnosis
from sfumato.report.vocabulary import lower_first, metric, number
from sfumato.runs import Run, write_text

DIVERSITIES = ("vendi", "recall")
"""The diversity axes on which methods are compared."""
SHOWN = ("reward", "gold", "vendi", "recall", "spectral", "style_entropy")
DASH = "\N{EN DASH}"
MARKS = (
    "Filled marks, which have names, are beaten on both axes by no other point of the cell; a ring is the best balance."
)


def write_results(suite: Suite, cells: Mapping[str, Recipe]) -> Path:
    """Write `results.md` and the figures beside it into the suite's folder, of the cells that were measured.

    Args:
        suite: whose page it is.
        cells: its recipes by name.
    """
    folders = {name: recipe.folder for name, recipe in cells.items()}
    done = {name: folder for name, folder in folders.items() if (folder / "evaluation" / "frontier.json").exists()}
    page = suite.folder / "results.md"
    write_text(page, "\n".join(_page(suite, list(cells), done)) + "\n")
    return page


def _page(suite: Suite, cells: Sequence[str], done: Mapping[str, Path]) -> Iterator[str]:
    yield from [f"# Results of {suite.name}", "", suite.description, ""]
    yield f"Written by `sfumato run {suite.name}`; {len(done)} of {len(cells)} cells are done."
    left = [name for name in cells if name not in done]
    if left:
        yield from ["", f"Not done yet: {', '.join(left)}."]
    if not done:
        return
    yield from ["", *_conditions(Run.load(next(iter(done.values()))))]
    compared: dict[str, tuple[list[TunedRun], Comparison]] = {}
    for diversity in DIVERSITIES:
        runs = read_runs(list(done.values()), diversity=diversity)
        compared[diversity] = runs, compare_runs(runs)
    runs = compared[DIVERSITIES[0]][0]
    named = dict(zip(done, runs, strict=True))
    yield from ["", "## What tuning did", "", *_changes(named)]
    yield from ["", "## The claims of the paper", "", *claims(named, {d: c for d, (_, c) in compared.items()})]
    yield from ["", "## The planes", "", *_planes(suite, named)]
    for diversity, (own, comparison) in compared.items():
        title = f"## Hypervolumes on reward and {lower_first(metric(diversity).label)}"
        yield from ["", title, "", *_volumes(dict(zip(done, own, strict=True)), comparison)]
    yield from ["", "## At one price", "", *_prices(named)]
    yield from ["", "## Every point", "", *(line for name, run in named.items() for line in _points(name, run))]


def _conditions(run: Run) -> Iterator[str]:
    evaluation, steps = run.recipe["evaluation"], run.recipe["sampling"]["num_inference_steps"]
    yield (
        f"{len(evaluation['prompts'])} prompts that no training saw x {evaluation['images_per_prompt']} images, "
        f"the same seeds for every point; {steps} denoising steps. Brackets are 95 % "
        "intervals over prompts, given the trained models; they do not know what another training would have given."
    )


def _changes(runs: Mapping[str, TunedRun]) -> Iterator[str]:
    """Base, and tuned minus base, of every cell, and what the alarm says."""
    yield from _head(["cell", "updates", *(f"{metric(name).label}: base, change" for name in SHOWN), "alarm"])
    for name, run in runs.items():
        base = _point(run, "base")
        cells = [name, str(run.recipe["training"]["steps"])]
        for each in SHOWN:
            change = tuning_change(run.frontier, each)
            value = base["metrics"].get(each)
            cells.append(f"{number(value['mean'])}, {_limits(change)}" if value and change else DASH)
        yield _row([*cells, read_diagnosis(Run.load(run.path)).get("verdict", DASH)])


def _planes(suite: Suite, runs: Mapping[str, TunedRun]) -> Iterator[str]:
    """A figure for each base model and reward."""
    yield from [MARKS, ""]
    groups: dict[tuple[str, str], dict[str, TunedRun]] = {}
    for name, run in runs.items():
        groups.setdefault((run.model, run.reward), {})[name] = run
    for (model, reward), members in groups.items():
        file = f"plane-{'-'.join(next(iter(members)).split('-')[:2])}.svg"
        chosen = [choose(run.frontier) for run in members.values()]
        write_figures([suite.folder / file], list(members.values()), chosen)
        yield from [f"![{model}, {reward}]({file})", "", f"*{model}, tuned on {reward}: {', '.join(members)}.*", ""]


def _volumes(runs: Mapping[str, TunedRun], comparison: Comparison) -> Iterator[str]:
    """Hypervolumes, then the probabilities of the orderings of AIG and the others, by cell."""
    kept = {run for group in comparison.groups for run in group.runs}
    methods = list(dict.fromkeys(m["name"] for run in runs.values() for m in run.frontier.get("methods", [])))
    yield "Each cell in its own scale, from base to tuned; in bold the largest of those with equally many points."
    yield ""
    yield from _head(["cell", *methods])
    for name, run in runs.items():
        own = {m["name"]: m for m in run.frontier.get("methods", [])} if run.name in kept else {}
        fair = [m["hypervolume"]["mean"] for m in own.values() if not m["points_differ"]]
        cells = [_volume(own[m]["hypervolume"], max(fair, default=0.0)) if m in own else DASH for m in methods]
        yield _row([name, *cells])
    yield from ["", "Bootstrap probability over prompts that AIG's hypervolume is the larger:", ""]
    others = [method for method in methods if method != "AIG"]
    yield from _head(["cell", *others])
    for name, run in runs.items():
        chances = _chances(run) if run.name in kept else {}
        yield _row([name, *(f"{chances[m]:.2f}" if m in chances else DASH for m in others)])
    for what, why in comparison.left_out.items():
        yield from ["", f"{what} is left out: {why}."]


def _prices(runs: Mapping[str, TunedRun]) -> Iterator[str]:
    """What is chosen where so much diversity must stay, at any price and at that of plain sampling."""
    yield "The point with the most reward that keeps 90 % of the base's Vendi score, its share of the gain, its price."
    yield ""
    yield from _head(["cell", "at any price", "gain kept", "F/image", "at the price of plain sampling", "gain kept"])
    for name, run in runs.items():
        cells = [name]
        for budget in (None, _point(run, "base")["forwards"]):
            found = choose(run.frontier, min_diversity=0.9, budget=budget).chosen
            kept = f"{100 * found.gain_kept.mean:.0f} %" if found and found.gain_kept else DASH
            cells += [found.label if found else "none", kept]
            cells += [f"{found.forwards:.0f}" if found and found.forwards else DASH] if budget is None else []
        yield _row(cells)


def _points(name: str, run: TunedRun) -> Iterator[str]:
    yield from [f"### {name}", ""]
    used = [each for each in SHOWN if all(each in point["metrics"] for point in run.frontier["points"])]
    yield from _head(["operating point", *(metric(each).label for each in used), "F/image"])
    for point in run.frontier["points"]:
        label = f"**{point['label']}**" if point["nondominated"] else point["label"]
        yield _row([label, *(_interval(point["metrics"][each]) for each in used), f"{point['forwards']:.0f}"])
    yield ""


def _chances(run: TunedRun) -> dict[str, float]:
    """Method -> probability that AIG's hypervolume exceeds its."""
    found = {}
    for pair in run.frontier["comparisons"]:
        if pair["a"] == "AIG":
            found[pair["b"]] = pair["probability"]
        elif pair["b"] == "AIG":
            found[pair["a"]] = 1 - pair["probability"]
    return found


def _point(run: TunedRun, name: str) -> dict:
    return next(point for point in run.frontier["points"] if point["name"] == name)


def _volume(volume: Mapping[str, float], largest: float) -> str:
    text = _interval(volume)
    return f"**{text}**" if volume["mean"] == largest else text


def _interval(value: Mapping[str, float]) -> str:
    return _limits((value["mean"], value["low"], value["high"]))


def _limits(values: tuple[float, float, float]) -> str:
    mean, low, high = map(number, values)
    return f"{mean} [{low}, {high}]"


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
