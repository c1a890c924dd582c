"""Guidance on offloaded, compiled and quantised pipelines; what it refuses by name; the documented traps as is."""

import diffusers
import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig
from torch._dynamo.utils import counters

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny
from tests.pipelines.variants import LINEAR, add_adapter, apart, by_hand, close, prove, quantise, sample, shake

CPU = torch.device("cpu")


def sequential(pipe):
    """What `enable_sequential_cpu_offload` does to a denoiser; as a whole it trips over the device's name "cpu:0"."""
    cpu_offload(denoiser(pipe), CPU, offload_buffers=len(denoiser(pipe)._parameters) > 0)


OFFLOADS = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": sequential,
    "group, block": lambda pipe: pipe.enable_group_offload(CPU, offload_type="block_level", num_blocks_per_group=1),
    "group, leaf": lambda pipe: pipe.enable_group_offload(CPU, offload_type="leaf_level"),
}


@pytest.mark.parametrize(
    ("family", "kind", "offload_first"),
    [
        ("sd", "model", True),
        ("sd", "model", False),
        ("sd3", "sequential", True),
        ("sd3", "sequential", False),
        ("flux", "group, block", True),
        ("sd", "group, leaf", False),
    ],
)
def test_offloading(family, kind, offload_first):
    """The hooks of diffusers and accelerate themselves, with the CPU as the device that is offloaded from."""
    pipe, run = tiny.pipeline(family, lora=True), sample(**tiny.call(family))
    tuned = run(pipe)
    with by_hand(pipe, tiny.shared(family), LINEAR):
        mixed = run(pipe)
    if offload_first:
        OFFLOADS[kind](pipe)
    with annealed_guidance(pipe, "linear") as guidance:
        if not offload_first:
            OFFLOADS[kind](pipe)
        for _ in range(2):  # model offloading installs its hooks anew after every call
            assert close(run(pipe), mixed)
            assert guidance.passes == 4
    assert torch.equal(run(pipe), tuned)
    with annealed_guidance(pipe, "base"):
        assert torch.equal(run(pipe), run(tiny.shared(family)))


@pytest.mark.parametrize(
    ("kind", "both"), [(None, False), ("model", True), ("sequential", False), ("sequential", True)]
)
def test_a_second_full_checkpoint_that_is_offloaded(kind, both):
    pipe, bare, again = tiny.pipeline("sd"), tiny.pipeline("sd"), tiny.shared("sd")
    shake(pipe.unet)
    run = sample(**tiny.call("sd"))
    with by_hand(pipe, again, LINEAR):
        mixed = run(pipe)
    base, tuned = run(again), run(pipe)
    if kind:
        OFFLOADS[kind](bare)
        if both:
            OFFLOADS[kind](pipe)
    for schedule, expected in [("base", base), ("tuned", tuned), ("linear", mixed)]:
        with annealed_guidance(pipe, schedule, base=bare):
            assert close(run(pipe), expected), schedule
    assert torch.equal(run(bare), base) and torch.equal(run(pipe), tuned) and apart(base, mixed, tuned)


def replaced(pipe):
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")


COMPILATIONS = {
    "module": replaced,
    "method": lambda pipe: pipe.transformer.compile(backend="eager"),
    "blocks": lambda pipe: pipe.transformer.compile_repeated_blocks(backend="eager", fullgraph=True),
}


@pytest.mark.parametrize("how", COMPILATIONS)
def test_compiled_denoisers_give_the_same_and_are_not_compiled_at_every_step(how):
    """At most one version for the base, one for the tuned model, however many weights and steps there are."""
    pipe, run = tiny.pipeline("flux"), sample(**tiny.call("flux"))
    tiny.perturbed_lora(pipe, targets=["to_q"])  # few layers, since tracing takes long
    tuned = run(pipe)
    with annealed_guidance(pipe, "linear"):
        mixed = run(pipe)
    torch._dynamo.reset()
    COMPILATIONS[how](pipe)
    counters.clear()
    assert close(run(pipe), tuned)
    plain = counters["stats"]["unique_graphs"]
    with annealed_guidance(pipe, "linear"):
        assert close(run(pipe), mixed)
    with annealed_guidance(pipe, "power", p=2):
        run(pipe)
    assert 0 < counters["stats"]["unique_graphs"] <= 2 * plain
    assert close(run(pipe), tuned)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["torchao", "bitsandbytes-8", "bitsandbytes-4"])
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_quantised_models(kind, family):
    pytest.importorskip(kind.split("-")[0])
    pipe, bare = (quantise(tiny.pipeline(family), kind) for _ in range(2))
    tiny.perturbed_lora(pipe)
    run = sample(**tiny.call(family))
    prove(pipe, bare, run)
    assert apart(run(bare), run(tiny.shared(family)))
    with annealed_guidance(pipe, "constant", w=0.5, blend="weights"):
        half = run(pipe)
    pipe.set_adapters("default", 0.5)
    assert torch.equal(run(pipe), half)


