"""Blends of several adapters, of full checkpoints and in weight space, against models that are mixed by hand."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload
from torch.multiprocessing.reductions import StorageWeakRef

from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import rollout
from sfumato.schedules import schedule
from tests import tiny
from tests.pipelines.witness import close, several, witnessed


def answers(calls, modules):
    """(denoiser call, model) -> what each separate model answers there."""
    return [[call.asked(module) for module in modules] for call in calls]


def follow(pipe, modules, family="sd", steps=3, **guidance):
    """The guided denoiser's answers, those of the separate models, and the passes it took."""
    with annealed_guidance(pipe, **guidance) as state, witnessed(pipe) as calls:
        tiny.images(pipe, [1, 2], **tiny.call(family, steps=steps))
    return [call.output for call in calls], answers(calls, modules), state.passes


@pytest.mark.parametrize(("family", "weights"), [("sd", (0.7, 0.5)), ("flux", (0.3, -0.2)), ("sd", (0.2, 0.3, 0.4))])
def test_several_adapters_are_mixed_by_their_weights(family, weights):
    names = ["pick", "hps", "third"][: len(weights)]
    pipe, modules = several(family, tuple(names))
    ours, theirs, passes = follow(
        pipe, modules, family, schedule="linear", adapter=dict(zip(names, weights, strict=True))
    )
    for u, prediction, (base, *tuned) in zip((0.0, 0.5, 1.0), ours, theirs, strict=True):
        expected = base + sum(u * w * (each - base) for w, each in zip(weights, tuned, strict=True))
        assert close(prediction, expected)
        assert u == 0 or not close(prediction, base + u * weights[0] * (tuned[0] - base))
    assert passes == 1 + 2 * (1 + len(weights))


def test_diffusion_blend_does_not_run_the_base():
    pipe, modules = several("sd", ("pick", "hps"))
    sizes = tiny.counted(pipe.unet)
    options = {"schedule": "constant", "w": 1.0, "adapter": {"pick": 0.3, "hps": 0.7}}
    ours, theirs, passes = follow(pipe, modules, **options)
    assert len(sizes) == passes == 6
    for prediction, (_, pick, hps) in zip(ours, theirs, strict=True):
        assert close(prediction, 0.3 * pick + 0.7 * hps)


@pytest.mark.parametrize("as_dict", [False, True])
def test_every_adapter_may_have_a_schedule_of_its_own(as_dict):
    pipe, modules = several("sd", ("pick", "hps", "third"))
    own = {"pick": schedule("falling", p=2), "hps": schedule("power", p=3, cap=0.5)}
    adapter = {name: s.to_dict() if as_dict else s for name, s in own.items()} | {"third": 0.5}
    ours, theirs, passes = follow(pipe, modules, schedule="linear", adapter=adapter)
    for u, prediction, (base, pick, hps, third) in zip((0.0, 0.5, 1.0), ours, theirs, strict=True):
        g = (1 - u) ** 2, 0.5 * u**3, 0.5 * u
        expected = (1 - sum(g)) * base + g[0] * pick + g[1] * hps + g[2] * third
        assert close(prediction, expected)
    assert passes == 1 + 4 + 2  # at the end the two that are on sum to 1, so that the base is not run


def test_two_schedules_that_sum_to_1_hand_over_from_one_adapter_to_the_other():
    pipe, modules = several("sd", ("pick", "hps"))
    adapter = {"pick": schedule("falling", p=1), "hps": schedule("linear")}
    ours, theirs, passes = follow(pipe, modules, schedule="tuned", adapter=adapter)
    assert torch.equal(ours[0], theirs[0][1]) and torch.equal(ours[2], theirs[2][2])
    assert close(ours[1], (theirs[1][1] + theirs[1][2]) / 2) and passes == 4


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_rewarded_soup_is_what_set_adapters_makes(family):
    pipe, _ = several(family, ("pick", "hps"))
    call = tiny.call(family)
    for weights in [(0.4, 0.6), (0.0, 1.5)]:
        adapter = dict(zip(("pick", "hps"), weights, strict=True))
        with annealed_guidance(pipe, "constant", w=1.0, adapter=adapter, blend="weights") as state:
            soup = tiny.images(pipe, [1, 2], **call)
            assert state.passes == 3
        pipe.set_adapters(["pick", "hps"], list(weights))
        assert torch.equal(tiny.images(pipe, [1, 2], **call), soup)
        pipe.set_adapters(["pick", "hps"], [1.0, 1.0])
    assert not torch.equal(tiny.images(pipe, [1, 2], **call), soup)


def checkpoint(seed=5):
    pipe = tiny.pipeline("sd")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    return pipe


