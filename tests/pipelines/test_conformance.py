"""Every family of text-to-image pipelines: guidance at 0, at 1 and in between, LoRA files, gradient and replay.

No line of sfumato knows a family, so whatever a new one does differently shows here.
"""

import copy
import functools
import inspect
from contextlib import contextmanager

import pytest
import torch

from sfumato.pipelines.adapters import base_weights, denoiser, load_lora, save_lora, tuned_adapter
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny

STEPS = 2
TWO_CALLS = ("lumina2", "cogview4", "qwen-image", "chroma", "flux2")
"""They run the denoiser once for the prompt and once for the negative prompt; the others stack both in one batch."""
ONE_BATCH = tuple(f for f in tiny.ALL_FAMILIES if f not in (*TWO_CALLS, "flux", "lcm", "sana-sprint", "z-image"))
"""They stack both as tensors; the first three of the others take the guidance scale as an input of the denoiser."""


@pytest.fixture(scope="module", params=tiny.ALL_FAMILIES)
def family(request):
    return request.param


def arguments(family, **more):
    return tiny.call(family, steps=STEPS, **more)


def sample(pipe, family):
    return tiny.images(pipe, [1, 2], **arguments(family))


@functools.cache
def ends(family):
    """The images of the bare pipeline and of the one with the LoRA."""
    return sample(tiny.shared(family), family), sample(tiny.shared(family, lora=True), family)