def refused(pipe, message, error=ValueError, **arguments):
    before = tiny.footprint(pipe)
    with pytest.raises(error, match=message), annealed_guidance(pipe, **{"schedule": "linear", **arguments}):
        pass
    assert tiny.footprint(pipe) == before


@pytest.mark.parametrize("options", [{"bias": "lora_only"}, {"bias": "all"}, {"modules_to_save": ["conv_out"]}])
def test_adapters_that_change_the_base_model_itself_are_refused(options):
    pipe = tiny.pipeline("sd")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_out.0"], **options))
    refused(pipe, "changes biases or whole modules of the base model")


CACHES = {
    "FirstBlockCacheConfig": {},
    "PyramidAttentionBroadcastConfig": {
        "spatial_attention_block_skip_range": 2,
        "current_timestep_callback": lambda: 500,
    },
    "FasterCacheConfig": {"spatial_attention_block_skip_range": 2, "current_timestep_callback": lambda: 500},
    "TaylorSeerCacheConfig": {},
    "MagCacheConfig": {"num_inference_steps": 3, "calibrate": True},
}


@pytest.mark.parametrize("name", CACHES)
def test_caches_that_base_and_tuned_would_share_are_refused(name):
    pipe = tiny.pipeline("flux", lora=True)
    pipe.transformer.enable_cache(getattr(diffusers, name)(**CACHES[name]))
    refused(pipe, "call its disable_cache", error=RuntimeError)


@pytest.mark.parametrize("where", ["before", "within"])
def test_a_cache_put_on_the_model_by_hand_or_later_is_refused(where):
    pipe = tiny.pipeline("flux", lora=True)
    config = diffusers.FirstBlockCacheConfig(threshold=0.1)
    if where == "before":
        diffusers.hooks.apply_first_block_cache(pipe.transformer, config)
        return refused(pipe, "cache", error=RuntimeError)
    with annealed_guidance(pipe, "linear"):
        pipe.transformer.enable_cache(config)
        with pytest.raises(RuntimeError, match="cache"):
            sample(**tiny.call("flux"))(pipe)


def other(family, **changes):
    """The family's pipeline with another configuration of its parts: `vae={...}` and so on."""
    pipe = tiny.pipeline(family)
    for name, config in changes.items():
        part = getattr(pipe, name)
        setattr(pipe, name, type(part).from_config(part.config, **config))
    return pipe


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("sd", {"scheduler": {"prediction_type": "v_prediction"}}, "base predicts v_prediction, the pipeline epsilon"),
        ("sd", {"vae": {"scaling_factor": 0.13025}}, "latents of base have scaling_factor 0.13025"),
        ("sd3", {"vae": {"shift_factor": 0.1}}, "latents of base have shift_factor 0.1"),
        ("sdxl", {"vae": {"latents_mean": [0.1] * 4}}, r"latents of base have latents_mean \[0.1"),
        ("sdxl", {"unet": {"block_out_channels": (8, 8)}}, "differ in shape"),
        ("sd", {"unet": {"attention_head_dim": 1}}, "attention_head_dim"),
        ("sd", {"scheduler": {"beta_end": 0.02}}, "beta_end|noise"),
    ],
)
def test_a_base_that_differs_is_refused_by_name(family, changes, message):
    refused(tiny.pipeline(family), message, base=other(family, **changes))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_with_guidance_rescale_mixing_before_is_not_mixing_after(rescale):
    """The mix is taken before classifier-free guidance; only where that is linear the order does not matter."""
    bare, pipe = tiny.shared("sd"), tiny.pipeline("sd", lora=True)
    arguments = tiny.call("sd", guidance_rescale=rescale)
    if rescale:
        prove(pipe, bare, sample(**arguments))
    with annealed_guidance(pipe, "constant", w=0.5):
        result = rollout(pipe, seeds=[1, 2], record=True, **arguments)
    base, tuned = (replay(each, result, 1).prediction for each in (bare, pipe))
    assert close(result.steps[1].prediction, (base + tuned) / 2) == (rescale == 0.0)


@pytest.mark.parametrize("clip", [False, True])
def test_a_scheduler_that_clips_does_not_step_to_the_mix_of_both_steps(clip):
    """`DDIMScheduler` clips x0 to [-1, 1] by default, where latents have no such range."""
    pipe, bare = tiny.pipeline("sd", lora=True), tiny.pipeline("sd")
    for each in (pipe, bare):
        each.scheduler = diffusers.DDIMScheduler.from_config(each.scheduler.config, clip_sample=clip)
    arguments = tiny.call("sd")
    if clip:
        prove(pipe, bare, sample(**arguments))
    with annealed_guidance(pipe, "constant", w=0.5):
        result = rollout(pipe, seeds=[1, 2], record=True, **arguments)
    base, tuned = (replay(each, result, 1).next_sample for each in (bare, pipe))
    assert close(result.steps[1].next_sample, (base + tuned) / 2) == (not clip)


def test_dora_is_not_linear_in_its_scale_so_that_its_weights_are_not_interpolated():
    pipe = tiny.pipeline("sd")
    add_adapter(pipe, use_dora=True)
    refused(pipe, "DoRA|dora", blend="weights")
