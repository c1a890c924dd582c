"""Every saving against an independent computation: what it computes, what it costs, and how wrong it is."""

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from sfumato.pipelines.savings import Blender, Place, Savings, _without_small
from tests import tiny
from tests.pipelines.variants import add_adapter, like, picture
from tests.pipelines.witness import close, several, witnessed

TUNED = ("tuned",)


class Functions:
    """Models that are functions of the position in the run."""

    def __init__(self, *functions):
        self.functions = functions
        self.runs = []

    def predict(self, index, forward, call):
        position = int(call[0][1])
        self.runs.append((position, index))
        return (self.functions[index](position) * torch.ones_like(call[0][0]),)


def blended(models, weights, savings, turns=1):
    """What a Blender gives at each step, and which models it ran there."""
    blender, found = Blender(models, Savings(**savings)), []
    for position, w in enumerate(weights):
        for turn in range(turns):
            x = torch.ones(2, 1, 1, dtype=torch.float64)
            (prediction,) = blender.predict(w, None, ((x, position), {}), Place(position, turn, None))
            found.append(float(prediction[0]))
    ran = [sum(p == position for p, _ in models.runs) for position in range(len(weights))]
    assert blender.passes == sum(ran)
    return found, ran


def two(g):
    return [1 - g, g]


def base(s):
    return 3.0 + 0.5 * s


def tuned(s):
    return base(s) + 2.0 / (1 + s)


GS = [0.1, 0.2, 0.45, 0.6, 0.7, 0.3, 0.9, 1.4]


@pytest.mark.parametrize("reuse", [1, 2, 3, 5])
def test_a_difference_stands_for_those_of_the_next_steps_and_no_more(reuse):
    found, ran = blended(Functions(base, tuned), [two(g) for g in GS], {"reuse": reuse})
    for s, (g, prediction) in enumerate(zip(GS, found, strict=True)):
        last = s - s % reuse
        d = tuned(last) - base(last)
        expected = base(s) + g * d if g <= 0.5 else tuned(s) - (1 - g) * d
        assert prediction == pytest.approx(expected, abs=1e-12)
        bound = min(abs(g), abs(1 - g)) * abs(tuned(s) - base(s) - d)
        assert abs(prediction - ((1 - g) * base(s) + g * tuned(s))) <= bound + 1e-12
        assert ran[s] == (2 if s == last else 1)


def test_three_models_are_corrected_from_the_largest():
    third = lambda s: base(s) - 1.0 / (2 + s)  # noqa: E731
    models = Functions(base, tuned, third)
    weights = [(0.5, 0.3, 0.2), (0.3, 0.5, 0.2), (0.2, 0.2, 0.6), (0.6, 0.5, -0.1)]
    found, ran = blended(models, weights, {"reuse": 4})
    assert ran == [3, 1, 1, 1]
    for s, (w, prediction) in enumerate(zip(weights, found, strict=True)):
        main = max(range(3), key=lambda i: w[i])
        kept = [f(0) - models.functions[main](0) for f in models.functions]
        expected = models.functions[main](s) + sum(x * d for x, d in zip(w, kept, strict=True))
        assert prediction == pytest.approx(expected, abs=1e-12)


def test_a_model_that_joins_later_makes_the_differences_anew():
    found, ran = blended(
        Functions(base, tuned, lambda s: -1.0), [(0.5, 0.5, 0), (0.5, 0.3, 0.2), (0.5, 0.3, 0.2)], {"reuse": 9}
    )
    assert ran == [2, 3, 1]
    assert found[1] == pytest.approx(0.5 * base(1) + 0.3 * tuned(1) - 0.2)


def test_reuse_is_exact_where_the_difference_is_constant():
    models = Functions(base, lambda s: base(s) - 1.25)
    found, ran = blended(models, [two(g) for g in GS], {"reuse": 100})
    assert found == pytest.approx([base(s) - 1.25 * g for s, g in enumerate(GS)], abs=1e-12)
    assert ran == [2] + [1] * 7


