"""What happened, in sentences that are computed from the figures."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from sfumato.change import unchanged_axes, within_noise
from sfumato.report.choice import END_POINTS, Balance, balances, best_balance, end_point, interior, mean
from sfumato.report.collapse import Collapse
from sfumato.report.vocabulary import capitalise, floor, lower_first, metric, number, percent, plural, quoted, signed
from sfumato.runs import reward_parts

MOST = 3  # measures and prompts that the sentences name


def headline(frontier: dict[str, Any]) -> str:
    """What tuning did to the two axes; without base or tuned only what was measured."""
    changes = [_change(frontier, frontier["axes"][axis]) for axis in ("reward", "diversity")]
    if all(changes):
        return f"Tuning {changes[0]} and {changes[1]}."
    points, prompts = plural(len(frontier["points"]), "operating point"), plural(len(frontier["prompts"]), "prompt")
    return f"Measured: {points} on {prompts}."


def collapsed(frontier: dict[str, Any], prompts: list[Collapse]) -> list[str]:
    """What else tuning cost: gold, the measures of diversity that fell most, the prompts that were hit hardest."""
    base, tuned = (end_point(frontier, method) for method in END_POINTS)
    sentences = []
    gold = _change(frontier, "gold") if frontier["axes"]["reward"] != "gold" else None
    if gold:
        sentences.append(f"Tuning {gold}, which it never saw.")
    fallen = _fallen(frontier)
    if fallen:
        sentences.append(f"Of the base's diversity it took {_listed(fallen[:MOST])}.")
    elif base and tuned:
        sentences.append("No measure of diversity fell beyond noise.")
    hit = [f"{quoted(row.text)} ({number(row.base)} to {number(row.tuned)})" for row in prompts[:MOST] if row.loss > 0]
    if hit and len(prompts) > 1:
        label = lower_first(metric(frontier["axes"]["diversity"]).label)
        sentences.append(f"Hit hardest, by {label}: {_listed(hit)}.")
    return sentences


def _fallen(frontier: dict[str, Any]) -> list[str]:
    """ "61 % by recall" for every per-prompt diversity that fell beyond noise, the largest share first."""
    base, tuned = (end_point(frontier, method) for method in END_POINTS)
    shares = {}
    for key in (base or {}).get("metrics", {}):
        old, new = mean(base, key), mean(tuned, key)
        if metric(key).group != "Diversity" or old is None or new is None or old <= floor(key):
            continue
        if new < old and not within_noise(frontier, key):
            shares[key] = (old - new) / (old - floor(key))
    return [
        f"{percent(share)} by {lower_first(metric(key).label)}"
        for key, share in sorted(shares.items(), key=lambda item: -item[1])
    ]


def given_back(frontier: dict[str, Any]) -> list[str]:
    """What the best balance keeps and gives back, how near the best other method comes, and whose frontier is above."""
    found = [balance for balance in balances(frontier) if balance.product > 0]
    if not found:
        return ["Nothing that can be told from noise." if interior(frontier) else "No point between base and tuned."]
    best = found[0]
    alone = "" if len(interior(frontier)) == 1 else ", the best balance of all points"
    sentences = [f"{capitalise(best.point['label'])} {_shares(best)}{alone}."]
    other = next((balance for balance in found if balance.point["method"] != best.point["method"]), None)
    if other:
        sentences.append(f"Of the other ways {other.point['label']} comes nearest: it {_shares(other)}.")
    return sentences + ([ranking] if (ranking := verdict(frontier)) else [])


def _shares(balance: Balance) -> str:
    kept, regained = percent(balance.kept), percent(balance.regained)
    return f"keeps {kept} of the reward gain and gives back {regained} of the lost diversity"


def undecided(frontier: dict[str, Any]) -> str:
    """Why no point is recommended; empty if one is."""
    if best_balance(frontier):
        return ""
    if not interior(frontier):
        return "Only base and tuned were measured: add operating points to choose from."
    return (
        "None is named: tuning did not raise the one axis and lower the other beyond noise, or no point keeps some of "
        "both, so that there is nothing sure to choose by."
    )


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _change(frontier: dict[str, Any], key: str) -> str | None:
    """ "raised the reward from 1.20 to 3.40"; says so where that is within noise."""
    old, new = (mean(end_point(frontier, method), key) for method in END_POINTS)
    if old is None or new is None:
        return None
    verb = "raised" if new > old else "cut" if new < old else "left"
    text = f"{verb} the {lower_first(metric(key).label)} "
    text += f"at {number(new)}" if new == old else f"from {number(old)} to {number(new)}"
    return text + (" (within noise)" if new != old and within_noise(frontier, key) else "")


def verdict(frontier: dict[str, Any]) -> str | None:
    """Which method has the largest hypervolume and how sure that is against the next one.

    Methods that have another number of points than most are left out: with more points a hypervolume can only grow.
    """
    methods = [m for m in frontier.get("methods", []) if (m.get("hypervolume") or {}).get("mean") is not None]
    equal = [m for m in methods if not m.get("points_differ")]
    if len(equal) < 2:
        return None
    first, second = sorted(equal, key=lambda m: -m["hypervolume"]["mean"])[:2]
    a, b = first["name"], second["name"]
    text = "Of the methods with equally many points, " if len(equal) < len(methods) else ""
    text += f"{a} has the largest hypervolume, {number(first['hypervolume']['mean'])}"
    chances = {(c["a"], c["b"]): c["probability"] for c in frontier.get("comparisons", [])}
    chances |= {(b, a): 1 - chance for (a, b), chance in chances.items()}
    chance = chances.get((a, b))
    if chance is None:
        return f"{text}; next comes {b} with {number(second['hypervolume']['mean'])}."
    return f"{text}; with bootstrap probability {percent(chance)} it exceeds that of {b}, which comes next."


def unscaled(frontier: dict[str, Any]) -> str:
    """Why hypervolumes mean nothing in this run; empty where they mean something."""
    changes = [
        f"{lower_first(metric(key).label)} (tuned minus base {signed(mean)}, 95\N{NO-BREAK SPACE}% interval "
        f"{number(low)} to {number(high)})"
        for key, (mean, low, high) in unchanged_axes(frontier).items()
    ]
    if not changes:
        return ""
    return (
        f"No hypervolumes: tuning did not change the {' or the '.join(changes)} beyond noise, so there is no scale "
        "from base to tuned to measure them in."
    )


def title(info: dict[str, Any], recipe: dict[str, Any]) -> str:
    """What was tuned on what: the recipe's description, or else its model and reward, or else the run's name."""
    if recipe.get("description"):
        return capitalise(recipe["description"].strip().rstrip("."))
    model = PurePath((recipe.get("pipeline") or {}).get("path") or "").name
    names = [str(part["name"]) for part in reward_parts(recipe) if part.get("name")]
    return f"{model}, tuned on {' + '.join(names)}" if model and names else info["name"]
