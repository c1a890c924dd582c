"""The noise levels at which given images are looked at."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.training import DiffusionDPO
from sfumato.training.denoising import denoised, spread_levels
from tests import tiny
from tests.training.pairs_bed import LEVELS, single, write_pairs


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 9), st.integers(1, 1000))
def test_levels_are_spread_evenly(seed, rows, draws, levels):
    places = spread_levels(np.random.default_rng(seed), rows, draws, levels)
    assert places.shape[1] == draws and rows <= places.size < rows + draws
    assert places.min() >= 0 and places.max() < levels
    strata = np.arange(places.size)
    ordered = np.sort(places, axis=None)
    assert (ordered >= strata * levels // places.size).all()
    assert (ordered <= ((strata + 1) * levels - 1) // places.size).all()


def test_every_place_is_drawn_uniformly():
    random, levels, count = np.random.default_rng(0), 5, 4000
    found = np.stack([spread_levels(random, 7, 3, levels) for _ in range(count)])
    shares = np.stack([(found == level).mean(0) for level in range(levels)])
    deviation = np.sqrt(1 / levels * (1 - 1 / levels) / count)
    assert np.abs(shares - 1 / levels).max() < 4.5 * deviation
    assert found.mean((1, 2)).std() < np.sqrt((levels**2 - 1) / 12 / found[0].size) / 3, "their mean varies less"


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9))
def test_equal_parts_of_an_update_take_equally_many_forwards(size, parts, draws):
    groups = len(spread_levels(np.random.default_rng(0), size * parts, draws, 10))
    mine = np.arange(size * parts).reshape(parts, size) % groups
    assert len({len(set(part)) for part in mine.tolist()}) == 1


@pytest.mark.parametrize(("draws", "sizes"), [(1, [2] * 5), (2, [4, 4] * 2 + [2] * 2), (8, [10] * 8)])
def test_rows_that_share_a_level_go_through_the_model_together(draws, sizes, tmp_path):
    pipe = tiny.pipeline("sd", lora=True)
    update = single(pipe, prompts=["red"] * 5)
    batch = update.batches[0]
    examples = DiffusionDPO(pairs=write_pairs(tmp_path, [1.0] * 5)).source(update, batch, whole=True)
    parts = list(denoised(update, batch, examples, LEVELS, 0, draws))
    assert [len(part.errors) for part in parts] == sizes
    counts = np.bincount([row for part in parts for row in part.examples.rows])
    assert counts.tolist() == [2 * draws] * 5