def refreshed(difference, count=12, **savings):
    _, ran = blended(Functions(base, lambda s: base(s) + difference(s)), [two(0.5)] * count, savings)
    return [s for s, n in enumerate(ran) if n == 2]


def test_the_interval_follows_the_drift():
    assert refreshed(lambda s: 1.0, reuse=4, drift=0.1) == [0, 1, 5, 9]
    assert refreshed(lambda s: (-1.0) ** s, reuse=4, drift=0.1) == list(range(12))
    assert refreshed(lambda s: 2.0**s, reuse=4, drift=0.6) == [0, *range(1, 12)]
    assert refreshed(lambda s: 2.0**s, reuse=4, drift=1.01)[:4] == [0, 1, 3, 5]
    assert refreshed(lambda s: 1 + 0.1 * s, reuse=9, drift=0.3) == [0, 1, 4, 8]  # 0.3 / (0.1 / 1.1) = 3.3, then 4.2
    assert refreshed(lambda s: 1.0 if s < 6 else 4.0, reuse=3, drift=0.1) == [0, 1, 4, 7, 8, 11]


def test_every_denoiser_call_of_a_step_has_its_own_difference():
    class Turns(Functions):
        def predict(self, index, forward, call):
            turn = sum(run == (int(call[0][1]), index) for run in self.runs)
            return tuple(x + 10 * turn * index for x in super().predict(index, forward, call))

    found, _ = blended(Turns(lambda s: float(s), lambda s: s + 1.0), [two(0.5), two(0.4)], {"reuse": 2}, turns=2)
    assert found == pytest.approx([0.5, 0.5 + 5, 1 + 0.4, 1 + 0.4 * 11])


@given(
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    tolerance=st.floats(0, 0.499),
)
def test_small_weights_go_to_the_largest(weights, tolerance):
    weights = [1 - sum(weights), *weights]
    kept = _without_small(weights, tolerance)
    largest = max(range(len(weights)), key=lambda index: abs(weights[index]))
    assert sum(kept) == pytest.approx(1, abs=1e-9)
    for index, (before, after) in enumerate(zip(weights, kept, strict=True)):
        if index != largest:
            assert after in (before, 0.0) and (after == before or abs(before) <= tolerance)
            assert after == 0 or abs(before) > tolerance
    moved = sum(w for i, w in enumerate(weights) if i != largest and abs(w) <= tolerance)
    assert kept[largest] == pytest.approx(weights[largest] + moved, abs=1e-9)


def test_a_weight_of_rounding_runs_no_model():
    models = Functions(base, tuned, tuned)
    found, ran = blended(models, [[1 - (0.7 + 0.2 + 0.1), 0.7 + 0.2, 0.1]], {})
    assert ran == [2] and found == pytest.approx([tuned(0)])
    assert blended(Functions(base, tuned), [[1e-10, 1 - 1e-10]], {}) == ([tuned(0)], [1])


def follow(pipe, modules, family, savings, steps=3, arguments=None, **guidance):
    """The guided answers, those of base and tuned on the same inputs, and the guidance afterwards."""
    call = tiny.call(family, steps=steps, **(arguments or {}))
    with annealed_guidance(pipe, **guidance, savings=savings) as state, witnessed(pipe) as calls:
        tiny.images(pipe, [1, 2], **call)
    return [call.output for call in calls], [[call.asked(module) for module in modules] for call in calls], state


def test_tolerance_leaves_models_out_within_its_bound():
    pipe, modules = several("sd", TUNED)
    sizes = tiny.counted(pipe.unet)
    ours, theirs, state = follow(pipe, modules, "sd", {"tolerance": 0.05}, steps=5, schedule="power", p=3)
    gs = [u**3 for u in (0, 0.25, 0.5, 0.75, 1)]
    assert state.passes == len(sizes) == 1 + 1 + 2 + 2 + 1
    for g, prediction, (b, t) in zip(gs, ours, theirs, strict=True):
        error = (prediction - ((1 - g) * b + g * t)).abs()
        assert (error <= 0.05 * (t - b).abs() + 1e-7).all()
    assert torch.equal(ours[1], theirs[1][0]) and not close(
        ours[1], theirs[1][0] + gs[1] * (theirs[1][1] - theirs[1][0])
    )


