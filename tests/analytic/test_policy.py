"""Policy gradients from recorded steps against the gradient of the expected reward, which is known in closed form."""

import functools
import math

import pytest
import torch

from sfumato.analytic import gaussian_aig, trajectory_kl
from sfumato.pipelines.adapters import base_weights
from sfumato.pipelines.rollout import replay, rollout
from sfumato.pipelines.stochastic import step_mean, step_std, stochastic_steps, transition_kl
from tests.analytic.bed import WORLDS, tuned_pipeline
from tests.analytic.policy_bed import KINDS, REWARD, Estimator, mismatch, policy_bed

SAMPLERS = ("ddpm", "ddim", "flow")
CHANCE = 3.0
"""Of `mismatch`, exceeded once in 1,000 times by an unbiased estimator."""


@functools.cache
def first_pass(sampler):
    """(bed, its images, their log-probabilities with gradient)."""
    bed = policy_bed(sampler, size=4)
    sampled = bed.sample(0)
    return bed, sampled, bed.log_probs(sampled)


def estimates(sampler, **changes):
    bed, sampled, log_probs = first_pass(sampler)
    return bed.gradients(Estimator(**changes).loss(log_probs, sampled))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_closed_form_is_that_of_the_pipeline(sampler):
    bed, sampled, log_probs = first_pass(sampler)
    assert sampled.places == [0, 1, 2, 3]
    assert torch.equal(log_probs.detach(), sampled.log_probs)
    rewards = sampled.rewards.view(-1, len(KINDS), bed.size)
    for kind in range(len(KINDS)):
        expected = bed.expected_reward(*(head[:, kind].detach() for head in bed.parameters))
        found = rewards[:, kind].flatten()
        assert abs(float(found.mean() - expected)) < 3 * float(found.std()) / math.sqrt(len(found))


def test_the_whole_gradient_is_that_of_the_law_of_ddpm_and_of_the_paths_of_the_sde():
    bed = first_pass("ddpm")[0]
    parts = []
    for mean, variance in KINDS.values():
        mean, log_variance = mean.double().requires_grad_(), variance.double().log().requires_grad_()
        law = gaussian_aig(0.0, 1.0, mean, log_variance.exp(), bed.pipe.scheduler, "tuned")
        linear, curvature = REWARD.terms(mean)
        reward = (linear * law[0] - curvature * (law[1] + law[0] ** 2) / 2).sum()
        parts += torch.autograd.grad(reward, [mean, log_variance])
    torch.testing.assert_close(bed.truth(whole=True), torch.cat(parts), rtol=1e-5, atol=1e-7)
    bed = first_pass("flow")[0]
    with bed.context():
        images = rollout(bed.pipe, prompt=bed.prompts, seeds=range(len(bed.prompts)), last_steps=5, **bed.call).images
    found = bed.gradients(-REWARD(images).mean())
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - bed.truth(whole=True)).abs() < 4 * error + 1e-6).all()) and error.max() < 0.04


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("changes", [{}, {"subset": 2}], ids=["all steps", "two of four steps"])
def test_reinforce_with_raw_rewards_and_the_others_as_baseline_is_unbiased(sampler, changes):
    assert mismatch(estimates(sampler, **changes), first_pass(sampler)[0].truth()) < CHANCE


@pytest.mark.parametrize("sampler", ["ddim", "flow"])
def test_whole_ratios_keep_the_second_pass_unbiased_and_clipping_does_not(sampler):
    bed, sampled, _ = first_pass(sampler)
    with bed.moved(0.2):
        log_probs, truth = bed.log_probs(sampled), bed.truth()
    assert (log_probs.detach() - sampled.log_probs).std() > 0.1
    whole, clipped = (Estimator(together=True), Estimator(clip=0.2))
    assert mismatch(bed.gradients(whole.loss(log_probs, sampled)), truth) < CHANCE
    assert mismatch(bed.gradients(clipped.loss(log_probs, sampled)), truth) > 5 * CHANCE


@pytest.mark.parametrize(
    ("change", "reference", "factor"),
    [
        ({"own": True}, {}, 3 / 4),
        ({"averaged": True}, {}, 1 / 3),
        ({"subset": 2, "weighted": False}, {"subset": 2}, 2 / 4),
    ],
    ids=["own baseline", "mean over dims", "unweighted subset"],
)
def test_three_published_defaults_shorten_the_gradient(change, reference, factor):
    torch.testing.assert_close(estimates("flow", **change), factor * estimates("flow", **reference))
    assert mismatch(estimates("flow", **change), first_pass("flow")[0].truth()) > CHANCE


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_division_by_the_standard_deviation_turns_the_gradient(sampler):
    truth, found = first_pass(sampler)[0].truth(), estimates(sampler, spread="group")
    assert mismatch(found, truth) > CHANCE
    unbiased, turned = (float(torch.cosine_similarity(g.mean(0), truth, 0)) for g in (estimates(sampler), found))
    assert turned < unbiased


def test_what_steps_without_noise_do_is_no_part_of_a_policy_gradient():
    bed = first_pass("ddim")[0]
    assert mismatch(estimates("ddim"), bed.truth(whole=True)) > 5 * CHANCE


def test_the_kl_of_recorded_steps_is_that_of_the_law():
    pipe = tuned_pipeline("DDPMScheduler")
    result = rollout(pipe, prompt="", seeds=range(500), num_inference_steps=5, record=True)
    places = stochastic_steps(pipe, result)
    expected = trajectory_kl(*WORLDS, pipe.scheduler).sum(1)
    assert len(expected) == len(places)
    for place, row in zip(places, expected, strict=True):
        step = result.steps[place]
        with base_weights(pipe):
            base = step_mean(pipe, step, replay(pipe, result, place).prediction)
        kl = transition_kl(step_mean(pipe, step, step.prediction), base, step_std(pipe, step))
        assert abs(float(kl.mean() - row)) < 4 * float(kl.std()) / math.sqrt(len(kl))
