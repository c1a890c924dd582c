"""Every recorded step can be run again, bit for bit, whatever the scheduler keeps between steps."""

import pytest
import torch

from sfumato.pipelines.adapters import base_weights, denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.patching import patched
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny

CASES = [
    *(("sd", name) for name in tiny.SCHEDULERS if not name.startswith("flow")),
    ("sdxl", "euler-ancestral"),
    ("sdxl", "heun"),
    *((family, name) for family in ("sd3", "flux") for name in ("flow", "flow-stochastic")),
    ("pixart", "dpm++2m"),
    ("pixart", "pndm"),
]


def recorded(family, scheduler, last_steps=0, steps=4):
    pipe = tiny.shared(family, lora=True, scheduler=scheduler)
    arguments = tiny.call(family, steps=steps)
    if family in ("sd", "sdxl", "pixart"):
        arguments |= tiny.SCHEDULERS[scheduler][2]
    return pipe, rollout(pipe, seeds=[7, 8], record=True, last_steps=last_steps, **arguments)


def mismatches(pipe, result, grad=False):
    """The steps whose replay differs from the recording in any bit.

    From the last to the first, lest one replay build up the history that the next one needs.
    """
    found = []
    for step in reversed(result.steps):
        again = replay(pipe, result, step.index, grad=grad)
        same = [
            torch.equal(getattr(again, name), getattr(step, name)) for name in ("sample", "prediction", "next_sample")
        ]
        if not all(same):
            found.append(step.index)
    return found


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_every_step_replays_bit_for_bit(family, scheduler):
    pipe, result = recorded(family, scheduler)
    assert len(result.steps) == len(pipe.scheduler.timesteps) >= 4
    assert [step.index for step in result.steps] == list(range(len(result.steps)))
    for before, after in zip(result.steps, result.steps[1:], strict=False):
        assert torch.equal(before.next_sample, after.sample)
    footprint = tiny.footprint(pipe)
    assert mismatches(pipe, result) == []
    assert mismatches(pipe, result, grad=True) == []
    assert tiny.footprint(pipe) == footprint


@pytest.mark.parametrize("scheduler", tiny.WITH_HISTORY)
def test_replay_fails_where_the_schedulers_state_is_not_put_back(scheduler, monkeypatch):
    pipe, result = recorded("sd", scheduler)
    monkeypatch.setattr("sfumato.pipelines.recording.restore", lambda scheduler, state: None)
    try:
        wrong = mismatches(pipe, result)
    except (IndexError, TypeError, ValueError):
        return
    assert wrong


@pytest.mark.parametrize("scheduler", tiny.STOCHASTIC)
def test_replay_fails_where_the_noise_is_not_put_back(scheduler):
    family = "sd3" if scheduler.startswith("flow") else "sd"
    pipe, result = recorded(family, scheduler)
    for step in result.steps:
        step.noise[0].copy_(torch.Generator("cpu").manual_seed(99).get_state())
    again = replay(pipe, result, 1)
    assert torch.equal(again.prediction, result.steps[1].prediction)
    assert not torch.equal(again.next_sample[0], result.steps[1].next_sample[0])
    assert torch.equal(again.next_sample[1], result.steps[1].next_sample[1])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_steps_replay_in_any_order_after_other_calls(family):
    pipe = tiny.shared(family, lora=True)
    result = rollout(pipe, seeds=[7, 8], record=True, **tiny.call(family, steps=3))
    rollout(pipe, seeds=[1], **tiny.call(family, count=1, steps=5))
    for index in (2, 0, -2, 2):
        assert torch.equal(replay(pipe, result, index).next_sample, result.steps[index].next_sample)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_replayed_step_carries_the_gradient_of_that_step_alone(family):
    pipe = tiny.shared(family, lora=True)
    result = rollout(pipe, seeds=[7, 8], record=True, last_steps=1, **tiny.call(family, steps=3))
    parameters = [p for p in denoiser(pipe).parameters() if p.requires_grad]
    weight = torch.randn(result.steps[-1].prediction.shape)
    options = {"retain_graph": True, "allow_unused": True}
    expected = torch.autograd.grad((result.steps[-1].prediction * weight).sum(), parameters, **options)
    again = replay(pipe, result, 2, grad=True)
    found = torch.autograd.grad((again.prediction * weight).sum(), parameters, **options)
    assert any(gradient is not None and gradient.any() for gradient in found)
    for a, b in zip(expected, found, strict=True):
        assert a is b is None or torch.equal(a, b)
    assert not replay(pipe, result, 2).prediction.requires_grad
    assert not again.sample.requires_grad


