"""Less is kept for the backward pass, and no image or gradient changes."""

from __future__ import annotations

import pytest
import torch
from benchmarks.scaling.live import LiveBytes
from diffusers.models.activations import GEGLU
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.pipelines.lean import lean
from sfumato.pipelines.rollout import rollout
from tests import tiny


def there_and_back(forward, inputs):
    """What comes out, the gradient of its square, and the bytes that are held between."""
    with LiveBytes() as live:
        out = forward()
        held = live.now
        gradient = torch.autograd.grad(out.square().sum(), inputs, allow_unused=True)
    return out.detach(), gradient, held


def assert_equal(found, wanted):
    torch.testing.assert_close(found[:2], wanted[:2], rtol=0, atol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_images_and_gradients_are_the_same_bit_for_bit(family):
    pipe = tiny.pipeline(family, lora=True)
    pipe.set_progress_bar_config(disable=True)
    weights = trainable(denoiser(pipe))

    def sampled():
        images = rollout(pipe, seeds=[1, 2], last_steps=2, **tiny.call(family, steps=3)).images
        return images.detach(), torch.autograd.grad(images.square().mean(), weights, allow_unused=True)

    wanted = sampled()
    with lean(denoiser(pipe), pipe.vae):
        found = sampled()
    assert any(part is not None and part.any() for part in wanted[1])
    assert_equal(found, wanted)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_decoders_keep_less(family):
    vae = tiny.pipeline(family).vae.requires_grad_(False)
    latents = torch.randn(2, vae.config.latent_channels, 8, 8, requires_grad=True)

    def decoded():
        return there_and_back(lambda: vae.decode(latents, return_dict=False)[0], [latents])

    wanted = decoded()
    with lean(vae):
        found = decoded()
    assert_equal(found, wanted)
    assert found[2] < 0.7 * wanted[2]
    assert decoded()[2] == wanted[2], "nothing is left"


def test_denoisers_keep_less():
    pipe = tiny.pipeline("sd", lora=True)
    unet = pipe.unet
    latents, prompts = torch.randn(2, 4, 8, 8), torch.randn(2, tiny.TOKENS, unet.config.cross_attention_dim)

    def denoised():
        return there_and_back(lambda: unet(latents, torch.tensor(1), prompts, return_dict=False)[0], trainable(unet))

    wanted = denoised()
    with lean(unet):
        found = denoised()
    assert_equal(found, wanted)
    assert found[2] < 0.8 * wanted[2]


CONVOLUTIONS = st.fixed_dictionaries(
    {
        "dimensions": st.integers(1, 3),
        "kernel_size": st.integers(1, 3),
        "stride": st.integers(1, 2),
        "padding": st.sampled_from([0, 1, 2, "valid"]),
        "dilation": st.integers(1, 2),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
        "padding_mode": st.sampled_from(["zeros", "reflect"]),
    }
)


def convolution(dimensions, **options):
    made = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dimensions - 1](4, 6, **options)
    return made.double(), torch.randn(2, 4, *[7] * dimensions, dtype=torch.float64, requires_grad=True)


@settings(max_examples=60, deadline=None)
@given(CONVOLUTIONS, st.sampled_from(["weight", "bias", None]))
def test_every_convolution_has_its_own_gradient(options, trained):
    conv, inputs = convolution(**options)
    conv.requires_grad_(False)
    wanted_of = [inputs]
    if trained and getattr(conv, trained) is not None:
        wanted_of.append(getattr(conv, trained).requires_grad_())
    wanted = there_and_back(lambda: conv(inputs), wanted_of)
    with lean(conv):
        assert_equal(there_and_back(lambda: conv(inputs), wanted_of), wanted)


def test_convolutions_pass_second_derivatives():
    conv, inputs = convolution(2, kernel_size=3, padding=1)
    with lean(conv.requires_grad_(False)):
        assert torch.autograd.gradgradcheck(conv, inputs)


def test_one_image_without_a_batch():
    conv, inputs = convolution(2, kernel_size=3)
    with lean(conv.requires_grad_(False)):
        assert torch.equal(conv(inputs[0]), conv(inputs)[0])
        conv(inputs[0]).sum().backward()
    assert inputs.grad.any()


class Causal(nn.Conv3d):
    """Pads for itself, as the decoders of video models do."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 0, 0, 0, 2, 0)))


def test_convolutions_that_pad_for_themselves_go_on_doing_so():
    conv, inputs = Causal(4, 4, (3, 1, 1)).requires_grad_(False), torch.randn(1, 4, 3, 2, 2, requires_grad=True)
    wanted = there_and_back(lambda: conv(inputs), [inputs])
    with lean(conv):
        found = there_and_back(lambda: conv(inputs), [inputs])
    assert found[0].shape == inputs.shape
    assert_equal(found, wanted)
    assert found[2] < wanted[2]


@pytest.mark.parametrize("module", [GEGLU(4, 6), nn.Conv2d(4, 6, 3)], ids=lambda module: type(module).__name__)
def test_under_autocast_nothing_changes(module):
    inputs = torch.randn(2, 4, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = there_and_back(lambda: module.requires_grad_(False)(inputs), [inputs])
        with lean(module):
            found = there_and_back(lambda: module(inputs), [inputs])
    assert found[0].dtype == wanted[0].dtype == torch.bfloat16
    assert_equal(found, wanted)


def test_gated_units_keep_what_their_projection_gives():
    module, inputs = GEGLU(4, 64), torch.randn(3, 4)
    wanted = there_and_back(lambda: module(inputs), [module.proj.weight])
    with lean(module):
        found = there_and_back(lambda: module(inputs), [module.proj.weight])
    assert_equal(found, wanted)
    assert found[2] == 3 * (2 * 64 + 64) * 4, "projection and product"
    assert wanted[2] == 3 * (2 * 64 + 64 + 64) * 4
