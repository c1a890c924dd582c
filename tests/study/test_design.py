"""Who meets whom, as properties of the design."""

import math
import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.study.design import blocks, deal


@st.composite
def sizes(draw):
    points = draw(st.integers(2, 11))
    return points, draw(st.integers(2, min(points, 5)))


@given(sizes())
def test_every_point_and_every_pair_come_up_equally_often(size):
    points, together = size
    design = blocks(points, together)
    assert all(len(set(block)) == together and max(block) < points for block in design)
    met = Counter(pair for block in design for pair in combinations(block, 2))
    assert len(met) == math.comb(points, 2) and len(set(met.values())) == 1
    assert len(Counter(x for block in design for x in block)) == points


@pytest.mark.parametrize(("points", "size", "count"), [(7, 3, 7), (13, 4, 13), (9, 4, 18), (15, 7, 15)])
def test_designs_are_small_where_cyclic_ones_are(points, size, count):
    assert len(blocks(points, size)) == count


@given(st.integers(2, 6), st.integers(1, 12), st.integers(1, 30), st.randoms(use_true_random=False))
def test_items_are_dealt_evenly_over_blocks_and_prompts(points, prompts, rounds, dice):
    design = blocks(points, 2)
    dealt = list(deal(design, prompts, rounds * len(design), dice))
    assert set(Counter(block for _, block in dealt).values()) == {rounds}
    often = Counter(prompt for prompt, _ in dealt)
    counts = [often[prompt] for prompt in range(prompts)]
    assert max(counts) - min(counts) <= 1


@given(st.integers(2, 6), st.integers(1, 12))
def test_a_full_deal_gives_every_prompt_every_block(points, prompts):
    design = blocks(points, 2)
    dealt = Counter(deal(design, prompts, 2 * prompts * len(design), random.Random(0)))
    assert len(dealt) == prompts * len(design) and set(dealt.values()) == {2}


def test_other_numbers_of_items_are_refused():
    with pytest.raises(ValueError, match="8 items cannot compare every two points equally often; 6 or 12 can"):
        list(deal(blocks(4, 2), 3, 8, random.Random(0)))
    with pytest.raises(ValueError, match="show fewer at a time"):
        blocks(16, 8)
