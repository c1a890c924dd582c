"""Rollouts of which nothing is sampled: the grid they stand on, and predictions on given images from there."""

import pytest
import torch

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.latents import encode_images
from sfumato.pipelines.plan import blank_rollout, unguided
from sfumato.pipelines.predictions import noise_level, noise_like, noised, target
from sfumato.pipelines.rollout import replay, rollout
from tests import tiny
from tests.pipelines.differences import agrees, trained

CASES = [*(("sd", name) for name in tiny.SCHEDULERS if not name.startswith("flow")), ("sd3", "flow"), ("flux", None)]
DISTILLED = ("flux", "lcm", "sana-sprint")
OTHERWISE_GUIDED = ("lumina2", "qwen-image", "z-image", "chroma", "flux2")
"""By two calls of the denoiser, by another argument, or already from a scale above 0."""
GRADIENTS = [("sd", (2e-5, 1e-4)), ("sd3", (1e-4, 1e-3)), ("flux", (1e-4, 1e-3))]


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_a_blank_rollout_has_the_grid_and_predicts_as_a_real_one(family, scheduler):
    pipe = tiny.shared(family, lora=True, scheduler=scheduler)
    arguments = tiny.call(family, steps=4)
    real = rollout(pipe, seeds=[7, 8], record=True, **arguments)
    before, sizes = tiny.footprint(pipe), tiny.counted(denoiser(pipe))
    blank = blank_rollout(pipe, seeds=[7, 8], **arguments)
    assert sizes == [] and blank.images.numel() == 0 and blank.forwards == 0
    assert len({float(step.timestep) for step in real.steps}) == len({float(step.timestep) for step in blank.steps})
    for step in blank.steps[::-1]:
        there = next(other for other in real.steps if other.index == step.index)
        assert step.timestep == there.timestep
        assert noise_level(pipe.scheduler, step) == noise_level(pipe.scheduler, there)
        again = replay(pipe, blank, blank.steps.index(step), sample=there.sample)
        assert torch.equal(again.prediction, there.prediction)
    denoiser(pipe)._forward_pre_hooks.clear()
    assert tiny.footprint(pipe) == before


def test_a_fine_grid_costs_nothing_and_reaches_nearly_all_levels_of_training():
    pipe = tiny.shared("sd", lora=True)
    blank = blank_rollout(pipe, seeds=[7, 8], **tiny.call("sd", steps=500))
    assert [int(step.timestep) for step in blank.steps] == list(range(999, 0, -2))
    assert blank.steps[0].state["timesteps"] is blank.steps[-1].state["timesteps"]
    x, step = torch.zeros(2, 4, 8, 8), blank.steps[123]
    assert replay(pipe, blank, 123, sample=x).timestep == step.timestep


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *DISTILLED[1:], *OTHERWISE_GUIDED])
def test_guidance_is_switched_off_where_a_pipeline_has_it(family):
    pipe = tiny.shared(family, lora=True)
    rows = []
    for off in ({}, unguided(pipe)):
        sizes = tiny.counted(denoiser(pipe))
        rollout(pipe, seeds=[7, 8], **{**tiny.call(family, steps=2), **off})
        rows.append(sum(sizes))
        for part in denoiser(pipe).modules():
            part._forward_pre_hooks.clear()
    assert rows[0] == (rows[1] if family in DISTILLED else 2 * rows[1]) and rows[1] in (4, 8)


@pytest.mark.parametrize(("family", "precision"), GRADIENTS)
def test_the_gradient_of_a_loss_on_given_images(family, precision):
    """The loss of diffusion training, by the weights: nothing is sampled for it."""
    pipe, arguments = tiny.pipeline(family, lora=True).to(torch.float64), tiny.call(family, steps=4)
    blank = blank_rollout(pipe, seeds=[7, 8], **arguments)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    clean, step = encode_images(pipe, images, **arguments), blank.steps[1]
    noise = noise_like(clean, [3, 4])
    sample, wanted = (make(pipe.scheduler, step, clean, noise) for make in (noised, target))

    def loss():
        made = replay(pipe, blank, 1, grad=True, sample=sample, **unguided(pipe))
        return (made.prediction - wanted).square().mean()

    assert agrees(trained(pipe), loss, *precision)
