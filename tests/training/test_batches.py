"""Which images an update is made of."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.config import TrainingConfig
from sfumato.training.batches import images_of_update, micro_batches

PROMPTS = ["a", "b", "c", "d", "e"]


@given(count=st.integers(1, 20), seed=st.integers(0, 2**31), update=st.integers(1, 10_000))
def test_prompts_come_equally_often_and_seeds_once(count, seed, update):
    prompts, seeds = images_of_update(PROMPTS, count, seed, update)
    assert len(prompts) == len(seeds) == len(set(seeds)) == count
    times = [Counter(prompts)[prompt] for prompt in PROMPTS]
    assert max(times) - min(times) <= 1
    assert (prompts, seeds) == images_of_update(PROMPTS, count, seed, update)


def test_updates_and_seeds_of_training_differ():
    drawn = [images_of_update(PROMPTS, 5, seed, update) for seed in (0, 1) for update in (1, 2, 3)]
    assert len({tuple(seeds) for _, seeds in drawn}) == 6
    assert len({tuple(prompts) for prompts, _ in drawn}) > 1


@given(batch=st.integers(1, 12), micro=st.none() | st.integers(1, 12), processes=st.integers(1, 4))
def test_micro_batches_cover_the_batch_evenly_or_are_refused(batch, micro, processes):
    config = TrainingConfig(batch_size=batch, micro_batch_size=micro)
    try:
        parts = micro_batches(config, processes)
    except ValueError as error:
        assert processes > 1 and "cannot share evenly" in str(error)
        return
    assert [i for part in parts for i in range(batch)[part]] == list(range(batch))
    sizes = {tuple(len(range(batch)[part]) for part in parts[process::processes]) for process in range(processes)}
    assert len(sizes) == 1


def test_without_a_size_each_process_takes_one_micro_batch():
    assert len(micro_batches(TrainingConfig(batch_size=8), 4)) == 4
    with pytest.raises(ValueError, match="multiple of 9"):
        micro_batches(TrainingConfig(batch_size=8), 3)