def test_weights_of_full_checkpoints_are_those_of_a_model_interpolated_by_hand():
    pipe, bare, by_hand = checkpoint(), tiny.shared("sd"), tiny.pipeline("sd")
    where = [parameter.data_ptr() for parameter in pipe.unet.parameters()]
    for base in (bare, bare.unet):
        with annealed_guidance(pipe, "linear", cap=1.5, base=base, blend="weights") as state, witnessed(pipe) as calls:
            tiny.images(pipe, [1, 2], **tiny.call("sd"))
        assert state.passes == len(calls) == 3
        for call, g in zip(calls, (0.0, 0.75, 1.5), strict=True):
            tuned, theirs = pipe.unet.state_dict(), bare.unet.state_dict()
            by_hand.unet.load_state_dict({name: (1 - g) * theirs[name] + g * tuned[name] for name in tuned})
            assert torch.allclose(call.output, call.asked(by_hand.unet), rtol=1e-4, atol=1e-5)
        assert where == [parameter.data_ptr() for parameter in pipe.unet.parameters()]


def test_interpolated_weights_are_taken_away_after_an_exception_and_freed():
    pipe, bare = checkpoint(), tiny.pipeline("sd")
    expected = copy.deepcopy(pipe.unet.state_dict())
    where = [parameter.data_ptr() for parameter in pipe.unet.parameters()]
    before, seen, copies = tiny.footprint(pipe), [], []

    def stop(*_):
        seen.append(pipe.unet.conv_in.weight.data_ptr() in where)
        copies.append(StorageWeakRef(pipe.unet.conv_in.weight.untyped_storage()))
        raise KeyboardInterrupt

    handle = pipe.unet.mid_block.register_forward_hook(stop)
    with annealed_guidance(pipe, "constant", w=0.5, base=bare, blend="weights") as state:
        with pytest.raises(KeyboardInterrupt):
            tiny.images(pipe, [1], **tiny.call("sd", 1))
        assert seen == [False] and not copies[0].expired()
        assert where == [parameter.data_ptr() for parameter in pipe.unet.parameters()]
    handle.remove()
    assert copies[0].expired() and state.passes == 1
    after = tiny.footprint(pipe)
    assert {name: value for name, value in after.items() if name not in ("pipe", "denoiser")} == {
        name: value for name, value in before.items() if name not in ("pipe", "denoiser")
    }
    assert after["denoiser"].keys() == before["denoiser"].keys()
    assert all(torch.equal(value, expected[name]) for name, value in pipe.unet.state_dict().items())


def test_blending_weights_of_full_checkpoints_refuses_what_it_would_get_wrong():
    pipe, bare, lora = checkpoint(), tiny.shared("sd"), tiny.shared("sd", lora=True)
    for tuned, base in [(lora, bare), (pipe, lora)]:
        with (
            pytest.raises(ValueError, match="knows no LoRAs: fuse them"),
            annealed_guidance(tuned, "linear", base=base, blend="weights"),
        ):
            pass
    pipe.unet.requires_grad_(True)
    with annealed_guidance(pipe, "constant", w=0.5, base=bare, blend="weights"):
        with pytest.raises(RuntimeError, match="gradient through interpolated weights"):
            rollout(pipe, seeds=[1], last_steps=1, **tiny.call("sd", 1))
        rollout(pipe, seeds=[1], **tiny.call("sd", 1))
    with annealed_guidance(pipe, "tuned", base=bare, blend="weights"):
        rollout(pipe, seeds=[1], last_steps=1, **tiny.call("sd", 1)).images.sum().backward()


def test_autoguidance_pushes_away_from_the_base():
    pipe, modules = several("sd", ("tuned",))
    ours, theirs, passes = follow(pipe, modules, schedule="autoguidance", w=0.6)
    for prediction, (bad, good) in zip(ours, theirs, strict=True):
        assert close(prediction, good + 0.6 * (good - bad))
    assert passes == 6


def logistic(x):
    return 1 / (1 + math.exp(-x))


U = (0.0, 1 / 3, 2 / 3, 1.0)
FORMULAS = [
    ({"schedule": "cosine"}, [math.sin(math.pi * u / 2) ** 2 for u in U]),
    (
        {"schedule": "sigmoid", "k": 6.0, "m": 0.4},
        [(logistic(6 * (u - 0.4)) - logistic(-2.4)) / (logistic(3.6) - logistic(-2.4)) for u in U],
    ),
    ({"schedule": "falling", "p": 2, "cap": 0.5}, [0.5, 2 / 9, 1 / 18, 0.0]),
    ({"schedule": "table", "points": [[0, 0.2], [0.5, 1.0], [1, 0.4]]}, [0.2, 0.2 + 1.6 / 3, 0.8, 0.4]),
]


