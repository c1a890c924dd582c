"""Cutting pairs up: held-out parts that share nothing with the rest, smaller parts, samples with replacement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from numpy.random import default_rng

from sfumato.preferences.pairs import Pair

SPLIT, SMALLER, AGAIN = 1, 2, 3
"""Which of a seed's random numbers are used for what."""


def plain(prompt: str) -> str:
    """A prompt without what does not make it another one: case and spacing."""
    return " ".join(prompt.casefold().split())


def split_pairs(pairs: Sequence[Pair], share: float, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from, and about a share of all to hold out: no prompt and no image is in both.

    Raises:
        ValueError: the pairs hang together by prompts and images, so that no such part can be taken out.
    """
    groups = connected(pairs)
    held: list[int] = []
    for number in default_rng([seed, SPLIT]).permutation(len(groups)):
        if len(held) + len(groups[number]) <= max(1, round(share * len(pairs))):
            held += groups[number]
    if not held or len(held) == len(pairs):
        raise ValueError(
            f"no {share:.0%} of the {len(pairs)} pairs can be held out without prompts or images that the others have "
            f"too: they fall into {len(groups)} groups, the largest of {max(map(len, groups), default=0)}. Name a file "
            "of held-out pairs"
        )
    chosen = set(held)
    return [pair for i, pair in enumerate(pairs) if i not in chosen], [pairs[i] for i in sorted(chosen)]


def connected(pairs: Sequence[Pair]) -> list[list[int]]:
    """Numbers of the pairs in groups, such that pairs of different groups share neither prompt nor image."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = parent[above]
            key = above
        return key

    for pair in pairs:
        first = root(("prompt", plain(pair.prompt)))
        for image in (pair.image_0, pair.image_1):
            parent[root(("image", image))] = first
            first = root(first)
    groups = defaultdict(list)
    for number, pair in enumerate(pairs):
        groups[root(("prompt", plain(pair.prompt)))].append(number)
    return list(groups.values())


def smaller(pairs: Sequence[Pair], share: float, seed: int = 0) -> list[Pair]:
    """A share of the pairs, drawn at random; a smaller share's pairs are among a larger one's."""
    order = default_rng([seed, SMALLER]).permutation(len(pairs))
    return [pairs[i] for i in sorted(order[: max(1, round(share * len(pairs)))])]


def drawn_again(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """A bootstrap sample: as many prompts as there are, drawn with replacement, each with all of its pairs."""
    groups = by_prompt(pair.prompt for pair in pairs)
    return [pairs[i] for g in default_rng([seed, AGAIN]).integers(len(groups), size=len(groups)) for i in groups[g]]


def by_prompt(prompts: Iterable[str]) -> list[list[int]]:
    """Numbers of the rows of each prompt."""
    groups = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[plain(prompt)].append(number)
    return list(groups.values())


def leaks(learned: Sequence[Pair], measured: Sequence[Pair]) -> str | None:
    """What both sides have in common, by the images' names; `check_preferences` looks at the pictures."""
    images = [{image for pair in part for image in (pair.image_0, pair.image_1)} for part in (learned, measured)]
    prompts = [{plain(pair.prompt) for pair in part} for part in (learned, measured)]
    shared, known = (len(one & other) for one, other in (images, prompts))
    if not shared and not known:
        return None
    return f"{shared} images and {known} prompts of the pairs to measure on are among those to learn from"