def test_the_recorded_prediction_is_the_one_after_classifier_free_guidance():
    pipe = tiny.shared("sd", lora=True)
    arguments = tiny.call("sd", steps=2, guidance_scale=3.0)
    step = rollout(pipe, seeds=[7, 8], record=True, **arguments).steps[1]
    embedded = tiny.embedded(pipe, "sd", arguments)
    with torch.no_grad():
        without, given = (
            pipe.unet(step.sample, step.timestep, encoder_hidden_states=embedded[name]).sample
            for name in ("negative_prompt_embeds", "prompt_embeds")
        )
    assert torch.allclose(step.prediction, without + 3.0 * (given - without), atol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_replay_under_base_weights_gives_the_base_models_prediction_there(family):
    pipe, bare = tiny.shared(family, lora=True), tiny.shared(family)
    arguments = tiny.call(family, steps=3)
    result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    with base_weights(pipe):
        base = [replay(pipe, result, i).prediction for i in range(3)]
    for i in range(3):
        assert torch.equal(base[i], replay(bare, result, i).prediction)
        assert not torch.equal(base[i], result.steps[i].prediction)
    assert mismatches(pipe, result) == []


@pytest.mark.parametrize(("family", "scheduler"), [("sd", "ddim"), ("sd", "heun"), ("sd", "pndm"), ("flux", "flow")])
@pytest.mark.parametrize("on_while_recording", [True, False])
def test_guidances_clock_follows_the_replayed_step(family, scheduler, on_while_recording):
    pipe, bare = tiny.shared(family, lora=True, scheduler=scheduler), tiny.shared(family, scheduler=scheduler)
    arguments = tiny.call(family, steps=3)
    if not on_while_recording:
        result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    seen = []
    with annealed_guidance(pipe, lambda u: seen.append(u) or u):
        if on_while_recording:
            result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
            expected = list(seen)
            assert mismatches(pipe, result) == []
        else:
            rollout(pipe, seeds=[7, 8], **arguments)
            expected = list(seen)
            replay(pipe, result, -1)
        seen.clear()
        for i in (3, 1, 2, 0)[-len(expected) :]:
            replay(pipe, result, i)
        assert seen == [expected[i] for i in (3, 1, 2, 0)[-len(expected) :]]
        first = replay(pipe, result, 0).prediction
    assert torch.equal(first, replay(bare, result, 0).prediction)
    assert not any(name.startswith("_sfumato") for name in vars(pipe.scheduler))


def test_an_exception_in_a_replay_leaves_nothing_behind():
    pipe, result = recorded("sd", "pndm", last_steps=1)
    before, state = tiny.footprint(pipe), dict(vars(pipe.scheduler))

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    with patched(pipe.unet, "forward", broken), pytest.raises(ZeroDivisionError):
        replay(pipe, result, 1, grad=True)
    assert tiny.footprint(pipe) == before
    assert state["num_inference_steps"] == pipe.scheduler.num_inference_steps
    assert torch.equal(state["timesteps"], pipe.scheduler.timesteps)
    assert mismatches(pipe, result) == []


def test_a_rollout_without_recording_cannot_be_replayed():
    pipe = tiny.shared("sd")
    with pytest.raises(ValueError, match="record=True"):
        replay(pipe, rollout(pipe, seeds=[1], **tiny.call("sd", count=1)), 0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_step_runs_from_another_sample(family):
    pipe, other = tiny.shared(family, lora=True), tiny.call(family, steps=3)
    result, elsewhere = (rollout(pipe, seeds=seeds, record=True, **other) for seeds in ([7, 8], [5, 6]))
    step = elsewhere.steps[1]
    moved = replay(pipe, result, 1, sample=step.sample)
    assert torch.equal(moved.prediction, step.prediction) and torch.equal(moved.sample, step.sample)
    assert not torch.equal(moved.prediction, result.steps[1].prediction)
    assert mismatches(pipe, result) == []
    sample = step.sample.clone().requires_grad_()
    replay(pipe, result, 1, grad=True, sample=sample).prediction.sum().backward()
    assert sample.grad.abs().max() > 0


def test_a_step_runs_with_other_arguments():
    pipe = tiny.shared("sd", lora=True)
    arguments = tiny.call("sd", steps=2, guidance_scale=3.0)
    result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    sizes = tiny.counted(pipe.unet)
    alone = replay(pipe, result, 1, guidance_scale=1.0)
    embedded = tiny.embedded(pipe, "sd", arguments)["prompt_embeds"]
    with torch.no_grad():
        expected = pipe.unet(alone.sample, alone.timestep, encoder_hidden_states=embedded).sample
    assert torch.allclose(alone.prediction, expected, atol=1e-6)
    assert sizes[0] == 2
    swapped = replay(pipe, result, 1, prompt=arguments["prompt"][::-1], sample=alone.sample.flip(0))
    assert torch.allclose(swapped.prediction.flip(0), result.steps[1].prediction, atol=1e-5)
    with pytest.raises(ValueError, match="prompt has 1 rows for 2 seeds"):
        replay(pipe, result, 1, prompt=["cat"])
