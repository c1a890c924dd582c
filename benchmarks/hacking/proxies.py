"""The proxies: preferences for the house style, learned from few, more and all pairs of emoji-64's artwork.

Pairs, wrong labels and settings are those of the bundled preference (tools/emoji/preference.py). "All" are 2,928 pairs:
732 of an emoji by two vendors, each in four augmented variants. Smaller numbers are drawn from these, and a smaller
part's pairs are among a larger one's. All stop by the same held-out pairs.
"""

from __future__ import annotations

from benchmarks.hacking.plan import CURED, ENSEMBLE, MEMBERS, PROXIES, SIZES, Plan
from tools.emoji import data, preference
from tools.emoji.common import ASSETS, SEED

from sfumato.preferences import Pair, train_preference
from sfumato.preferences.split import smaller


def learned(plan: Plan) -> bool:
    """Whether all proxies are there."""
    return all((plan.folder / "proxies" / name / "evaluation.json").exists() for name in PROXIES)


def learn(plan: Plan) -> None:
    """Learn all proxies that are not there yet."""
    artwork = chosen(plan.emoji)
    read = preference.pictures(artwork).__getitem__
    right, measure = preference.split(artwork)
    noisy = preference.with_noise(right, SEED + 5)
    pairs = [pair for number in range(preference.VARIANTS) for pair in preference.of_kind(noisy, str(number))]
    held_out = preference.of_kind(preference.with_noise(measure, SEED + 6), "drawn")
    true = preference.of_kind(measure, "drawn")
    for name in PROXIES:
        members = MEMBERS if name == ENSEMBLE else 1
        config = preference.TRAINING.model_copy(update={"steps": plan.fit, "members": members})
        own = part(pairs, SIZES[CURED if name == ENSEMBLE else name])
        train_preference(ASSETS / "scorer", own, held_out, plan.folder / "proxies" / name, config, read, true)


def chosen(emoji: int | None) -> data.Dataset:
    """The artwork, or that of the first so many emoji."""
    if not data.IMAGES.exists():
        data.run()
    artwork = data.load()
    names = list(dict.fromkeys(row["emoji"] for row in artwork.rows))[:emoji]
    rows = [number for number, row in enumerate(artwork.rows) if row["emoji"] in set(names)]
    return data.Dataset(artwork.images[rows], [artwork.rows[number] for number in rows])


def part(pairs: list[Pair], count: int | None) -> list[Pair]:
    """So many of the pairs, or all."""
    return pairs if count is None or count >= len(pairs) else smaller(pairs, count / len(pairs))
