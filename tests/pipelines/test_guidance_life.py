"""Guidance refuses what it could not do right, outlives model offloading, and leaves nothing behind."""

import diffusers
import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance, disable_annealed_guidance, enable_annealed_guidance
from sfumato.pipelines.rollout import rollout
from tests import tiny


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(family, fails):
    pipe = tiny.pipeline(family, lora=True)
    denoiser(pipe).requires_grad_(False)
    arguments = tiny.call(family, count=1)
    tiny.images(pipe, [1], **arguments)
    before = tiny.footprint(pipe)
    if fails:
        broken = annealed_guidance(pipe, lambda u: 0.5 if u < 1 else 1 / 0, blend="weights")
        with pytest.raises(ZeroDivisionError), broken:
            tiny.images(pipe, [1], **arguments)
        vars(pipe).pop("_current_timestep", None)  # FLUX's own note of where it was broken off
        before["pipe"].pop("_current_timestep", None)
    else:
        with annealed_guidance(pipe, "constant", w=0.5):
            tiny.images(pipe, [1], **arguments)
    assert tiny.footprint(pipe) == before


def refused(pipe, message, error=ValueError, **arguments):
    before = tiny.footprint(pipe)
    with pytest.raises(error, match=message), annealed_guidance(pipe, **{"schedule": "linear", **arguments}):
        pass
    assert tiny.footprint(pipe) == before


def test_adapters_that_cannot_be_switched_are_refused():
    refused(tiny.shared("sd"), "carries no LoRA: load one")
    pipe = tiny.pipeline("sd", lora=True)
    refused(pipe, "has no adapter 'x'; it has: default", adapter="x")
    tiny.perturbed_lora(pipe, "style")
    refused(pipe, r"several adapters \(default, style\): say which is tuned with adapter=")
    pipe.set_adapters(["style"])
    refused(pipe, "'default' is loaded but not active: call pipe.set_adapters", adapter="default")
    pipe.disable_lora()
    refused(pipe, "not active", adapter="style")
    pipe.enable_lora()
    pipe.fuse_lora(adapter_names=["style"])
    refused(pipe, "style is fused into the weights: call pipe.unfuse_lora", adapter="default")


def test_wrong_schedules_and_blends_are_refused():
    pipe = tiny.shared("sd", lora=True)
    refused(pipe, "unknown schedule", schedule="cubic")
    refused(pipe, "takes p", schedule="power")
    refused(pipe, "blend is 'predictions' or 'weights'", blend="both")
    refused(pipe, "savings are for blend='predictions'", blend="weights", savings={"reuse": 2})
    refused(pipe, "neither adapter= nor one_forward", base=tiny.shared("sd"), adapter="default")
    refused(pipe, "neither adapter= nor one_forward", base=tiny.shared("sd"), savings={"one_forward": True})
    refused(pipe, "adapter={} names no adapter", adapter={})
    refused(pipe, "takes a number, by which the schedule is multiplied, or a Schedule", adapter={"default": "half"})


def test_a_base_of_another_kind_is_refused():
    pipe = tiny.shared("sd", lora=True)
    refused(pipe, "base is a SD3Transformer2DModel, the pipeline's denoiser a UNet2D", base=tiny.shared("sd3"))
    refused(pipe, "differ in shape", base=tiny.shared("sdxl"))
    velocity = tiny.pipeline("sd")
    velocity.scheduler = diffusers.DDIMScheduler.from_config(velocity.scheduler.config, prediction_type="v_prediction")
    refused(pipe, "base predicts v_prediction, the pipeline epsilon", base=velocity)
    other = tiny.pipeline("sd")
    other.vae.register_to_config(scaling_factor=0.5)
    refused(pipe, "latents of base have scaling_factor 0.5, those of the pipeline 0.18215", base=other)
    shorter = tiny.pipeline("sd3")
    del shorter.transformer.transformer_blocks[1]
    refused(tiny.shared("sd3"), "differ in shape", base=shorter)


def test_a_denoiser_that_caches_is_refused():
    pipe = tiny.pipeline("flux", lora=True)
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    refused(pipe, "call its disable_cache", error=RuntimeError)
    pipe.transformer.disable_cache()
    with annealed_guidance(pipe, "linear"):
        tiny.images(pipe, [1], **tiny.call("flux", count=1))


def test_enabling_twice_is_refused_and_does_not_disturb_the_first():
    pipe = tiny.shared("sd", lora=True)
    with annealed_guidance(pipe, "constant", w=0.5):
        expected = tiny.images(pipe, [1], **tiny.call("sd", count=1))
        refused(pipe, "already on", error=RuntimeError)
        with pytest.raises(RuntimeError, match="already on"):
            enable_annealed_guidance(pipe, "linear")
        assert torch.equal(tiny.images(pipe, [1], **tiny.call("sd", count=1)), expected)


