"""Annealed guidance against the plain pipelines at both ends and against mixing by hand in between."""

import copy

import pytest
import torch

import sfumato
from sfumato.pipelines.adapters import add_lora, denoiser, lora_scale
from sfumato.pipelines.guidance import annealed_guidance, disable_annealed_guidance, enable_annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny

CASES = [*((family, "predictions") for family in tiny.FAMILIES), ("sd", "weights"), ("flux", "weights")]


def full_tuned(family):
    """A pipeline whose denoiser was tuned as a whole."""
    pipe = tiny.pipeline(family)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in denoiser(pipe).parameters():
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return pipe


@pytest.mark.parametrize(("family", "blend"), CASES)
def test_weight_0_is_the_base_and_weight_1_the_tuned_pipeline_bit_for_bit(family, blend):
    bare, pipe = tiny.shared(family), tiny.pipeline(family, lora=True)
    arguments = tiny.call(family)
    base, tuned = (tiny.images(p, [1, 2], **arguments) for p in (bare, pipe))
    assert not torch.equal(base, tuned)
    sizes = tiny.counted(denoiser(pipe))
    for schedule, expected in [("base", base), ("tuned", tuned)]:
        with annealed_guidance(pipe, schedule, blend=blend) as guidance:
            sizes.clear()
            assert torch.equal(tiny.images(pipe, [1, 2], **arguments), expected)
            assert guidance.passes == len(sizes) == 3
            assert torch.equal(rollout(pipe, seeds=[1, 2], last_steps=1, **arguments).images, expected)
    assert torch.equal(tiny.images(pipe, [1, 2], **arguments), tuned)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_in_between_every_step_sees_the_mix_of_both_predictions(family):
    """All classifier-free guidance here is linear, so mixing before it and after it is the same."""
    bare, pipe = tiny.pipeline(family).to(torch.float64), tiny.pipeline(family, lora=True).to(torch.float64)
    with annealed_guidance(pipe, "power", p=2, cap=0.8):
        result = rollout(pipe, seeds=[1, 2], record=True, **tiny.call(family))
    for step, g in zip(result.steps, (0.0, 0.2, 0.8), strict=True):
        base, tuned = (replay(p, result, step.index).prediction for p in (bare, pipe))
        assert torch.allclose(step.prediction, (1 - g) * base + g * tuned, rtol=1e-6, atol=1e-9)
        assert not torch.allclose(base, tuned, rtol=1e-3)


def test_two_steps_written_out_by_hand():
    bare, pipe = tiny.pipeline("sd").to(torch.float64), tiny.pipeline("sd", lora=True).to(torch.float64)
    arguments = tiny.call("sd", steps=2, guidance_scale=3.0)
    with annealed_guidance(pipe, "constant", w=0.25):
        steps = rollout(pipe, seeds=[1, 2], record=True, **arguments).steps
    embedded = tiny.embedded(pipe, "sd", arguments)
    scheduler = tiny.make_scheduler("ddim")
    scheduler.set_timesteps(2)
    x = torch.cat([torch.randn(1, 4, 8, 8, generator=g, dtype=torch.float64) for g in tiny.generators([1, 2])])
    for t in scheduler.timesteps:
        with torch.no_grad():
            without, given = (
                0.75 * bare.unet(x, t, embedded[name]).sample + 0.25 * pipe.unet(x, t, embedded[name]).sample
                for name in ("negative_prompt_embeds", "prompt_embeds")
            )
        x = scheduler.step(without + 3.0 * (given - without), t, x).prev_sample
    assert torch.allclose(steps[-1].next_sample, x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("family", "as_module"), [*((family, False) for family in tiny.FAMILIES), ("sd", True)])
def test_a_second_full_checkpoint_as_the_base(family, as_module):
    bare, pipe = tiny.pipeline(family), full_tuned(family)
    base = denoiser(bare) if as_module else bare
    arguments = tiny.call(family)
    expected = [tiny.images(p, [1, 2], **arguments) for p in (bare, pipe)]
    ours, theirs = tiny.counted(denoiser(pipe)), tiny.counted(denoiser(bare))
    for schedule, image, runs in [("base", expected[0], (0, 3)), ("tuned", expected[1], (3, 0))]:
        with annealed_guidance(pipe, schedule, base=base):
            ours.clear(), theirs.clear()
            assert torch.equal(tiny.images(pipe, [1, 2], **arguments), image)
            assert (len(ours), len(theirs)) == runs
    with annealed_guidance(pipe, "linear", base=base):
        result = rollout(pipe, seeds=[1, 2], record=True, **arguments)
    b, t = (replay(p, result, 1).prediction for p in (bare, pipe))
    assert torch.allclose(result.steps[1].prediction, (b + t) / 2, rtol=1e-3, atol=1e-5)


