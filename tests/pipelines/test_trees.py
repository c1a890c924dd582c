"""What denoisers take and give, taken apart and put together."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from hypothesis import given
from hypothesis import strategies as st

from sfumato.pipelines.trees import Batch, batch_of, leaves, mapped, mixed, rows

A, B, C = torch.arange(24.0).reshape(4, 3, 2), torch.ones(4), torch.tensor(7.0)
TREE = ({"a": A, "names": ["x", "y"]}, [B, (C, None)], 3)
floats = st.floats(-3, 3)


def test_a_function_of_corresponding_tensors_keeps_the_form():
    found = mapped(lambda x, y: x + 2 * y, TREE, TREE)
    assert type(found) is tuple and found[0]["names"] == ["x", "y"] and found[1][1][1] is None and found[2] == 3
    assert torch.equal(found[0]["a"], 3 * A) and torch.equal(found[1][0], 3 * B) and found[1][1][0] == 21
    assert type(found[1]) is list and type(found[1][1]) is tuple
    output = mapped(lambda x: x + 1, UNet2DConditionOutput(sample=A))
    assert isinstance(output, UNet2DConditionOutput) and torch.equal(output.sample, A + 1)


def test_trees_of_other_lengths_do_not_correspond():
    with pytest.raises(ValueError, match="zip"):
        mapped(torch.add, [A, B], [A])


def test_leaves_come_in_order_and_as_they_are():
    assert [leaf is expected for leaf, expected in zip(leaves(TREE), (A, B, C), strict=True)] == [True] * 3
    assert leaves({"a": 1, "b": [None]}) == []


@given(weights=st.lists(floats, min_size=1, max_size=3), seed=st.integers(0, 9))
def test_mixing_is_the_weighted_sum(weights, seed):
    weights = [*weights, 1 - sum(weights)]
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in weights]
    (found,) = mixed(weights, [(x,) for x in tensors])
    assert torch.allclose(found, sum(w * x for w, x in zip(weights, tensors, strict=True)), rtol=0, atol=1e-12)


def test_mixing_in_half_precision_rounds_once():
    """Sums of three are taken in single precision, and of two by torch's own lerp."""
    tensors = [torch.tensor([x], dtype=torch.bfloat16) for x in (256.0, 1.0, -255.0)]
    weights = [1.0, 1.0, -1.0]
    assert mixed(weights, tensors).item() == 512 and mixed(weights, tensors).dtype == torch.bfloat16
    left, right = torch.tensor([1.0]).bfloat16(), torch.tensor([3.0]).bfloat16()
    assert mixed([0.25, 0.75], [left, right]).item() == 2.5
    assert torch.equal(mixed([1.0, 0.0], [left, right]), left) and torch.equal(mixed([0.0, 1.0], [left, right]), right)


def test_the_batch_is_that_of_the_first_picture():
    assert batch_of(((A, B), {})) == Batch(4, False)
    assert batch_of(((), {"timestep": B, "ids": torch.zeros(9, 3), "hidden_states": A})) == Batch(4, False)
    assert batch_of((([A, A], B), {})) == Batch(2, True)
    with pytest.raises(ValueError, match=r"batch size .* use neither one_forward nor sharing"):
        batch_of(((B, 3), {"x": None}))


def test_rows_are_taken_of_whatever_has_one_for_each_of_the_batch():
    shapes = [[(1, 8, 8)]] * 4
    call = (A, B, C), {"ids": torch.zeros(9, 3), "residuals": (A, [A + 1]), "shapes": shapes, "scale": 2, "mask": None}
    args, kwargs = rows(call, Batch(4, False), [slice(0, 4), slice(2, 4)])
    twice = torch.cat([A, A[2:]])
    assert torch.equal(args[0], twice) and len(args[1]) == 6 and args[2] is C
    assert kwargs["ids"].shape == (9, 3) and kwargs["shapes"] == [[(1, 8, 8)]] * 6
    assert torch.equal(kwargs["residuals"][0], twice) and torch.equal(kwargs["residuals"][1][0], twice + 1)
    assert (kwargs["scale"], kwargs["mask"]) == (2, None) and type(kwargs["residuals"]) is tuple


def test_a_list_of_as_many_tensors_as_pictures_is_taken_apart_only_where_pictures_come_as_lists():
    residuals, part = [A, A + 1, A + 2, A + 3], [slice(1, 3)]
    found = rows(residuals, Batch(4, False), part)
    assert len(found) == 4 and torch.equal(found[3], A[1:3] + 3)
    found = rows(residuals, Batch(4, True), part)
    assert [x is y for x, y in zip(found, residuals[1:3], strict=True)] == [True, True]


def test_rows_of_an_output_keep_its_class():
    output = rows(UNet2DConditionOutput(sample=A), Batch(4, False), [slice(3, 4)])
    assert isinstance(output, UNet2DConditionOutput) and torch.equal(output.sample, A[3:])
