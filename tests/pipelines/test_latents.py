"""Images in a pipeline's own latents and back: what its VAE makes of them, whatever the layout."""

import pytest
import torch

from sfumato.analytic import analytic_pipeline, gaussian
from sfumato.pipelines.latents import decode, encode_images
from sfumato.pipelines.patching import patched
from sfumato.pipelines.predictions import noise_like
from sfumato.pipelines.rollout import rollout
from tests import tiny
from tests.analytic.bed import scheduler
from tests.pipelines.differences import agrees

FAMILIES = (*tiny.FAMILIES, "qwen-image", "flux2", "sana")
"""Besides the five: a VAE for videos with statistics per channel, patches scaled by a batch norm, no distribution."""


def images(size=16, dtype=torch.float32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def reconstructed(vae, x):
    """By the VAE alone."""
    video = "QwenImage" in type(vae).__name__
    with torch.no_grad():
        encoded = vae.encode((2 * x - 1)[:, :, None] if video else 2 * x - 1, return_dict=False)[0]
        latents = encoded if isinstance(encoded, torch.Tensor) else encoded.mode()
        decoded = vae.decode(latents, return_dict=False)[0]
    return ((decoded[:, :, 0] if video else decoded) / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_is_the_inverse_of_what_a_pipeline_does_before_it_decodes(family):
    pipe, arguments = tiny.shared(family, lora=True), tiny.call(family, steps=1)
    result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    before = tiny.footprint(pipe)
    last, x = result.steps[-1].next_sample, images(result.images.shape[-1])
    assert torch.equal(decode(pipe, last, **result.arguments), result.images)
    latents = encode_images(pipe, x, **arguments)
    assert latents.shape == last.shape and latents.dtype == last.dtype and not latents.requires_grad
    assert torch.allclose(decode(pipe, latents, **arguments), reconstructed(pipe.vae, x), rtol=0, atol=1e-5)
    assert not torch.allclose(decode(pipe, 1.05 * latents, **arguments), reconstructed(pipe.vae, x), rtol=0, atol=1e-4)
    assert tiny.footprint(pipe) == before


def test_the_images_say_their_size():
    pipe = tiny.shared("flux")
    arguments = tiny.call("flux")
    latents = encode_images(pipe, images(32), **{k: v for k, v in arguments.items() if k not in ("height", "width")})
    assert latents.shape == (2, 64, 16)
    with pytest.raises(ValueError, match=r"encoded to \(4, 16, 16\), but this call decodes \(4, 8, 8\)"):
        encode_images(pipe, images(32), **arguments)


def test_half_precision_does_not_blur_the_way_back():
    pipe, exact = tiny.pipeline("flux").to(torch.bfloat16), tiny.pipeline("flux")
    for name in ("scaling_factor", "shift_factor"):
        for each in (pipe, exact):
            each.vae.register_to_config(**{name: 0.3611})
    x, arguments = images(), tiny.call("flux")
    latents, expected = (encode_images(each, x, **arguments) for each in (pipe, exact))
    encoded = pipe.vae.encode((2 * x - 1).bfloat16()).latent_dist.mode()
    again = exact._pack_latents((encoded.float() - 0.3611) * 0.3611, 2, 4, 8, 8)
    assert latents.dtype == torch.bfloat16 and torch.equal(latents, again.bfloat16())
    assert torch.allclose(latents.float(), expected, atol=0.05)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_the_gradient_of_both_ways(family):
    pipe, arguments = tiny.pipeline(family).to(torch.float64), tiny.call(family)
    x = images(dtype=torch.float64).requires_grad_()
    latents = encode_images(pipe, x, grad=True, **arguments)
    weights = noise_like(latents, [1, 2])
    assert agrees([x], lambda: (encode_images(pipe, x, grad=True, **arguments) * weights).sum(), 1e-5, 1e-6)
    z = latents.detach().contiguous().requires_grad_()
    assert agrees([z], lambda: decode(pipe, z, grad=True, **arguments).square().sum(), 1e-5, 1e-6)
    assert not decode(pipe, z, **arguments).requires_grad


def test_pipelines_without_an_encoder_are_refused():
    x, pipe = images(), tiny.pipeline("sd")
    with pytest.raises(ValueError, match="AnalyticPipeline has no VAE with an encoder"):
        encode_images(analytic_pipeline(gaussian(0.0, 1.0), scheduler("DDIMScheduler")), x, prompt="")
    pipe.vae.encoder = None
    with pytest.raises(ValueError, match="StableDiffusionPipeline has no VAE with an encoder"):
        encode_images(pipe, x, **tiny.call("sd"))
    half = tiny.pipeline("sdxl")
    half.vae.to(torch.float16)
    half.vae.register_to_config(force_upcast=True)
    with pytest.raises(ValueError, match="overflows in float16"):
        encode_images(half, x, **tiny.call("sdxl"))


def test_pipelines_that_decode_something_else_are_refused():
    with pytest.raises(RuntimeError, match="LatentConsistencyModelPipeline decodes what its last step gave"):
        decode(tiny.shared("lcm"), torch.zeros(2, 4, 8, 8), **tiny.call("lcm"))
    pipe = tiny.pipeline("flux")
    unpack = pipe._unpack_latents

    def mixing(*args):
        latents = unpack(*args)
        return latents + latents.flip(1)

    with patched(pipe, "_unpack_latents", mixing), pytest.raises(RuntimeError, match="mixes its latents"):
        encode_images(pipe, images(), **tiny.call("flux"))
