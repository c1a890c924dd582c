"""A rollout continued from one of its steps, or stopped early with a one-step prediction of its images."""

import diffusers
import pytest
import torch

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.latents import decode
from sfumato.pipelines.plan import blank_rollout
from sfumato.pipelines.predictions import noise_like, noised, predicted_original
from sfumato.pipelines.rollout import continued, replay, rollout
from tests import tiny
from tests.pipelines.differences import agrees, trained

DOUBLE, SINGLE = (2e-5, 1e-4), (1e-3, 1e-2)
"""Size of the difference and relative tolerance. Models are float64, but many schedulers round samples to float32."""
GRADIENTS = [("sd", "ddim", DOUBLE), ("sd3", "flow", SINGLE), ("flux", "flow", SINGLE)]
FOR_SD = [name for name in tiny.SCHEDULERS if not name.startswith("flow")]
CASES = [*(("sd", name) for name in FOR_SD), ("sd3", "flow-stochastic"), ("flux", "flow"), ("pixart", "dpm++2m")]


def recorded(family, scheduler=None, **options):
    pipe = tiny.shared(family, lora=True, scheduler=scheduler)
    eta = tiny.SCHEDULERS[scheduler][2] if scheduler and family == "sd" else {}
    return pipe, rollout(pipe, seeds=[7, 8], record=True, **tiny.call(family, steps=4, **eta), **options)


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_the_rest_of_a_rollout_is_the_same_bit_for_bit(family, scheduler):
    pipe, result = recorded(family, scheduler)
    before = tiny.footprint(pipe)
    for index in (-1, 2, 0):
        rest = continued(pipe, result, index, record=True, last_steps=1)
        assert torch.equal(rest.images.detach(), result.images) and rest.images.requires_grad
        steps = result.steps[index:]
        assert rest.forwards == len(steps) and [step.index for step in rest.steps] == [step.index for step in steps]
        assert all(torch.equal(a.prediction, b.prediction) for a, b in zip(rest.steps, steps, strict=True))
    assert tiny.footprint(pipe) == before
    assert torch.equal(replay(pipe, continued(pipe, result, 2, record=True), -1).sample, result.steps[-1].sample)


@pytest.mark.parametrize(
    ("family", "scheduler"), [*(("sd", name) for name in FOR_SD if name != "pndm"), ("sd3", "flow")]
)
@pytest.mark.parametrize("begin", [1, 3])
def test_another_sample_is_denoised_as_by_diffusers_image_to_image(family, scheduler, begin):
    pipe = tiny.shared(family, lora=True, scheduler=scheduler)
    arguments = tiny.call(family, steps=4, **(tiny.SCHEDULERS[scheduler][2] if family == "sd" else {}))
    clean = noise_like(torch.zeros(2, 4, 8, 8), [1, 2])
    kind = "StableDiffusion3Img2ImgPipeline" if family == "sd3" else "StableDiffusionImg2ImgPipeline"
    other = getattr(diffusers, kind)(**pipe.components)
    other.set_progress_bar_config(disable=True)
    generators = tiny.generators([7, 8])
    given = {key: value for key, value in arguments.items() if key not in ("height", "width")}
    expected = other(**given, image=clean, strength=1 - begin / 4, generator=generators, output_type="pt").images

    blank = blank_rollout(pipe, seeds=[7, 8], **arguments)
    place = blank.steps[begin]
    for state, generator in zip(place.noise, tiny.generators([7, 8]), strict=True):
        torch.randn(4, 8, 8, generator=generator)
        state.copy_(generator.get_state())
    sample = noised(pipe.scheduler, place, clean, noise_like(clean, [7, 8]))
    found = continued(pipe, blank, begin, sample=sample)
    assert found.forwards == (4 - begin) * (2 if scheduler == "heun" else 1) - (scheduler == "heun")
    assert torch.allclose(found.images, expected, rtol=0, atol=1e-5)


def test_other_arguments_hold_for_the_rest():
    pipe, result = recorded("sd")
    rest = continued(pipe, result, -1, guidance_scale=1.0)
    alone = replay(pipe, result, -1, guidance_scale=1.0)
    assert torch.equal(rest.images, decode(pipe, alone.next_sample, **result.arguments))
    assert rest.arguments["guidance_scale"] == 1.0 and "guidance_scale" not in result.arguments


@pytest.mark.parametrize(("scheduler", "index"), [("pndm", 2), ("pndm", -2), ("heun", 1)])
def test_schedulers_that_cannot_begin_there_refuse_another_sample(scheduler, index):
    pipe, result = recorded("sd", scheduler)
    sample = result.steps[index].sample
    with pytest.raises(ValueError, match=f"{type(pipe.scheduler).__name__} cannot begin with another sample at step"):
        continued(pipe, result, index, sample=sample)
    continued(pipe, result, -1, sample=sample)


