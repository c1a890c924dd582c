"""The flow SDE on flow-matching pipelines: its formula, its window, its seeds, and that it leaves nothing behind."""

import diffusers
import pytest
import torch

from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from sfumato.pipelines.sde import flow_sde
from sfumato.pipelines.stochastic import (
    log_prob,
    noise_of,
    planned_stochastic_steps,
    step_mean,
    step_std,
    stochastic_steps,
)
from tests import tiny

FAMILIES = ("sd3", "flux")
STEPS = 4


def sampled(family, seeds=(7, 8), **arguments):
    pipe = tiny.shared(family, lora=True)
    call = {**tiny.call(family, count=len(seeds), steps=STEPS), **arguments}
    return pipe, rollout(pipe, seeds=list(seeds), record=True, **call)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_follow_the_formula_and_the_first_pass_has_ratio_one(family):
    pipe = tiny.shared(family, lora=True)
    with flow_sde(pipe, noise_level=0.7):
        _, result = sampled(family)
        places = stochastic_steps(pipe, result)
        assert places == [0, 1, 2]
        for place in reversed(places):
            step, again = result.steps[place], replay(pipe, result, place, grad=True)
            assert torch.equal(again.next_sample, step.next_sample)
            x, v = step.sample.double(), step.prediction.double()
            now, after = pipe.scheduler.sigmas[place : place + 2].double()
            s, dt = 0.7 * (now / (1 - (after if now == 1 else now))) ** 0.5, after - now
            expected = x + (v + s**2 / (2 * now) * (x + (1 - now) * v)) * dt
            std = step_std(pipe, step)
            torch.testing.assert_close(step_mean(pipe, step, v), expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(std.double(), s * (-dt) ** 0.5, rtol=1e-6, atol=0)
            z = (step.next_sample - step_mean(pipe, step, step.prediction)) / std
            torch.testing.assert_close(z, noise_of(pipe, step), rtol=0, atol=1e-5)
            old, new = (
                log_prob(step.next_sample, step_mean(pipe, step, p), std) for p in (step.prediction, again.prediction)
            )
            assert torch.equal((new - old).exp(), torch.ones(2).double()) and new.requires_grad
    assert stochastic_steps(*sampled(family)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_and_outside_the_window_it_is_the_ode_bit_for_bit(family):
    pipe, ode = sampled(family)
    with flow_sde(pipe, noise_level=0.0):
        assert torch.equal(sampled(family)[1].images, ode.images)
    with flow_sde(pipe, window=(1, 3)):
        _, result = sampled(family)
        assert stochastic_steps(pipe, result) == [1, 2]
        assert torch.equal(result.steps[0].next_sample, ode.steps[0].next_sample)
        last = result.steps[3]
    with flow_sde(pipe, noise_level=0.0):
        assert torch.equal(replay(pipe, result, 3).next_sample, last.next_sample)
    assert torch.equal(replay(pipe, result, 3).next_sample, last.next_sample)


def test_the_last_step_is_stochastic_only_if_the_window_reaches_it():
    pipe = tiny.shared("sd3", lora=True)
    one = tiny.call("sd3", count=1, steps=STEPS)
    with flow_sde(pipe):
        assert planned_stochastic_steps(pipe, **one) == [0, 1, 2]
    with flow_sde(pipe, window=(2, 4)):
        assert planned_stochastic_steps(pipe, **one) == [2, 3]
        assert stochastic_steps(*sampled("sd3")) == [2, 3]
    with flow_sde(pipe, window=(2, 5)), pytest.raises(ValueError, match="beyond the 4 steps"):
        sampled("sd3")
    with pytest.raises(ValueError, match=r"draws no noise.*flow_sde"):
        planned_stochastic_steps(pipe, **one)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_depends_on_prompt_and_seed_alone(family):
    pipe = tiny.shared(family, lora=True)
    prompt = tiny.call(family, count=3)["prompt"]
    with flow_sde(pipe):
        _, together = sampled(family, (1, 2, 3))
        torch.manual_seed(5)
        before = torch.get_rng_state()
        _, fewer = sampled(family, (3, 1), prompt=[prompt[2], prompt[0]])
        assert torch.equal(torch.get_rng_state(), before)
        assert (fewer.images - together.images[[2, 0]]).abs().max() <= 1 / 255
        _, other = sampled(family, (3, 4), prompt=[prompt[2], prompt[0]])
        assert not torch.equal(other.steps[1].sample[1], fewer.steps[1].sample[1])


def test_it_works_beneath_and_above_guidance():
    pipe = tiny.shared("sd3", lora=True)
    with flow_sde(pipe):
        _, plain = sampled("sd3")
        with annealed_guidance(pipe, "tuned"):
            _, beneath = sampled("sd3")
            assert torch.equal(replay(pipe, beneath, 1).next_sample, beneath.steps[1].next_sample)
    with annealed_guidance(pipe, "tuned"), flow_sde(pipe):
        _, above = sampled("sd3")
        assert stochastic_steps(pipe, above) == [0, 1, 2]
    assert torch.equal(plain.images, beneath.images) and torch.equal(plain.images, above.images)


def test_nothing_is_left_behind_after_an_exception():
    pipe = tiny.pipeline("flux", lora=True)
    rollout(pipe, seeds=[1], **tiny.call("flux", count=1))
    before = tiny.footprint(pipe)
    with pytest.raises(ZeroDivisionError), flow_sde(pipe):
        rollout(pipe, seeds=[1], **tiny.call("flux", count=1))
        raise ZeroDivisionError
    assert tiny.footprint(pipe) == before


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        diffusers.FlowMatchHeunDiscreteScheduler(),
        diffusers.FlowMatchLCMScheduler(),
        diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        diffusers.EulerDiscreteScheduler(),
        diffusers.DDIMScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_other_schedulers_are_refused(scheduler):
    pipe = tiny.pipeline("sd3")
    pipe.scheduler = scheduler
    with (
        pytest.raises(ValueError, match=rf"{type(scheduler).__name__} .*FlowMatchEulerDiscreteScheduler"),
        flow_sde(pipe),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_level": -0.1}, "noise_level is a number >= 0, not -0.1"),
        ({"noise_level": float("nan")}, "noise_level"),
        ({"window": (2, 2)}, r"0 <= i < j, not \(2, 2\)"),
        ({"window": (-1, 2)}, "window"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message), flow_sde(tiny.shared("sd3"), **arguments):
        pass


def test_a_context_inside_another_is_refused_since_it_would_draw_noise_twice():
    pipe = tiny.shared("sd3", lora=True)
    with flow_sde(pipe):
        with pytest.raises(ValueError, match="at work on this pipeline already"), flow_sde(pipe):
            pass
        sampled("sd3")
    with flow_sde(pipe):
        sampled("sd3")