REUSED = [
    ("sd", None, "linear", {"cap": 0.8}, 5, [1, 2, 1, 2, 1]),
    ("sd", "heun", "constant", {"w": 0.3}, 3, [2, 1, 2, 1, 2]),
    ("flux", None, "constant", {"w": 0.7}, 4, [2, 1, 2, 1]),
]


@pytest.mark.parametrize(("family", "scheduler", "schedule", "parameters", "steps", "passes"), REUSED)
def test_reuse_through_a_pipeline_is_the_loop_written_by_hand(family, scheduler, schedule, parameters, steps, passes):
    pipe, modules = several(family, TUNED, scheduler)
    ours, theirs, state = follow(pipe, modules, family, {"reuse": 2}, steps=steps, schedule=schedule, **parameters)
    difference = None
    for i, (prediction, (b, t), n) in enumerate(zip(ours, theirs, passes, strict=True)):
        g = parameters["w"] if schedule == "constant" else parameters["cap"] * i / (steps - 1)
        if n == 2:
            difference = t - b
        if difference is None:
            difference = torch.zeros_like(b)
        assert close(prediction, b + g * difference if g <= 0.5 else t - (1 - g) * difference)
    assert state.passes == sum(passes)


def test_two_calls_a_step_reuse_their_own_differences():
    pipe, modules = several("flux", TUNED)
    arguments = {"true_cfg_scale": 2.0, "negative_prompt": ["dull", "blurred"]}
    ours, theirs, state = follow(pipe, modules, "flux", {"reuse": 3}, arguments=arguments, schedule="constant", w=0.4)
    differences = [t - b for b, t in theirs[:2]]
    assert len(ours) == 6 and state.passes == 4 + 2 + 2 and not close(*differences)
    for i, (prediction, (b, _)) in enumerate(zip(ours, theirs, strict=True)):
        assert close(prediction, b + 0.4 * differences[i % 2])


def test_a_new_pipeline_call_begins_with_nothing_kept():
    pipe, modules = several("sd", TUNED)
    with annealed_guidance(pipe, "constant", w=0.4, savings={"reuse": 10}) as state:
        for seed in (1, 5):
            with witnessed(pipe) as calls:
                tiny.images(pipe, [seed], **tiny.call("sd", 1))
            b, t = (calls[0].asked(module) for module in modules)
            assert close(calls[0].output, 0.6 * b + 0.4 * t) and state.passes == 4


