"""The objectives of the trainer themselves, on worlds whose expected reward has a gradient in closed form."""

import contextlib
import functools

import pytest
import torch
from accelerate import Accelerator

from sfumato.training import DDPO, Batch, FlowGRPO
from sfumato.training.update import Update
from tests.analytic.policy_bed import REWARD, Estimator, mismatch, policy_bed

CHANCE = 3.0
"""Of `mismatch`, exceeded once in 1,000 times by an unbiased estimator."""
UNBIASED = {"baseline": "leave_one_out", "normalize": None, "advantage_clip": None, "average": False}
SAMPLERS = ("ddpm", "ddim", "flow")
bed_of = functools.cache(policy_bed)


class Unbounded(Batch):
    """Images of analytic worlds lie outside of [0, 1]."""

    def score(self, images):
        return self.reward(images)


def tallies(bed, sampler, number=1, **options):
    """The objective at work on images of seeds 0, 1, ..., as `bed.sample(0)` has them."""
    batch = Unbounded(
        bed.pipe,
        bed.prompts,
        list(range(len(bed.prompts))),
        bed.call,
        REWARD,
        contextlib.nullcontext,
        place=slice(0, len(bed.prompts)),
    )
    objective = FlowGRPO if sampler == "flow" else DDPO
    return objective(**options)(Update(number, 0, bed.prompts, [batch], Accelerator(cpu=True)))


def taken(bed):
    """What `bed.gradients` makes of the accumulated gradient, which is cleared."""
    loss = sum((parameter * parameter.grad).sum() for parameter in bed.parameters)
    bed.pipe.unet.zero_grad()
    return bed.gradients(loss)


def estimates(sampler, number=1, **options):
    bed = bed_of(sampler, size=4)
    (_,) = tallies(bed, sampler, number, **options)
    return taken(bed)


@functools.cache
def unbiased(sampler):
    return estimates(sampler, **UNBIASED)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_raw_rewards_others_as_baseline_and_sums_are_unbiased(sampler):
    assert mismatch(unbiased(sampler), bed_of(sampler, size=4).truth()) < CHANCE


def test_random_steps_are_unbiased_given_the_images():
    """Their mean over all choices is the gradient through all steps, and every choice comes up."""
    found = {}
    for number in range(1, 60):
        gradient = estimates("ddim", number, **UNBIASED, steps=3)
        found.setdefault(round(float(gradient.sum()), 6), gradient)
        if len(found) == 4:
            break
    torch.testing.assert_close(torch.stack(list(found.values())).mean(0), unbiased("ddim"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"baseline": "prompt"}, 3 / 4), ({"average": True}, 1 / (3 * 4))],
    ids=["the mean with one's own reward", "means over 3 dims and 4 steps"],
)
def test_two_defaults_shorten_the_gradient(options, factor):
    torch.testing.assert_close(estimates("flow", **{**UNBIASED, **options}), factor * unbiased("flow"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_division_by_the_standard_deviation_turns_the_gradient(sampler):
    truth, found = bed_of(sampler, size=4).truth(), estimates(sampler, **{**UNBIASED, "normalize": "prompt"})
    assert mismatch(found, truth) > CHANCE
    cosines = [float(torch.cosine_similarity(each.mean(0), truth, 0)) for each in (found, unbiased(sampler))]
    assert cosines[0] < cosines[1]


def test_a_second_pass_is_that_of_the_reference():
    bed = bed_of("flow", size=4)
    steps = tallies(bed, "flow", **UNBIASED, inner_epochs=2, clip_range=0.2)
    next(steps)
    bed.pipe.unet.zero_grad()
    with bed.moved(0.2):
        tally = next(steps)
        found = taken(bed)
    steps.close()
    sampled = bed.sample(0)
    with bed.moved(0.2):
        wanted = bed.gradients(Estimator(clip=0.2).loss(bed.log_probs(sampled), sampled))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)
    assert 0 < tally.logs["clip_fraction"] < 1