@contextmanager
def recorded(module):
    """The arguments and the output of every call of a denoiser, as the pipeline sees them."""
    calls = []

    def write(_, args, kwargs, output):
        calls.append((copy.deepcopy(args), copy.deepcopy(kwargs), output))

    handle = module.register_forward_hook(write, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def tensors(tree):
    """The tensors in nested tuples and lists."""
    return [tree] if isinstance(tree, torch.Tensor) else [x for part in tree for x in tensors(part)]


def calls_a_step(family):
    return 2 if family in TWO_CALLS else 1


@pytest.mark.parametrize("blend", ["predictions", "weights"])
def test_weight_0_is_the_base_and_weight_1_the_tuned_pipeline_bit_for_bit(family, blend):
    base, tuned = ends(family)
    assert base.shape[:2] == (2, 3) and not torch.equal(base[0], base[1]) and (base - tuned).abs().max() > 0.01
    pipe = tiny.shared(family, lora=True)
    for schedule, expected in [("base", base), ("tuned", tuned)]:
        with annealed_guidance(pipe, schedule, blend=blend) as guidance, recorded(denoiser(pipe)) as calls:
            assert torch.equal(sample(pipe, family), expected)
        assert guidance.passes == len(calls) == STEPS * calls_a_step(family)
    assert torch.equal(sample(pipe, family), tuned)


def test_half_is_the_mean_of_what_two_separate_models_predict(family):
    """Compared at the denoiser, since guidance that rescales its result is not linear."""
    pipe = tiny.shared(family, lora=True)
    with annealed_guidance(pipe, "constant", w=0.5) as guidance, recorded(denoiser(pipe)) as calls:
        image = sample(pipe, family)
    assert guidance.passes == 2 * len(calls) == 2 * STEPS * calls_a_step(family)
    models = [denoiser(tiny.pipeline(family, lora=lora)) for lora in (False, True)]
    for args, kwargs, output in calls:
        with torch.no_grad():
            both = [tensors(model(*args, **kwargs)) for model in models]
        for seen, base, tuned in zip(tensors(output), *both, strict=True):
            size = (tuned - base).abs().max()
            assert size > 0.01 * base.abs().max()
            assert (seen - (base + tuned) / 2).abs().max() < 1e-4 * size
    assert not any(torch.equal(image, end) for end in ends(family))


def test_blending_weights_is_a_lora_of_half_the_size(family):
    pipe, halved = tiny.shared(family, lora=True), tiny.pipeline(family, lora=True)
    with torch.no_grad():
        for name, parameter in denoiser(halved).named_parameters():
            if ".lora_B." in name:
                parameter.mul_(0.5)
    with annealed_guidance(pipe, "constant", w=0.5, blend="weights") as guidance:
        assert torch.equal(sample(pipe, family), sample(halved, family))
    assert guidance.passes == STEPS * calls_a_step(family)


def test_both_models_run_in_one_forward(family):
    pipe = tiny.pipeline(family, lora=True)
    with annealed_guidance(pipe, "constant", w=0.5):
        exact = sample(pipe, family)
    sizes = tiny.counted(denoiser(pipe))
    with annealed_guidance(pipe, "constant", w=0.5, savings={"one_forward": True}):
        assert torch.allclose(sample(pipe, family), exact, rtol=0, atol=1e-5)
    assert len(sizes) == STEPS * calls_a_step(family)


@pytest.mark.parametrize("name", [family for family in ONE_BATCH if family != "lumina"])
def test_the_rows_that_are_shared_are_those_of_the_negative_prompt(name):
    pipe, bare = tiny.shared(name, lora=True), tiny.shared(name)
    saving = annealed_guidance(pipe, "constant", w=0.25, savings={"share_unconditional": True})
    with saving, recorded(denoiser(pipe)) as calls:
        sample(pipe, name)
    args, kwargs, output = calls[1]
    with torch.no_grad():
        base = denoiser(bare)(*args, **kwargs)
    shared = {row for row in range(4) if torch.allclose(output[0][row], base[0][row], atol=1e-6)}
    given = arguments(name)
    embedded = {key: value.flip(1) for key, value in given.items() if key == "negative_prompt_embeds"}
    with recorded(denoiser(pipe)) as others:
        tiny.images(pipe, [1, 2], **given | (embedded or {"negative_prompt": ["blur", "noise"]}))
    (_, first, _), (_, second, _) = calls[0], others[0]
    pairs = [(first[key], second[key]) for key in first if "encoder_hidden_states" in key and "mask" not in key]
    assert shared == {row for x, y in pairs for row in range(4) if not torch.equal(x[row], y[row])} == {0, 1}


@pytest.mark.parametrize("name", ["lumina", "lumina2", "z-image"])
def test_sharing_is_refused_where_the_unconditional_rows_do_not_come_first_in_one_batch(name):
    pipe = tiny.shared(name, lora=True)
    saving = annealed_guidance(pipe, "constant", w=0.5, savings={"share_unconditional": True})
    with saving, pytest.raises(ValueError, match="share_unconditional needs a pipeline that"):
        sample(pipe, name)


def test_a_second_checkpoint_as_the_base_is_blended_like_a_lora_that_is_off(family):
    pipe, results = tiny.shared(family, lora=True), []
    for base in (None, tiny.shared(family)):
        with annealed_guidance(pipe, "constant", w=0.5, base=base):
            results.append(sample(pipe, family))
    assert torch.equal(*results)


def test_all_calls_of_a_step_stand_at_one_place_of_the_clock(family):
    seen = []
    with annealed_guidance(tiny.shared(family, lora=True), lambda u: seen.append(u) or 0.5):
        sample(tiny.shared(family, lora=True), family)
    assert seen == sorted([0.0, 1.0] * calls_a_step(family))


def test_true_guidance_of_a_distilled_model():
    pipe = tiny.shared("flux", lora=True)
    for schedule, passes in [("base", 2), ("tuned", 2), ("constant", 4), ("linear", 2)]:
        parameters = {"w": 0.5} if schedule == "constant" else {}
        with annealed_guidance(pipe, schedule, **parameters) as guidance:
            tiny.images(pipe, [1, 2], **arguments("flux", true_cfg_scale=2.0, negative_prompt="blur"))
        assert guidance.passes == STEPS * passes


def test_nothing_is_left_behind(family):
    pipe = tiny.pipeline(family, lora=True)
    sample(pipe, family)
    before = tiny.footprint(pipe)
    with annealed_guidance(pipe, "constant", w=0.5):
        sample(pipe, family)
    assert tiny.footprint(pipe) == before


def test_a_saved_lora_comes_back_exactly_by_our_loader_and_by_diffusers(family, tmp_path):
    _, tuned = ends(family)
    save_lora(tiny.shared(family, lora=True), tmp_path)
    pipe = tiny.pipeline(family)
    assert load_lora(pipe, tmp_path, "mine") == "mine" == tuned_adapter(pipe)
    assert torch.equal(sample(pipe, family), tuned)
    if hasattr(pipe, "load_lora_weights"):
        pipe = tiny.pipeline(family)
        pipe.load_lora_weights(tmp_path)
        assert torch.equal(sample(pipe, family), tuned)


def test_gradient_reaches_the_lora_through_a_blend(family):
    pipe = tiny.pipeline(family, lora=True)
    with annealed_guidance(pipe, "constant", w=0.5):
        expected = sample(pipe, family)
        images = rollout(pipe, seeds=[1, 2], last_steps=1, **arguments(family)).images
    images.square().mean().backward()
    assert torch.equal(images, expected)
    gradients = [p.grad for p in denoiser(pipe).parameters() if p.requires_grad]
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert sum(g is not None and bool(g.any()) for g in gradients) > len(gradients) / 2


def test_a_recorded_step_is_run_again_exactly(family):
    pipe = tiny.shared(family, lora=True)
    with annealed_guidance(pipe, "constant", w=0.5):
        result = rollout(pipe, seeds=[1, 2], record=True, **arguments(family))
        if family == "sana-sprint":
            with pytest.raises(RuntimeError, match="SanaSprintPipeline changes the latents it starts from"):
                replay(pipe, result, 1)
            return
        steps = [replay(pipe, result, index) for index in range(STEPS)]
    for before, after in zip(result.steps, steps, strict=True):
        assert torch.equal(before.prediction, after.prediction) and torch.equal(before.next_sample, after.next_sample)
    with base_weights(pipe):
        assert not torch.equal(replay(pipe, result, -1).prediction, steps[-1].prediction)


def test_the_families_differ_as_they_should():
    """The suite would prove little if all denoisers were called alike."""
    forwards = {family: type(denoiser(tiny.shared(family))).forward for family in tiny.ALL_FAMILIES}
    assert len(set(forwards.values())) > 12
    assert "timestep" not in inspect.signature(forwards["z-image"]).parameters
    with recorded(denoiser(tiny.shared("z-image"))) as calls:
        sample(tiny.shared("z-image"), "z-image")
    assert isinstance(calls[0][2][0], list)
    kinds = {tiny.shared(family).scheduler.config.get("prediction_type") for family in ("sd", "sd2", "hunyuan")}
    assert kinds == {"epsilon", "v_prediction"}
