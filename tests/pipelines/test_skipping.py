"""Sampling in which the denoiser is not run in every step."""

import pytest
import torch
from diffusers import PNDMScheduler

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.skipping import denoised_every
from sfumato.pipelines.trees import leaves
from tests import tiny

STEPS = 6


def watched(pipe, family, every, steps=STEPS, **arguments):
    """Images, what each denoiser call gave, the timesteps, and in which calls the denoiser was run."""
    given, run = [], []
    module = denoiser(pipe)
    forward = module.forward

    def counted(*args, **kwargs):
        run.append(len(given))
        return forward(*args, **kwargs)

    hook = module.register_forward_hook(lambda m, inputs, output: given.append(leaves(output)[0].clone()))
    module.forward = counted
    try:
        with denoised_every(pipe, every):
            images = rollout(pipe, seeds=[1, 2], **{**tiny.call(family, steps=steps), **arguments}).images
    finally:
        hook.remove()
        del module.forward
    return images, given, pipe.scheduler.timesteps.tolist(), run


@pytest.mark.parametrize(("every", "wanted"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 1, 3, 5]), (3, [0, 1, 4])])
@pytest.mark.parametrize("family", ["sd", "sd3", "pixart", "flux"])
def test_predictions_go_on_in_a_line(family, every, wanted):
    _, given, times, run = watched(tiny.shared(family), family, every)
    assert run == wanted
    for i, found in enumerate(given):
        if i not in run:
            before, last = [place for place in run if place < i][-2:]
            slope = (given[last] - given[before]) / (times[last] - times[before])
            torch.testing.assert_close(found, given[last] + slope * (times[i] - times[last]), rtol=1e-4, atol=1e-5)


def test_a_prediction_that_is_linear_in_time_is_foreseen_exactly():
    pipe = tiny.pipeline("sd")

    def linear(sample, timestep, **kwargs):
        return (torch.ones_like(sample) * (0.3 - timestep / 1000),)

    denoiser(pipe).forward = linear
    plain = rollout(pipe, seeds=[1, 2], **tiny.call("sd", steps=STEPS)).images
    images, *_, run = watched(pipe, "sd", 2)
    assert run == [0, 1, 3, 5]
    torch.testing.assert_close(images, plain, rtol=0, atol=1e-5)


def test_images_come_nearer_the_more_often_it_is_run():
    pipe = tiny.shared("sd")
    plain = rollout(pipe, seeds=[1, 2], **tiny.call("sd", steps=12)).images
    errors = [(watched(pipe, "sd", every, steps=12)[0] - plain).abs().mean() for every in (1, 2, 4)]
    assert errors[0] == 0 < errors[1] < errors[2] < 0.1


@pytest.mark.parametrize(("family", "arguments"), [("sd", {"eta": 1.0}), ("sd3", {})], ids=["DDIM", "stochastic Euler"])
def test_stochastic_steps_are_all_run(family, arguments):
    pipe = tiny.pipeline(family)
    if family == "sd3":
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, stochastic_sampling=True)
    plain = rollout(pipe, seeds=[1, 2], **tiny.call(family, steps=STEPS), **arguments).images
    images, *_, run = watched(pipe, family, 2, **arguments)
    assert run == list(range(STEPS))
    assert torch.equal(images, plain)


def test_two_calls_a_step_are_foreseen_by_themselves():
    pipe = tiny.shared("flux")
    _, given, _, run = watched(pipe, "flux", 2, true_cfg_scale=2.0, negative_prompt="dull")
    assert run == [0, 1, 2, 3, 6, 7, 10, 11] and len(given) == 2 * STEPS


def test_other_inputs_are_not_foreseen():
    """Where a pipeline stops classifier-free guidance on the way, its batch is half as large from then on."""
    pipe = tiny.shared("sd")

    def stop(pipe, index, timestep, tensors):
        if index == 2:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    tensors = {"callback_on_step_end": stop, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    _, given, _, run = watched(pipe, "sd", 2, **tensors)
    assert [len(prediction) for prediction in given] == [4, 4, 4, 2, 2, 2]
    assert run == [0, 1, 3, 4]


def test_a_repeated_timestep_is_given_what_it_had():
    pipe = tiny.pipeline("sd")
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    _, given, times, run = watched(pipe, "sd", 2)
    assert times[1] == times[2] and 2 not in run
    assert torch.equal(given[2], given[1])


def test_nothing_is_left_behind_also_after_an_exception():
    pipe = tiny.pipeline("sd")
    before = tiny.footprint(pipe)
    with pytest.raises(RuntimeError, match="stop"), denoised_every(pipe, 2):
        assert tiny.footprint(pipe) != before
        raise RuntimeError("stop")
    assert tiny.footprint(pipe) == before