def test_a_base_without_adapters_is_no_other_shape_than_a_tuned_model_with_some():
    bare, pipe = tiny.shared("sd"), full_tuned("sd")
    add_lora(pipe, adapter="style")
    with annealed_guidance(pipe, "base", base=bare):
        assert torch.equal(tiny.images(pipe, [1], **tiny.call("sd", 1)), tiny.images(bare, [1], **tiny.call("sd", 1)))


@pytest.mark.parametrize("family", ["sd", "flux", "pixart"])
def test_another_adapter_stays_on_in_base_and_tuned_alike(family):
    styled, pipe = tiny.pipeline(family), tiny.pipeline(family)
    tiny.perturbed_lora(styled, "style")
    tiny.perturbed_lora(pipe, "style")
    tiny.perturbed_lora(pipe, "tuned", seed=1)
    arguments = tiny.call(family)
    base, tuned = (tiny.images(p, [1, 2], **arguments) for p in (styled, pipe))
    assert not torch.equal(base, tuned)
    for schedule, expected in [("base", base), ("tuned", tuned)]:
        with annealed_guidance(pipe, schedule, adapter="tuned"):
            assert torch.equal(tiny.images(pipe, [1, 2], **arguments), expected)
    with annealed_guidance(pipe, "constant", w=0.25, adapter="tuned", blend="weights"):
        blended = tiny.images(pipe, [1, 2], **arguments)
    with lora_scale(pipe, 0.25, adapter="tuned"):
        assert torch.equal(tiny.images(pipe, [1, 2], **arguments), blended)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_blending_weights_is_the_lora_scale_set_by_hand(family):
    pipe = tiny.pipeline(family, lora=True)
    with annealed_guidance(pipe, "linear", blend="weights", cap=0.6) as guidance:
        result = rollout(pipe, seeds=[1, 2], record=True, **tiny.call(family))
        assert guidance.passes == 3
    for index, g in [(0, 0.0), (1, 0.3), (2, 0.6)]:
        pipe.set_adapters(["default"], [g])
        assert torch.equal(replay(pipe, result, index).prediction, result.steps[index].prediction)


def test_extrapolation():
    bare, pipe = tiny.shared("sd"), tiny.shared("sd", lora=True)
    with annealed_guidance(pipe, "constant", w=1.5):
        result = rollout(pipe, seeds=[1], record=True, **tiny.call("sd", count=1))
    base, tuned = (replay(p, result, 0).prediction for p in (bare, pipe))
    assert torch.allclose(result.steps[0].prediction, base + 1.5 * (tuned - base), atol=1e-5)


def progress(pipe, family, clock="index", **arguments):
    """u at every blend of one pipeline call."""
    seen = []
    with annealed_guidance(pipe, lambda u: seen.append(u) or 0.5, clock=clock):
        tiny.images(pipe, [1], **tiny.call(family, count=1, **arguments))
    return seen


@pytest.mark.parametrize(
    ("scheduler", "steps", "ranks"),
    [
        ("ddim", 4, [0, 1, 2, 3]),
        ("dpm++2m", 4, [0, 1, 2, 3]),
        ("unipc", 4, [0, 1, 2, 3]),
        ("heun", 3, [0, 1, 1, 2, 2]),
        ("pndm", 4, [0, 1, 1, 2, 3]),
    ],
)
def test_both_calls_at_one_timestep_stand_at_one_place_of_both_clocks(scheduler, steps, ranks):
    pipe = tiny.shared("sd", lora=True, scheduler=scheduler)
    assert progress(pipe, "sd", steps=steps) == [rank / (steps - 1) for rank in ranks]
    assert progress(pipe, "sd", clock="nemo", steps=steps) == [rank / steps for rank in ranks]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_clock_runs_from_0_to_1_in_every_family_and_starts_anew_with_every_call(family):
    pipe = tiny.shared(family, lora=True)
    assert progress(pipe, family, steps=3) == [0, 0.5, 1]
    assert progress(pipe, family, steps=1) == [1]
    assert progress(pipe, family, steps=1, clock="nemo") == [0]
    seen = []
    with annealed_guidance(pipe, lambda u: seen.append(u) or 0.5):
        for steps in (2, 3):
            tiny.images(pipe, [1], **tiny.call(family, count=1, steps=steps))
    assert seen == [0, 1, 0, 0.5, 1]