@pytest.mark.parametrize("count", [1, 2])
def test_a_difference_is_not_reused_for_a_batch_that_is_no_longer_doubled(count):
    def stop_guidance(pipe, step, timestep, inputs):
        if step > 0:
            return {}
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": inputs["prompt_embeds"].chunk(2)[-1]}

    pipe, modules = several("sd", TUNED)
    options = {"callback_on_step_end": stop_guidance, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with annealed_guidance(pipe, "constant", w=0.4, savings={"reuse": 10}) as state, witnessed(pipe) as calls:
        image = tiny.images(pipe, [1, 2][:count], **tiny.call("sd", count), **options)
    assert len(image) == count and state.passes == 2 + 2 + 1
    b, t = (calls[1].asked(module) for module in modules)
    assert close(calls[1].output, 0.6 * b + 0.4 * t) and len(b) == count
    assert close(calls[2].output, calls[2].asked(modules[0]) + 0.4 * (t - b))


@pytest.mark.parametrize(("family", "w"), [("sd", 0.3), ("sd", 0.7), ("sd3", 0.7), ("pixart", 0.3)])
def test_the_unconditional_half_is_that_of_the_model_with_the_larger_weight(family, w):
    pipe, modules = several(family, TUNED)
    ours, theirs, state = follow(pipe, modules, family, {"share_unconditional": True}, schedule="constant", w=w)
    for i, (prediction, (b, t)) in enumerate(zip(ours, theirs, strict=True)):
        expected = (1 - w) * b + w * t
        if i:  # at the first call the number of images is not known yet
            expected[:2] = (b if w < 0.5 else t)[:2]
        assert len(b) == 4 and close(prediction, expected)
        assert not i or not close(prediction, (1 - w) * b + w * t)
    assert state.passes == 2 + 1.5 + 1.5


def test_sharing_is_refused_where_guidance_is_no_doubled_batch():
    for family, arguments in [("flux", {"true_cfg_scale": 2.0, "negative_prompt": "dull"}), ("z-image", {})]:
        pipe = tiny.shared(family, lora=True)
        options = {"schedule": "constant", "w": 0.5, "savings": {"share_unconditional": True}}
        with annealed_guidance(pipe, **options), pytest.raises(ValueError, match="one doubled batch of tensors"):
            tiny.images(pipe, [1, 2], **tiny.call(family), **arguments)
    with annealed_guidance(tiny.shared("flux", lora=True), **options) as state:
        tiny.images(tiny.shared("flux", lora=True), [1, 2], **tiny.call("flux"))
    assert state.passes == 6


@pytest.mark.parametrize("scale", [1.2, 7.5])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_halves_are_told_apart_by_what_the_scheduler_was_given(scale, sign):
    """Once per run and at any guidance scale, also where the pipeline turns the sign and drops channels (Lumina)."""
    generator = torch.Generator().manual_seed(0)
    without, given = torch.randn(2, 2, 8, 4, 4, generator=generator)
    seen = sign * (without + scale * (given - without))[:, :4]

    def second_step(first):
        blender = Blender(Functions(base, tuned), Savings(share_unconditional=True))
        blender.models.predict = lambda index, forward, call: (first[:: len(first) // len(call[0][0])],)
        for position, last in enumerate((None, seen)):
            blender.predict(two(0.5), None, ((first, position), {}), Place(position, 0, last))
        return blender.passes

    assert second_step(torch.cat([without, given])) == 2 + 1.5
    with pytest.raises(ValueError, match="puts the unconditional rows first"):
        second_step(torch.cat([given, without]))


def test_sharing_is_refused_where_the_prompts_come_first():
    pipe = tiny.shared("lumina", lora=True)
    options = {"schedule": "constant", "w": 0.4, "savings": {"share_unconditional": True}}
    with annealed_guidance(pipe, **options), pytest.raises(ValueError, match="puts the unconditional rows first"):
        tiny.images(pipe, [1, 2], **tiny.call("lumina"))


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "z-image"])
def test_one_forward_gives_what_two_passes_give(family):
    pipe = tiny.shared(family, lora=True)
    call, images = tiny.call(family), []
    sizes = tiny.counted(denoiser(pipe))
    for one_forward in (False, True):
        sizes.clear()
        with annealed_guidance(pipe, "constant", w=0.4, savings={"one_forward": one_forward}) as state:
            images.append(tiny.images(pipe, [1, 2], **call))
        assert state.passes == 6 and len(sizes) == (3 if one_forward else 6)
    assert torch.allclose(*images, rtol=0, atol=2e-5)
    with annealed_guidance(pipe, "constant", w=0.3):
        assert not torch.allclose(tiny.images(pipe, [1, 2], **call), images[0], rtol=0, atol=2e-4)


def test_one_forward_of_several_adapters():
    pipe, modules = several("sd", ("pick", "hps"))
    sizes = tiny.counted(pipe.unet)
    adapter = {"pick": 0.3, "hps": 0.4}
    ours, theirs, state = follow(
        pipe, modules, "sd", {"one_forward": True}, schedule="constant", w=1.0, adapter=adapter
    )
    assert sizes == [12] * 3 and state.passes == 9
    for prediction, (b, pick, hps) in zip(ours, theirs, strict=True):
        assert close(prediction, 0.3 * b + 0.3 * pick + 0.4 * hps)


def test_one_forward_refuses_what_peft_cannot_mix():
    styled = tiny.pipeline("sd", lora=True)
    tiny.perturbed_lora(styled, "style", seed=1)
    dora = tiny.pipeline("sd")
    add_adapter(dora, use_dora=True)
    for pipe, message in [(styled, "would switch off the adapter style: leave it out"), (dora, "DoRA")]:
        before = tiny.footprint(pipe)
        options = {"schedule": "constant", "w": 0.5, "adapter": "default", "savings": {"one_forward": True}}
        with annealed_guidance(pipe, **options), pytest.raises(ValueError, match=message):
            tiny.images(pipe, [1], **tiny.call("sd", 1))
        assert {k: v for k, v in tiny.footprint(pipe).items() if k != "pipe"} == {
            k: v for k, v in before.items() if k != "pipe"
        }


def test_all_savings_at_once():
    pipe, modules = several("sd", TUNED)
    sizes = tiny.counted(pipe.unet)
    savings = {"tolerance": 0.25, "reuse": 2, "share_unconditional": True, "one_forward": True}
    ours, theirs, state = follow(pipe, modules, "sd", savings, steps=6, schedule="linear")
    assert sizes == [4, 4, 6, 4, 4, 4] and state.passes == 6.5
    (_, t3), (b2, t2) = theirs[3], theirs[2]
    difference = t2 - b2
    difference[:2] = 0
    expected = [theirs[0][0], theirs[1][0], b2 + 0.4 * difference, t3 - 0.4 * difference, theirs[4][1], theirs[5][1]]
    for prediction, each in zip(ours, expected, strict=True):
        assert close(prediction, each)


ALL = [
    {"tolerance": 0.1},
    {"reuse": 2},
    {"reuse": 3, "drift": 0.2},
    {"share_unconditional": True},
    {"one_forward": True},
    {"reuse": 2, "share_unconditional": True, "one_forward": True},
]


@pytest.mark.parametrize("savings", ALL)
def test_nothing_is_left_behind_also_after_an_exception(savings):
    pipe = tiny.shared("sd", lora=True)
    call = tiny.call("sd", 1)
    tiny.images(pipe, [1], **call)
    before = tiny.footprint(pipe)
    hooks = [len(module._forward_pre_hooks) for module in pipe.unet.modules()]

    def fail(*_):
        raise KeyboardInterrupt

    with annealed_guidance(pipe, "constant", w=0.4, savings=savings):
        tiny.images(pipe, [1], **call)
        handle = pipe.unet.up_blocks[0].register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            tiny.images(pipe, [1], **call)
        handle.remove()
    after = tiny.footprint(pipe)
    after["denoiser"]["_forward_hooks"] = before["denoiser"]["_forward_hooks"]
    assert after == before
    assert hooks == [len(module._forward_pre_hooks) for module in pipe.unet.modules()]


def test_savings_and_an_edit_that_begins_later():
    pipe = like(diffusers.StableDiffusionImg2ImgPipeline, tiny.pipeline("sd", lora=True))
    with annealed_guidance(pipe, "constant", w=0.4, savings={"reuse": 2, "share_unconditional": True}) as state:
        tiny.images(pipe, [1], prompt="red", num_inference_steps=8, image=picture(), strength=0.5)
    assert state.passes == 2 + 1 + 1.5 + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": 0.5}, "tolerance"),
        ({"reuse": 0}, "reuse"),
        ({"drift": 0.1}, "together with reuse >= 2"),
        ({"drift": 0.0, "reuse": 2}, "share > 0"),
    ],
)
def test_wrong_savings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Savings(**fields)


def test_a_description_holds_what_differs_from_the_default():
    assert Savings().to_dict() == {}
    for fields in ALL:
        assert Savings(**fields).to_dict() == fields and Savings(**Savings(**fields).to_dict()) == Savings(**fields)


@pytest.mark.parametrize("savings", [{"reuse": 2}, {"share_unconditional": True}])
def test_a_step_that_depends_on_earlier_ones_is_not_replayed_alone(savings):
    pipe = tiny.shared("sd", lora=True)
    with annealed_guidance(pipe, "constant", w=0.5, savings=savings):
        recorded = rollout(pipe, seeds=[1, 2], record=True, **tiny.call("sd"))
        with pytest.raises(RuntimeError, match="replay without them"):
            replay(pipe, recorded, 1)
