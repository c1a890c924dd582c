"""Sampling before the steps that carry gradient: what recipes say of it is done, and changes no more than rounding."""

import pytest
import torch
from peft.tuners.lora import LoraLayer

from sfumato.pipelines.adapters import denoiser
from sfumato.training import Draft
from tests.training.common import EXACT, captured_gradients, make_trainer

STEPS = 2


def trained(folder, **changes):
    """Gradients of updates 2 and 3, and in which dtypes the first LoRA layer's own matrices took part."""
    trainer = make_trainer(folder, objective=Draft(last_steps=1), steps=3, **changes)
    updates = iter(trainer)
    next(updates)  # before it, the reward is tried on images of the base
    gradients, dtypes = captured_gradients(trainer), []
    layer = next(part for part in denoiser(trainer.pipe).modules() if isinstance(part, LoraLayer))
    layer.lora_A["tuned"].register_forward_hook(lambda _, inputs, output: dtypes.append(output.dtype))
    list(updates)
    return [torch.cat([part.flatten() for part in each]) for each in gradients], dtypes


def test_a_merged_lora_trains_the_same(tmp_path):
    apart, passes_apart = trained(tmp_path / "apart", prefix={**EXACT, "merge": False})
    merged, passes_merged = trained(tmp_path / "merged")
    assert len(passes_apart) == 2 * STEPS
    assert len(passes_merged) == 2  # in the steps with gradient alone
    for found, wanted in zip(merged, apart, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=float(1e-4 * wanted.abs().max()))


def test_lower_precision_is_for_the_steps_without_gradient(tmp_path):
    exact, _ = trained(tmp_path / "exact")
    lower, dtypes = trained(tmp_path / "lower", prefix={**EXACT, "merge": False, "dtype": "bfloat16"})
    assert dtypes == [torch.bfloat16, torch.float32] * 2
    assert not torch.equal(lower[0], exact[0])
    assert torch.cosine_similarity(lower[0], exact[0], 0) > 0.9


def test_a_dtype_that_is_no_low_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bfloat16"):
        make_trainer(tmp_path, prefix={"dtype": "int8"})
