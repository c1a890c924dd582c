"""Adjoint Matching on a tiny pipeline, against finite differences; closed forms are in tests/analytic."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.pipelines.rollout import replay
from sfumato.pipelines.stochastic import step_std, stochastic_steps
from sfumato.rewards import as_reward
from sfumato.training import AdjointMatching, Batch
from tests import tiny
from tests.training.common import brightness

BETA, SIZE = 0.01, 2e-5
"""So small a beta that the adjoint counts in the residuals; the size of differences in float64."""


@pytest.fixture
def batch():
    pipe = tiny.pipeline("sd", lora=True).to(torch.float64)
    call = {"num_inference_steps": 4, "guidance_scale": 2.0, "eta": 1.0}
    off = AdapterSwitch(denoiser(pipe), "default").off
    return Batch(pipe, ["red", "blue"], [1, 2], call, as_reward(brightness), off)


def base_step(batch, sampled, index, x):
    with batch.base():
        return replay(batch.pipe, sampled, index, grad=True, sample=x).next_sample


def adjoints(batch, sampled):
    """What is carried back to the end of every step, each checked by a difference along a random direction."""
    last = batch.sample(last_steps=1, record=True)
    found = [-torch.autograd.grad(batch.score(last.images).sum(), last.steps[-1].next_sample)[0] / BETA]
    for index in range(len(sampled.steps) - 1, 0, -1):
        x = sampled.steps[index].sample
        _, back = torch.autograd.functional.vjp(lambda x, i=index: base_step(batch, sampled, i, x), x, found[0])
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(index), dtype=x.dtype)
        ends = [(found[0] * base_step(batch, sampled, index, x + h * direction)).sum() for h in (SIZE, -SIZE)]
        assert float(ends[0] - ends[1]) / (2 * SIZE) == pytest.approx(float((back * direction).sum()), rel=1e-4)
        found.insert(0, back)
    return found


def test_the_gradient_is_that_of_finite_differences(batch):
    """Trajectory and adjoint are given; the tuned model's steps alone are perturbed."""
    parameters, sampled = trainable(denoiser(batch.pipe)), batch.sample(record=True)
    noisy, carried = stochastic_steps(batch.pipe, sampled), adjoints(batch, sampled)
    outcomes = AdjointMatching(BETA)._matched(batch, batch.sample(last_steps=1, record=True), set(noisy), 1.0)
    found = [outcome.loss.item() for outcome in outcomes if outcome.loss.backward() is None]
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    start, direction = parameters_to_vector(parameters).detach(), gradient / gradient.norm()

    @torch.no_grad()
    def loss(shift):
        vector_to_parameters(start + shift * direction, parameters)
        total = 0.0
        for index in noisy:
            tuned, std = replay(batch.pipe, sampled, index), step_std(batch.pipe, sampled.steps[index])
            apart = tuned.next_sample - base_step(batch, sampled, index, sampled.steps[index].sample)
            total += float((apart / std + std * carried[index]).square().flatten(1).sum(1).mean()) / 2
        return total

    assert len(found) == len(noisy) == 3
    assert loss(0.0) == pytest.approx(sum(found), rel=1e-6)
    assert (loss(SIZE) - loss(-SIZE)) / (2 * SIZE) == pytest.approx(float(gradient.norm()), rel=1e-4)
