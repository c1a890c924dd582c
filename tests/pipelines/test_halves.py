"""Classifier-free guidance whose unconditional half has no gradient."""

import pytest
import torch

from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.pipelines.halves import conditional_gradient
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny

SCALE = 4.0


def sampled(pipe, family="sd", **arguments):
    call = {**tiny.call(family, steps=2), "guidance_scale": SCALE, **arguments}
    return rollout(pipe, seeds=[5, 6], record=True, **call)


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_the_gradient_is_that_of_the_conditional_half_alone(family):
    pipe = tiny.shared(family, lora=True)
    parameters = trainable(denoiser(pipe))

    def gradient(changes, direction):
        prediction = replay(pipe, result, 1, grad=True, **changes).prediction
        return prediction.detach(), torch.autograd.grad((prediction * direction).sum(), parameters)

    with conditional_gradient(pipe, 2) as halves:
        result = sampled(pipe, family)
        halves.check_order(result.steps[-1].prediction)
        direction = torch.randn(result.steps[1].prediction.shape, generator=torch.Generator().manual_seed(0))
        prediction, found = gradient({}, direction)
    assert torch.equal(prediction, result.steps[1].prediction)
    plain, whole = gradient({}, direction)
    torch.testing.assert_close(plain, prediction, rtol=1e-4, atol=1e-5)
    conditional = gradient({"guidance_scale": 1.0}, direction)[1]
    scale = max(g.abs().max() for g in found)
    for a, b in zip(found, conditional, strict=True):
        torch.testing.assert_close(a, SCALE * b, rtol=1e-3, atol=1e-5 * scale)
    assert max((a - b).abs().max() for a, b in zip(found, whole, strict=True)) > 0.01 * scale


def test_images_are_those_of_the_doubled_batch():
    pipe = tiny.shared("sd", lora=True)
    plain = sampled(pipe)
    with conditional_gradient(pipe, 2):
        assert (sampled(pipe).images - plain.images).abs().max() <= 1 / 255


@pytest.mark.parametrize(
    ("family", "arguments"),
    [("flux", {"guidance_scale": 3.5}), ("sd", {"guidance_scale": 1.0})],
    ids=["no doubled batch", "no guidance"],
)
def test_pipelines_without_a_doubled_batch_are_refused(family, arguments):
    pipe = tiny.shared(family, lora=True)
    with pytest.raises(ValueError, match="unconditional_gradient=true"), conditional_gradient(pipe, 2):
        sampled(pipe, family, **arguments)


def test_a_pipeline_that_puts_the_conditional_rows_first_is_refused():
    pipe = tiny.shared("sd", lora=True)
    with conditional_gradient(pipe, 2) as halves:
        seen = sampled(pipe).steps[-1].prediction
        halves.check_order(seen)
        halves.keep((torch.cat(halves.last.chunk(2)[::-1]),))
        with pytest.raises(ValueError, match="unconditional rows first"):
            halves.check_order(seen)


def test_nothing_is_left_behind_after_an_exception():
    pipe = tiny.pipeline("sd", lora=True)
    sampled(pipe)
    before = tiny.footprint(pipe)
    with pytest.raises(ZeroDivisionError), conditional_gradient(pipe, 2):
        sampled(pipe)
        raise ZeroDivisionError
    assert tiny.footprint(pipe) == before