def test_two_denoiser_calls_in_one_step_stand_at_one_place():
    pipe = tiny.shared("flux", lora=True)
    assert progress(pipe, "flux", steps=2, true_cfg_scale=2.0, negative_prompt="") == [0, 0, 1, 1]


def test_a_call_that_was_broken_off_does_not_shift_the_next():
    pipe = tiny.shared("sd", lora=True)

    def leave(*_):
        raise KeyboardInterrupt

    seen = []
    with annealed_guidance(pipe, lambda u: seen.append(u) or 0.5):
        with pytest.raises(KeyboardInterrupt):
            tiny.images(pipe, [1], **tiny.call("sd", count=1), callback_on_step_end=leave)
        seen.clear()
        tiny.images(pipe, [1], **tiny.call("sd", count=1))
    assert seen == [0, 0.5, 1]


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_model_with_weight_0_is_not_run(family):
    pipe = tiny.pipeline(family, lora=True)
    sizes = tiny.counted(denoiser(pipe))
    for schedule, parameters, passes in [("power", {"p": 2}, 4), ("step", {"f": 0.5}, 3), ("constant", {"w": 0.5}, 6)]:
        with annealed_guidance(pipe, schedule, **parameters) as guidance:
            sizes.clear()
            result = rollout(pipe, seeds=[1, 2], **tiny.call(family))
            assert result.forwards == guidance.passes == len(sizes) == passes
    assert rollout(pipe, seeds=[1, 2], **tiny.call(family)).forwards == 3


def test_forwards_are_counted_where_the_scheduler_takes_two_a_step():
    pipe = tiny.shared("sd", lora=True, scheduler="heun")
    assert rollout(pipe, seeds=[1], **tiny.call("sd", count=1)).forwards == 5
    with annealed_guidance(pipe, "constant", w=0.5):
        assert rollout(pipe, seeds=[1], **tiny.call("sd", count=1)).forwards == 10


def test_the_pipelines_own_lora_scale_goes_on_working():
    pipe = tiny.shared("sd", lora=True)
    arguments = tiny.call("sd", cross_attention_kwargs={"scale": 0.5})
    with annealed_guidance(pipe, "tuned"):
        guided = tiny.images(pipe, [1, 2], **arguments)
    assert torch.equal(guided, tiny.images(pipe, [1, 2], **arguments))
    with annealed_guidance(pipe, "base"):
        base = tiny.images(pipe, [1, 2], **arguments)
    assert torch.equal(base, tiny.images(tiny.shared("sd"), [1, 2], **tiny.call("sd")))


def test_models_that_return_objects_are_blended_too():
    pipe = tiny.shared("sd", lora=True)
    embeddings = tiny.embedded(pipe, "sd", tiny.call("sd"))["prompt_embeds"]
    with annealed_guidance(pipe, "constant", w=0.5):
        tiny.images(pipe, [1, 2], **tiny.call("sd"))
        with torch.no_grad():
            output = pipe.unet(torch.zeros(2, 4, 8, 8), 10, embeddings)
            assert torch.equal(output.sample, pipe.unet(torch.zeros(2, 4, 8, 8), 10, embeddings, return_dict=False)[0])
    assert type(output).__name__ == "UNet2DConditionOutput"


def test_enable_and_disable_do_what_the_context_does():
    pipe = tiny.shared("sd", lora=True)
    arguments = tiny.call("sd")
    before = tiny.footprint(pipe)
    plain = tiny.images(pipe, [1, 2], **arguments)
    with sfumato.annealed_guidance(pipe, schedule="power", p=2):
        expected = tiny.images(pipe, [1, 2], **arguments)
    guidance = enable_annealed_guidance(pipe, "power", p=2)
    assert torch.equal(tiny.images(pipe, [1, 2], **arguments), expected)
    assert torch.equal(tiny.images(pipe, [1, 2], **arguments), expected)
    assert guidance.schedule == sfumato.schedule("power", p=2)
    disable_annealed_guidance(pipe)
    disable_annealed_guidance(pipe)
    assert torch.equal(tiny.images(pipe, [1, 2], **arguments), plain)
    assert tiny.footprint(pipe).keys() == before.keys()
    assert not torch.equal(plain, expected)


def test_the_denoiser_keeps_its_class_and_the_names_of_its_weights():
    pipe = tiny.pipeline("sd")
    expected = copy.deepcopy(pipe.unet.state_dict())
    add_lora(pipe)
    with annealed_guidance(pipe, "linear"):
        keys = pipe.unet.state_dict().keys()
        assert type(pipe.unet).__name__ == "UNet2DConditionModel"
        assert pipe.get_active_adapters() == ["default"]
    assert {key.replace("base_layer.", "") for key in keys if "lora" not in key} == expected.keys()
