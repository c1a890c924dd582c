"""Is variety gone? Within prompts, between prompts, between styles, and down to the same picture twice."""

from __future__ import annotations

from collections import Counter

import numpy as np

from sfumato.diagnosis.case import QUARTER, Case, Evidence, Finding, from_to, listed, percent
from sfumato.diagnosis.samples import Samples
from sfumato.diagnosis.significance import Change

NO_FEATURES = "The evaluation has no features to tell it by."
NOUNS = {"vendi": "diversity (Vendi score less 1)", "distance": "distance", "recall": "recall"}
CALLED = {"vendi": "the Vendi score", "distance": "the distance between two pictures of a prompt", "recall": "recall"}


def _level_of_loss(changes: list[Change]) -> str:
    """Alarm if a quarter of the base's value is lost for certain, warn if any is."""
    return "alarm" if any(c.at_least(-QUARTER) for c in changes) else "warn" if any(c.fell() for c in changes) else "ok"


def diversity(case: Case) -> Finding:
    """Pictures of one prompt resemble one another more than the base's do."""
    name = "diversity"
    found = {key: case.changes[key] for key in CALLED if key in case.changes}
    if not found:
        return Finding(name, "unknown", NO_FEATURES)
    level = _level_of_loss(list(found.values()))
    fallen = [key for key, change in found.items() if change.fell()]
    if not fallen:
        return Finding(name, level, "The loss of diversity is within the base's own noise.", case.numbers(*found))
    told = listed([f"{CALLED[key]} fell {from_to(found[key], key == 'vendi')}" for key in fallen])
    worst = min(fallen, key=lambda key: found[key].change)
    lost, noise = percent(-found[worst].change), percent(found[worst].noise)
    text = f"{told[0].upper()}{told[1:]}. {lost} of the base's {NOUNS[worst]} is lost, where chance explains {noise}."
    caption = f"Where diversity fell most: the base above {case.name}, same seeds."
    evidence = [case.side_by_side(caption, case.most_changed(worst, -1))]
    return Finding(name, level, text, case.numbers(*found), evidence)


def duplicates(case: Case) -> Finding:
    """Pictures that are nearly, or exactly, the same."""
    name = "duplicates"
    exact = {"base": _twins(case.base) + _twins(case.again), "point": _twins(case.point)}
    doubled = exact["point"] > 0 == exact["base"]
    kinds = [key for key in ("copies", "echoes") if key in case.changes]
    numbers = {**case.numbers(*kinds), "exact": exact}
    found = [case.changes[key] for key in kinds]
    level = "alarm" if any(c.at_least(QUARTER) for c in found) else "warn" if any(c.rose() for c in found) else "ok"
    if doubled and level == "ok":
        level = "warn"
    if not found and not doubled:
        return Finding(name, "unknown", NO_FEATURES, numbers)
    words = {"copies": "of the same prompt", "echoes": "of another prompt"}
    risen = [key for key in kinds if case.changes[key].rose()]
    told = [
        f"{percent(case.changes[key].point)} of the pictures have a near-duplicate {words[key]} "
        f"(the base's: {percent(case.changes[key].base)})"
        for key in risen
    ]
    if doubled:
        told.append(f"{exact['point']} are the same, pixel by pixel, as another with other seeds or prompts")
    if not told:
        return Finding(name, level, "There are no more near-duplicates than among the base's pictures.", numbers)
    evidence = [_pairs(case, kind) for kind, key in enumerate(("copies", "echoes")) if key in risen]
    return Finding(name, level, f"{listed(told)}.", numbers, evidence)


def _twins(samples: Samples) -> int:
    """Images that are equal to another one, pixel by pixel."""
    return sum(count for count in Counter(samples.digests.ravel().tolist()).values() if count > 1)


def _pairs(case: Case, kind: int, count: int = 8) -> Evidence:
    """The closest pairs, one above the other."""
    assert case.point.nearest is not None
    distances, places = (table[kind].ravel() for table in case.point.nearest)
    rows = [row for line in case.point.rows for row in line]
    pairs = list(dict.fromkeys(tuple(sorted((int(i), int(places[i])))) for i in np.argsort(distances)))[:count]
    above, below = ([rows[i]["file"] for i in side] for side in zip(*pairs, strict=True))
    who = "of one prompt" if kind == 0 else "of different prompts"
    prompts = listed(sorted({rows[i]["prompt"] for pair in pairs for i in pair}))
    return Evidence(
        f"The closest pairs {who} under {case.name}, one above the other, with different seeds.",
        [(prompts, [("one", above), ("other", below)])],
    )


def prompts(case: Case) -> Finding:
    """All prompts are answered alike, or not answered."""
    name = "prompts"
    keys = [key for key in ("separation", *(f"match/{label}" for label in case.under("match"))) if key in case.changes]
    if not keys:
        return Finding(name, "unknown", NO_FEATURES)
    level = _level_of_loss([case.changes[key] for key in keys])
    fallen = [key for key in keys if case.changes[key].fell()]
    if not fallen:
        return Finding(name, level, "Prompts are told apart as well as by the base.", case.numbers(*keys))
    told = [_prompt_loss(key, case) for key in fallen]
    worst = min(fallen, key=lambda key: case.changes[key].change)
    caption = f"The prompts that lost most of their own: the base above {case.name}, same seeds."
    evidence = [case.side_by_side(caption, case.most_changed(worst, -1))]
    text = f"{listed(told)}."
    return Finding(name, level, text[0].upper() + text[1:], case.numbers(*keys), evidence)


def _prompt_loss(key: str, case: Case) -> str:
    change = case.changes[key]
    if key == "separation":
        return f"different prompts get pictures that are {percent(-change.change)} less apart than the base's"
    label = key.removeprefix("match/")
    return f"{percent(change.point)} of the pictures show the right {label} (the base's: {percent(change.base)})"


def modes(case: Case) -> Finding:
    """Kinds of picture, by label, that are drawn no more."""
    name = "modes"
    found = case.under("kinds")
    if not found:
        return Finding(name, "unknown", "The evaluation has no labels that vary within a prompt.")
    level = _level_of_loss(list(found.values()))
    numbers = case.numbers(*(f"kinds/{key}" for key in found))
    fallen = [key for key, change in found.items() if change.fell()]
    if not fallen:
        return Finding(name, level, f"As many kinds by {listed(list(found))} are drawn as by the base.", numbers)
    gone = {key: _vanished(case, key) for key in fallen}
    told = []
    for key in fallen:
        lost = f" ({listed(gone[key])} all but vanished)" if gone[key] else ""
        told.append(f"The effective number of kinds by {key} fell {from_to(found[key], 1)}{lost}")
    worst = min(fallen, key=lambda key: found[key].change)
    caption = f"Where kinds by {worst} were lost: the base above {case.name}, same seeds."
    evidence = [case.side_by_side(caption, case.most_changed(f"kinds/{worst}", -1))]
    return Finding(name, level, f"{'; '.join(told)}.", {**numbers, "vanished": gone}, evidence)


def _vanished(case: Case, label: str) -> list[str]:
    """Labels of at least a twentieth of the base's images of which less than a tenth is left."""

    def share(samples: Samples, value: str) -> float:
        return float((samples.labels[label] == value).mean())

    values = np.unique(case.base.labels[label]).tolist()
    return [v for v in values if share(case.base, v) >= 0.05 and share(case.point, v) < 0.1 * share(case.base, v)]