def test_a_scheduler_that_was_replaced_is_refused():
    pipe = tiny.pipeline("sd", lora=True)
    with annealed_guidance(pipe, "linear"):
        pipe.scheduler = tiny.make_scheduler("euler")
        with pytest.raises(RuntimeError, match="scheduler was replaced"):
            tiny.images(pipe, [1], **tiny.call("sd", count=1))
    tiny.images(pipe, [1], **tiny.call("sd", count=1))


def test_the_denoiser_alone_does_not_know_where_it_stands():
    pipe = tiny.shared("sd", lora=True)
    with annealed_guidance(pipe, "linear"), pytest.raises(RuntimeError, match="call the pipeline"):
        pipe.unet(torch.zeros(1, 4, 8, 8), 10, torch.zeros(1, tiny.TOKENS, 8))


@pytest.mark.parametrize("blend", ["predictions", "weights"])
def test_gradient_through_a_blend_with_checkpointing_is_refused(blend):
    pipe = tiny.pipeline("sd", lora=True)
    pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    arguments = tiny.call("sd", count=1)
    with annealed_guidance(pipe, "constant", w=0.5, blend=blend):
        with pytest.raises(RuntimeError, match="disable_gradient_checkpointing"):
            rollout(pipe, seeds=[1], last_steps=1, **arguments)
        rollout(pipe, seeds=[1], **arguments)
    with annealed_guidance(pipe, "tuned", blend=blend):
        rollout(pipe, seeds=[1], last_steps=1, **arguments).images.sum().backward()


def test_a_second_model_may_use_checkpointing():
    pipe, bare = tiny.pipeline("sd", lora=True), tiny.pipeline("sd")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            pipe.unet.enable_gradient_checkpointing()
            pipe.unet.train()
        with annealed_guidance(pipe, "constant", w=0.5, base=bare):
            rollout(pipe, seeds=[1], last_steps=1, **tiny.call("sd", count=1)).images.square().sum().backward()
        gradients.append([p.grad for p in pipe.unet.parameters() if p.requires_grad])
        pipe.unet.zero_grad()
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))


def offload(pipe):
    """Hooks that come and go as with `enable_model_cpu_offload`, which needs an accelerator to offload from."""

    def install():
        remove_hook_from_module(pipe.unet, recurse=True)
        cpu_offload_with_hook(pipe.unet, "cpu")

    install()
    pipe.maybe_free_model_hooks = install


@pytest.mark.parametrize("offload_first", [True, False])
def test_guidance_outlives_offloading(offload_first):
    pipe = tiny.pipeline("sd", lora=True)
    arguments = tiny.call("sd", count=1)
    plain = tiny.images(pipe, [1], **arguments)
    with annealed_guidance(pipe, "linear"):
        expected = tiny.images(pipe, [1], **arguments)
    if offload_first:
        offload(pipe)
    with annealed_guidance(pipe, "linear") as guidance:
        if not offload_first:
            offload(pipe)
        for _ in range(3):
            assert torch.equal(tiny.images(pipe, [1], **arguments), expected)
            assert guidance.passes == 4
    assert not torch.equal(expected, plain)
    for _ in range(2):
        assert torch.equal(tiny.images(pipe, [1], **arguments), plain)
        assert hasattr(pipe.unet, "_hf_hook")
    with annealed_guidance(pipe, "linear"):
        assert torch.equal(tiny.images(pipe, [1], **arguments), expected)
    del pipe.maybe_free_model_hooks
    remove_hook_from_module(pipe.unet, recurse=True)
    assert torch.equal(tiny.images(pipe, [1], **arguments), plain)


def test_gradient_is_refused_while_offloading():
    pipe = tiny.pipeline("sd", lora=True)
    offload(pipe)
    with pytest.raises(ValueError, match="offloading"):
        rollout(pipe, seeds=[1], last_steps=1, **tiny.call("sd", count=1))
    rollout(pipe, seeds=[1], **tiny.call("sd", count=1))


def test_guidance_can_be_turned_off_after_its_pipeline_lost_the_hook():
    pipe = tiny.pipeline("sd", lora=True)
    plain = tiny.images(pipe, [1], **tiny.call("sd", count=1))
    enable_annealed_guidance(pipe, "linear")
    del vars(pipe.unet)["forward"]
    disable_annealed_guidance(pipe)
    assert "forward" not in vars(pipe.unet)
    assert torch.equal(tiny.images(pipe, [1], **tiny.call("sd", count=1)), plain)