@pytest.mark.parametrize(("guidance", "weights"), FORMULAS, ids=lambda x: x["schedule"] if isinstance(x, dict) else "")
def test_every_formula_through_a_pipeline(guidance, weights):
    pipe, modules = several("sd", ("tuned",))
    ours, theirs, passes = follow(pipe, modules, steps=4, **guidance)
    for prediction, g, (base, tuned) in zip(ours, weights, theirs, strict=True):
        assert close(prediction, (1 - g) * base + g * tuned)
    assert passes == sum(1 if min(g, 1 - g) < 1e-12 else 2 for g in weights)


DESCRIBED = [
    {"schedule": "power", "p": 2, "cap": 0.7, "clock": "sigma"},
    {"schedule": "linear", "adapter": "pick"},
    {"schedule": "constant", "w": 1.0, "adapter": {"pick": 0.3, "hps": 0.7}, "blend": "weights"},
    {
        "schedule": "table",
        "points": [[0, 0.4], [0.6, 0.7], [1, 1]],
        "adapter": {"pick": schedule("sigmoid", k=8, m=0.4, clock="logsnr"), "hps": 0.5},
        "savings": {"reuse": 2, "tolerance": 0.05},
    },
]


@pytest.mark.parametrize("guidance", DESCRIBED)
def test_a_description_read_back_from_json_makes_the_same_images(guidance):
    pipe, _ = several("sd", ("pick", "hps") if "adapter" in guidance else ("tuned",))
    call = tiny.call("sd", 1, steps=4)
    tuned = tiny.images(pipe, [1], **call)
    with annealed_guidance(pipe, **guidance) as state:
        expected = tiny.images(pipe, [1], **call)
    described = json.loads(json.dumps(state.to_dict()))
    with annealed_guidance(pipe, **described) as again:
        assert torch.equal(tiny.images(pipe, [1], **call), expected)
    assert again.to_dict() == described and again.passes == state.passes
    assert not torch.equal(expected, tuned)


def test_what_cannot_be_described_says_so():
    pipe = tiny.shared("sd", lora=True)
    refused = [
        (annealed_guidance(pipe, lambda u: u), "callable cannot be written"),
        (annealed_guidance(pipe, "linear", adapter={"default": schedule(math.sin)}), "callable cannot be written"),
        (annealed_guidance(checkpoint(), "linear", base=tiny.shared("sd")), "second model as base= cannot be written"),
    ]
    for context, message in refused:
        with context as state, pytest.raises(ValueError, match=message):
            state.to_dict()


@pytest.mark.parametrize("weight", [math.nan, math.inf, "half", None])
def test_weights_of_adapters_are_finite_numbers(weight):
    with pytest.raises(ValueError, match="takes a number, by which the schedule is multiplied, or a Schedule"):
        annealed_guidance(tiny.shared("sd", lora=True), "linear", adapter={"default": weight}).__enter__()


def test_a_base_on_another_device_is_streamed_and_comes_back(monkeypatch):
    """Without an accelerator: inputs are said to lie on "cpu:0", another device than "cpu", and are sent to "cpu"."""
    pipe, bare = checkpoint(), tiny.pipeline("sd")
    call = tiny.call("sd")
    with annealed_guidance(pipe, "linear", base=bare):
        expected = tiny.images(pipe, [1, 2], **call)
    weights, before = copy.deepcopy(bare.unet.state_dict()), tiny.footprint(bare)
    elsewhere, asked = torch.device("cpu:0"), []

    def offload(module, execution_device):
        asked.append(execution_device)
        return cpu_offload(module, torch.device("cpu"))

    monkeypatch.setattr("sfumato.pipelines.models.leaves", lambda call: [SimpleNamespace(device=elsewhere)])
    monkeypatch.setattr("accelerate.cpu_offload", offload)
    with annealed_guidance(pipe, "linear", base=bare) as state:
        assert not asked
        for _ in range(2):
            assert torch.equal(tiny.images(pipe, [1, 2], **call), expected)
        assert asked == [elsewhere] and state.passes == 4
        assert {parameter.device.type for parameter in bare.unet.parameters()} == {"meta"}
        assert not any(hasattr(module, "_hf_hook") for module in pipe.unet.modules())
    assert not any(hasattr(module, "_hf_hook") for module in bare.unet.modules())
    assert all(torch.equal(value, weights[name]) for name, value in bare.unet.state_dict().items())
    assert tiny.footprint(bare)["requires_grad"] == before["requires_grad"]