@pytest.mark.parametrize(("family", "scheduler", "precision"), GRADIENTS)
def test_the_gradient_of_the_rest(family, scheduler, precision):
    """By the weights, for DRaFT-LV's last step on a new sample; and by that sample, through two steps."""
    pipe = tiny.pipeline(family, lora=True, scheduler=scheduler).to(torch.float64)
    result = rollout(pipe, seeds=[7, 8], record=True, **tiny.call(family, steps=4))
    clean, weights = result.steps[-1].next_sample, noise_like(result.images, [1, 2])
    last, early = (noised(pipe.scheduler, result.steps[i], clean, noise_like(clean, [3, 4])) for i in (-1, -2))
    early.requires_grad_()

    def loss(index, sample):
        return (continued(pipe, result, index, sample=sample, last_steps=-index).images * weights).sum()

    assert agrees(trained(pipe), lambda: loss(-1, last), *precision)
    assert agrees([early], lambda: loss(-2, early), *precision)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stopping_early_runs_no_further_and_predicts_the_image_in_one_step(family):
    pipe, result = recorded(family)
    before, sizes = tiny.footprint(pipe), tiny.counted(denoiser(pipe))
    original = predicted_original(pipe.scheduler, result.steps[1])
    expected = decode(pipe, original, **result.arguments)
    assert sizes == []
    for stop in (1, -3):
        sizes.clear()
        stopped = rollout(pipe, seeds=[7, 8], stop_at=stop, last_steps=1, **tiny.call(family, steps=4))
        assert torch.equal(stopped.images.detach(), expected) and stopped.images.requires_grad
        assert len(sizes) == stopped.forwards == 2
    assert not torch.allclose(expected, result.images, atol=1e-3)
    denoiser(pipe)._forward_pre_hooks.clear()
    assert {**tiny.footprint(pipe), "pipe": None} == {**before, "pipe": None}


@pytest.mark.parametrize("scheduler", FOR_SD)
def test_schedulers_do_not_notice_that_a_rollout_stops(scheduler):
    """Some look at the number of timesteps, or look their place up among them."""
    pipe, result = recorded("sd", scheduler)
    stopped = recorded("sd", scheduler, stop_at=2)[1]
    assert len(stopped.steps) == 3 and len(pipe.scheduler.timesteps) == len(result.steps)
    for a, b in zip(stopped.steps, result.steps, strict=False):
        assert torch.equal(a.prediction, b.prediction) and torch.equal(a.next_sample, b.next_sample)
    rest = continued(pipe, result, 1, stop_at=2)
    assert torch.equal(rest.images, stopped.images) and rest.forwards == 2


def test_a_model_that_decodes_what_its_step_predicts_can_stop_too():
    pipe = tiny.shared("lcm", lora=True)
    result = rollout(pipe, seeds=[7, 8], record=True, **tiny.call("lcm"))
    stopped = rollout(pipe, seeds=[7, 8], stop_at=1, **tiny.call("lcm"))
    with torch.no_grad():
        latents = predicted_original(pipe.scheduler, result.steps[1]) / pipe.vae.config.scaling_factor
        expected = (pipe.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(stopped.images, expected, atol=1e-6) and stopped.forwards == 2


@pytest.mark.parametrize(("family", "scheduler", "precision"), GRADIENTS)
def test_the_gradient_of_stopping_early(family, scheduler, precision):
    """Through all steps against differences, and through the last one against that step alone."""
    pipe = tiny.pipeline(family, lora=True, scheduler=scheduler).to(torch.float64)
    arguments = tiny.call(family, steps=4)
    result = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    weights = noise_like(result.images, [1, 2])

    def loss(last_steps):
        images = rollout(pipe, seeds=[7, 8], stop_at=1, last_steps=last_steps, **arguments).images
        return (images * weights).sum()

    def of_one_step():
        original = predicted_original(pipe.scheduler, replay(pipe, result, 1, grad=True))
        return (decode(pipe, original, grad=True, **result.arguments) * weights).sum()

    assert agrees(trained(pipe), lambda: loss(2), *precision)
    assert agrees(trained(pipe), of_one_step, *precision)
    found, expected = (torch.autograd.grad(x, trained(pipe), allow_unused=True) for x in (loss(1), of_one_step()))
    for a, b in zip(found, expected, strict=True):
        assert a is b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-9)


def test_guidances_clock_is_that_of_the_whole_run():
    seen, pipe = [], tiny.shared("sd", lora=True)
    arguments = {"seeds": [7, 8], **tiny.call("sd", steps=4)}
    with annealed_guidance(pipe, lambda u: seen.append(u) or u):
        result = rollout(pipe, record=True, **arguments)
        assert seen == pytest.approx([0, 1 / 3, 2 / 3, 1])
        for run, expected in [
            (lambda: rollout(pipe, stop_at=1, **arguments), [0, 1 / 3]),
            (lambda: continued(pipe, result, 2), [2 / 3, 1]),
            (lambda: continued(pipe, result, 1, sample=result.steps[1].sample, stop_at=2), [1 / 3, 2 / 3]),
        ]:
            seen.clear()
            run()
            assert seen == pytest.approx(expected)
        assert torch.equal(continued(pipe, result, 1, sample=result.steps[1].sample).images, result.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_at": 4}, "stop_at=4: the steps that can be the last are 0 to 3"),
        ({"stop_at": -5}, "stop_at=-5"),
        ({"stop_at": 0, "last_steps": 2}, "last 2 steps, but DDIMScheduler takes only 1"),
    ],
)
def test_steps_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rollout(tiny.shared("sd"), seeds=[1], **tiny.call("sd", count=1, steps=4), **options)


def test_what_cannot_be_continued_is_refused():
    pipe, result = recorded("sd")
    with pytest.raises(ValueError, match="stop_at=1: the steps that can be the last are 2 to 3"):
        continued(pipe, result, 2, stop_at=1)
    with pytest.raises(ValueError, match="record=True"):
        continued(pipe, rollout(pipe, seeds=[1], **tiny.call("sd", count=1)), 0)
    with pytest.raises(ValueError, match="pass sample="):
        continued(pipe, blank_rollout(pipe, seeds=[1], **tiny.call("sd", count=1)), 0)
    grid = tiny.pipeline("sd")
    grid.scheduler.register_to_config(prediction_type="curl")
    sizes = tiny.counted(grid.unet)
    with pytest.raises(ValueError, match="prediction_type 'curl'"):
        rollout(grid, seeds=[1], stop_at=1, **tiny.call("sd", count=1))
    assert sizes == []
