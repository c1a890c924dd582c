"""Cheaper steps before those with gradient: the same images and gradients, and nothing left behind."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from peft.tuners.lora import LoraLayer

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.pipelines.prefix import cheaper, computed_in, lower_precision, merged
from sfumato.pipelines.rollout import rollout
from tests import tiny

FAMILIES = pytest.mark.parametrize("family", ["sd", "sd3", "pixart"])
STEPS = 3


def switch(pipe):
    return AdapterSwitch(denoiser(pipe), "default")


def lora_passes(pipe):
    """A list that grows with every pass through the first LoRA layer's own matrices."""
    layer = next(part for part in denoiser(pipe).modules() if isinstance(part, LoraLayer))
    passes = []
    layer.lora_A["default"].register_forward_hook(lambda *_: passes.append(1))
    return passes


def sampled(pipe, family, prefix=None, last_steps=1, **options):
    """Images and the gradient of their mean."""
    pipe.set_progress_bar_config(disable=True)
    found = rollout(
        pipe, seeds=[1, 2], last_steps=last_steps, prefix=prefix, **tiny.call(family, steps=STEPS), **options
    )
    return found.images.detach(), torch.autograd.grad(found.images.mean(), trainable(denoiser(pipe)), allow_unused=True)


def assert_same(found, wanted, **tolerance):
    torch.testing.assert_close(found[0], wanted[0], **tolerance)
    scale = max(part.abs().max() for part in wanted[1] if part is not None)
    for a, b in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=float(1e-4 * scale))


@FAMILIES
def test_a_merged_prefix_gives_the_same_images_and_gradients(family):
    pipe = tiny.pipeline(family, lora=True)
    wanted = sampled(pipe, family)
    before, passes = tiny.footprint(pipe), lora_passes(pipe)
    found = sampled(pipe, family, merged(switch(pipe)))
    assert len(passes) == 1  # in the step with gradient alone
    assert_same(found, wanted, rtol=0, atol=1e-5)
    with switch(pipe).off():
        plain = rollout(pipe, seeds=[1, 2], **tiny.call(family, steps=STEPS)).images
    assert (plain - wanted[0]).abs().max() > 1e-3  # the LoRA is not too small to be seen
    assert tiny.footprint(pipe) == before


def test_weights_come_back_bit_for_bit_also_after_an_exception():
    pipe = tiny.pipeline("sd", lora=True)
    before = {name: tensor.clone() for name, tensor in denoiser(pipe).state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), merged(switch(pipe)):
        assert any(not torch.equal(tensor, before[name]) for name, tensor in denoiser(pipe).state_dict().items())
        raise RuntimeError("stop")
    for name, tensor in denoiser(pipe).state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    wanted, (found, _) = tiny.pipeline("sd", lora=True), sampled(pipe, "sd")
    torch.testing.assert_close(found, sampled(wanted, "sd")[0], rtol=0, atol=0)


def test_other_adapters_stay_at_work():
    pipe = tiny.pipeline("sd", lora=True)
    tiny.perturbed_lora(pipe, "second", seed=1)
    call = tiny.call("sd", steps=STEPS)
    wanted = rollout(pipe, seeds=[1, 2], **call).images
    found = rollout(pipe, seeds=[1, 2], prefix=merged(switch(pipe)), **call).images
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_weights_of_less_precision_keep_their_adapter_apart():
    pipe = tiny.pipeline("sd", lora=True)
    for layer in denoiser(pipe).modules():
        if isinstance(layer, LoraLayer):
            layer.get_base_layer().to(torch.bfloat16)
    with merged(switch(pipe)):
        assert all("default" in layer.active_adapters for layer in switch(pipe).layers)


def test_every_step_may_carry_gradient():
    pipe = tiny.pipeline("sd", lora=True)
    passes = lora_passes(pipe)
    found = sampled(pipe, "sd", merged(switch(pipe)), last_steps=STEPS)
    assert len(passes) == STEPS
    assert_same(found, sampled(pipe, "sd", last_steps=STEPS), rtol=0, atol=0)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])  # Euler's step gives the dtype of the prediction
def test_lower_precision_ends_where_gradient_begins(scheduler):
    pipe = tiny.pipeline("sd", lora=True, scheduler=scheduler)
    wanted = sampled(pipe, "sd")
    dtypes = []
    denoiser(pipe).conv_in.register_forward_hook(lambda _, inputs, output: dtypes.append(output.dtype))
    images, gradient = sampled(pipe, "sd", computed_in(pipe, torch.bfloat16))
    assert dtypes == [torch.bfloat16] * (STEPS - 1) + [torch.float32]
    assert images.dtype == torch.float32
    assert 0 < (images - wanted[0]).abs().max() < 0.1
    flat, exact = (torch.cat([part.flatten() for part in parts]) for parts in (gradient, wanted[1]))
    assert torch.cosine_similarity(flat, exact, 0) > 0.9


def test_what_is_not_asked_for_is_not_done():
    pipe = tiny.pipeline("sd", lora=True)
    passes = lora_passes(pipe)
    exact = sampled(pipe, "sd", nullcontext())
    assert_same(sampled(pipe, "sd", cheaper(pipe)), exact, rtol=0, atol=0)
    assert len(passes) == 2 * STEPS
    sampled(pipe, "sd", cheaper(pipe, switch(pipe), torch.bfloat16))
    assert len(passes) == 2 * STEPS + 1


def test_bfloat16_is_taken_for_weights_in_float32_where_there_are_instructions_for_it(monkeypatch):
    def chosen(dtype, **capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        return lower_precision(torch.nn.Linear(2, 2, dtype=dtype))

    assert chosen(torch.float32, avx512_bf16=True) is torch.bfloat16
    assert chosen(torch.float32, amx_bf16=True) is torch.bfloat16
    assert chosen(torch.float32, avx512_bf16=False) is None
    assert chosen(torch.float64, avx512_bf16=True) is None
    assert chosen(torch.bfloat16, avx512_bf16=True) is None
