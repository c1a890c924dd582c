"""Who meets whom: balanced incomplete block designs, in which every two operating points meet equally often."""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

Block = tuple[int, ...]
LARGEST = 5000
SEARCHED, MOST_BASES = 20_000, 6
"""How far the search for a cyclic design goes: candidates it looks at, and base blocks."""


def blocks(points: int, size: int) -> list[Block]:
    """A balanced incomplete block design: subsets of `size` of the points 0 to `points` - 1.

    Every point is in equally many blocks, and so is every pair of points. A cyclic design is taken where one with fewer
    blocks than all subsets is found (Bose 1939): base blocks whose differences hit every number modulo `points` equally
    often, each shifted round.

    Raises:
        ValueError: it would have more than `LARGEST` blocks.
    """
    every = math.comb(points, size)
    if size > 2 and (found := _cyclic(points, size, every)):
        return found
    if every > LARGEST:
        raise ValueError(
            f"every pair of {points} points meets equally often in {every} sets of {size}: show fewer at a time, or 2"
        )
    return list(combinations(range(points), size))


def deal(design: Sequence[Block], prompts: int, items: int, dice: random.Random) -> Iterator[tuple[int, Block]]:
    """Items as (prompt, block): every block equally often, every prompt as often as any other or once more.

    Args:
        items: how many, a multiple of the number of blocks. `prompts` times the blocks give each prompt each block.

    Raises:
        ValueError: it is no multiple.
    """
    if items % len(design):
        below = items - items % len(design)
        near = f"{below} or {below + len(design)}" if below else f"{len(design)}"
        raise ValueError(f"{items} items cannot compare every two points equally often; {near} can")
    length = len(design)
    cycle = math.lcm(prompts, length)
    for number in range(items):
        if number % (prompts * length) == 0:
            order = dice.sample(range(prompts), prompts)
        yield order[(number + number // cycle) % prompts], design[number % length]


def _cyclic(points: int, size: int, every: int) -> list[Block]:
    """The cyclic design with the fewest base blocks, nothing if none smaller than all subsets was found."""
    rest = itertools.islice(combinations(range(1, points), size - 1), SEARCHED)
    bases = [(0, *others) for others in rest]
    differences = [Counter((a - b) % points for a in base for b in base if a != b) for base in bases]
    for count in range(1, MOST_BASES + 1):
        often, odd = divmod(count * size * (size - 1), points - 1)
        if count * points < every and not odd:
            family = _family(differences, count, often)
            if family:
                return [
                    tuple(sorted((x + shift) % points for x in bases[i])) for i in family for shift in range(points)
                ]
    return []


def _family(differences: list[Counter[int]], count: int, often: int) -> list[int]:
    """`count` of the base blocks that together have every difference `often` times, by backtracking."""
    usable = [i for i, own in enumerate(differences) if max(own.values()) <= often]
    steps = 0

    def extend(chosen: list[int], found: Counter[int]) -> list[int]:
        nonlocal steps
        if len(chosen) == count:
            return chosen
        for i in usable[bisect_left(usable, chosen[-1]) if chosen else 0 :]:
            steps += 1
            if steps > SEARCHED:
                return []
            fits = all(found[d] + n <= often for d, n in differences[i].items())
            if fits and (full := extend([*chosen, i], found + differences[i])):
                return full
        return []

    return extend([], Counter())
