import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.preferences import Pair, split_pairs
from sfumato.preferences.split import connected, drawn_again, leaks, smaller

pairs = st.lists(
    st.builds(Pair, *(st.integers(0, n).map(str) for n in (8, 30, 30)), st.sampled_from([0.0, 1.0])), min_size=1
)


def things(pair):
    return {("prompt", pair.prompt), ("image", pair.image_0), ("image", pair.image_1)}


@given(pairs)
def test_groups_are_the_connected_parts(found):
    groups = connected(found)
    assert sorted(i for group in groups for i in group) == list(range(len(found)))
    reached = [set.union(*(things(found[i]) for i in group)) for group in groups]
    assert all(not one & other for i, one in enumerate(reached) for other in reached[:i])
    for group in groups:  # every pair hangs on the first one
        inside, left = things(found[group[0]]), set(group[1:])
        while hanging := {i for i in left if things(found[i]) & inside}:
            inside = inside.union(*(things(found[i]) for i in hanging))
            left -= hanging
        assert not left


@given(pairs, st.integers(0, 3))
def test_a_held_out_part_shares_nothing_with_the_rest(found, seed):
    try:
        learned, held = split_pairs(found, 0.3, seed)
    except ValueError as error:
        assert "can be held out" in str(error)
        return
    assert sorted(map(repr, learned + held)) == sorted(map(repr, found))
    assert len(held) <= max(1, round(0.3 * len(found))) and leaks(learned, held) is None


def test_case_and_spacing_make_no_other_prompt():
    found = [Pair("a  Cat", "1", "2", 1), Pair("A cat ", "3", "4", 1), Pair("dog", "5", "6", 1)]
    assert connected(found) == [[0, 1], [2]]


def test_pairs_that_all_hang_together_cannot_be_split():
    with pytest.raises(ValueError, match="they fall into 1 groups, the largest of 5"):
        split_pairs([Pair("cat", str(i), str(i + 1), 1) for i in range(5)], 0.4)


def test_a_large_split_has_about_the_share_and_depends_on_the_seed():
    found = [Pair(str(i // 2), f"{i}a", f"{i}b", 1) for i in range(400)]
    held = [{pair.image_0 for pair in split_pairs(found, 0.1, seed)[1]} for seed in (0, 0, 1)]
    assert len(held[0]) == 40 and held[0] == held[1] != held[2]


def test_smaller_parts_are_nested_and_samples_take_whole_prompts():
    found = [Pair(str(i // 4), f"{i}a", f"{i}b", 1) for i in range(80)]
    half, quarter = (set(map(repr, smaller(found, share))) for share in (0.5, 0.25))
    assert len(half) == 40 and len(quarter) == 20 and quarter < half
    again = [pair.prompt for pair in drawn_again(found, 0)]
    assert len(again) == 80 and len(set(again)) < 20 and all(again.count(prompt) % 4 == 0 for prompt in set(again))
    assert again != [pair.prompt for pair in drawn_again(found, 1)]


def test_what_both_sides_share_is_counted():
    learned = [Pair("cat", "1", "2", 1), Pair("dog", "3", "4", 1)]
    assert leaks(learned, [Pair("Cat", "1", "9", 1)]).startswith("1 images and 1 prompts of the pairs to measure on")
