"""Methods that back-propagate the reward, and penalties, against derivatives in closed form on Gaussian worlds."""

from contextlib import contextmanager

import pytest
import torch

from sfumato.analytic import QuadraticReward, affine_steps, analytic_pipeline, double_precision, gaussian, trajectory_kl
from sfumato.analytic.pipeline import tune
from sfumato.pipelines.adapters import AdapterSwitch, denoiser
from sfumato.pipelines.predictions import noise_like
from sfumato.pipelines.stochastic import LEAST, stochastic_steps
from sfumato.training import AdjointMatching, AlignProp, Batch, Draft, DraftLV, ReFL
from sfumato.training.regularizers import KL, Distillation, GaussianKL
from sfumato.training.terms import Terms, Trajectory
from tests.analytic.bed import scheduler

STEPS, REWARD = 8, QuadraticReward(linear=torch.tensor([0.5, -1.0, 2.0]), curvature=torch.tensor([1.0, 0.0, 0.3]))
MEAN_B, VAR_B = torch.tensor([0.4, 0.5, 0.6]).double(), torch.full((3,), 0.05**2).double()
MEAN_R, VAR_R = torch.tensor([0.45, 0.5, 0.52]).double(), torch.tensor([0.03, 0.05, 0.06]).double() ** 2
SAMPLERS = ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
NOISY = [("DDIMScheduler", 1.0), ("DDPMScheduler", 0.0), ("EulerAncestralDiscreteScheduler", 0.0)]


@contextmanager
def bed(name, seeds=(3, 4), eta=0.0, **penalties):
    """A batch of the tuned worlds, whose images lie in [0, 1] at any seed that matters; the steps in closed form."""
    pipe = analytic_pipeline(gaussian(MEAN_B, VAR_B), scheduler(name))
    tune(pipe, gaussian(MEAN_R, VAR_R))
    off, call = AdapterSwitch(denoiser(pipe), "default").off, {"num_inference_steps": STEPS}
    call |= {"eta": eta} if eta else {}
    batch = Batch(pipe, [""] * len(seeds), list(seeds), call, REWARD, off, Terms(penalties))
    with double_precision(pipe.scheduler):
        yield batch, batch.sample(record=True), affine_steps(pipe.scheduler, **({"eta": eta} if eta else {}))


def denoised(step, x, mean, variance):
    """E[x0 | x]."""
    return (step.alpha * variance * x + mean * step.sigma**2) / (step.alpha**2 * variance + step.sigma**2)


def taken(step, x, mean, variance):
    return step.keep * x + step.follow * denoised(step, x, mean, variance)


def assert_gradient(pipe, outcomes, loss):
    """That of the worlds' parameters, which a LoRA of rank 1 has in its two factors."""
    mean, log_variance = MEAN_R.clone().requires_grad_(), VAR_R.log().requires_grad_()
    expected = loss(mean, log_variance.exp())
    found = [outcome.loss.detach() for outcome in outcomes if outcome.loss.backward() is None]
    assert torch.allclose(torch.stack(found).sum(), expected, rtol=1e-8)
    derivatives = torch.autograd.grad(expected, [mean, log_variance])
    for head, derivative in zip((pipe.unet.mean, pipe.unet.log_variance), derivatives, strict=True):
        a, b = head.lora_A["default"].weight, head.lora_B["default"].weight
        assert torch.allclose(b.grad, derivative[:, None] @ a.detach().T, rtol=1e-6, atol=1e-10)
        assert torch.allclose(a.grad, b.detach().T @ derivative[:, None], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop_at", [3, STEPS - 1])
def test_refl_is_the_one_step_prediction(name, stop_at):
    with bed(name) as (batch, sampled, steps):
        x = sampled.steps[stop_at].sample.flatten(1)
        outcomes = ReFL().outcomes(batch, stop_at)
        assert_gradient(batch.pipe, outcomes, lambda *world: -REWARD(denoised(steps[stop_at], x, *world)).mean())


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("noisings", [1, 3])
def test_draft_lv_is_the_mean_over_the_last_step_from_fresh_noise(name, noisings):
    with bed(name) as (batch, sampled, steps):
        last, original = steps[-1], sampled.images
        noises = [noise_like(original, [DraftLV.seed(seed, n) for seed in batch.seeds]) for n in range(noisings)]
        assert noisings == 1 or (noises[0] - noises[1]).abs().min() > 0
        points = [sampled.steps[-1].sample, *(last.alpha * original + last.sigma * noise for noise in noises)]

        def loss(*world):
            rewards = [REWARD(taken(last, x.flatten(1), *world)) for x in points]
            return -torch.stack(rewards).mean()

        assert_gradient(batch.pipe, DraftLV(noisings).outcomes(batch), loss)


@pytest.mark.parametrize("last_steps", [1, 3])
def test_align_prop_with_k_steps_is_draft_k(last_steps):
    with bed("DDIMScheduler") as (batch, _, _):
        gradients = []
        for outcomes in (Draft(last_steps).outcomes(batch), AlignProp().outcomes(batch, last_steps)):
            (found,) = outcomes
            gradients.append(
                torch.autograd.grad(found.loss, [p for p in denoiser(batch.pipe).parameters() if p.requires_grad])
            )
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
        assert found.logs["last_steps"] == last_steps


@pytest.mark.parametrize(("name", "eta"), NOISY)
def test_adjoint_matching_is_a_regression_on_the_adjoint(name, eta):
    """All steps are affine maps, so that the base model carries the adjoint back by their slopes."""
    with bed(name, eta=eta) as (batch, sampled, steps):
        linear, curvature = REWARD.terms(sampled.images.flatten(1))
        end = -(linear - curvature * sampled.images.flatten(1)) / 0.5

        def loss(*world):
            total, adjoint = 0.0, end
            for step, recorded in reversed(list(zip(steps, sampled.steps, strict=True))):
                x = recorded.sample.flatten(1)
                if step.noise > LEAST:
                    apart = step.follow * (denoised(step, x, *world) - denoised(step, x, MEAN_B, VAR_B))
                    total = total + (apart / step.noise + step.noise * adjoint).square().sum(1).mean() / 2
                slope = step.alpha * VAR_B / (step.alpha**2 * VAR_B + step.sigma**2)
                adjoint = (step.keep + step.follow * slope) * adjoint
            return total

        noisy = set(stochastic_steps(batch.pipe, sampled))
        outcomes = AdjointMatching(0.5)._matched(batch, batch.sample(last_steps=1, record=True), noisy, 1.0)
        assert_gradient(batch.pipe, outcomes, loss)


@pytest.mark.parametrize(("name", "eta"), NOISY)
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.0, 0.5)])
@pytest.mark.parametrize("penalty", [KL, GaussianKL, Distillation])
def test_penalties_at_steps_of_their_own(penalty, span, name, eta):
    with bed(name, eta=eta, found=penalty(2.0, span)) as (batch, sampled, steps):
        chosen = range(STEPS if span[1] == 1.0 else STEPS // 2)

        def loss(*world):
            total = 0.0
            for step, recorded in [(steps[i], sampled.steps[i]) for i in chosen]:
                x = recorded.sample.flatten(1)
                apart = (denoised(step, x, *world) - denoised(step, x, MEAN_B, VAR_B)) ** 2
                if penalty is KL:  # epsilon is (x - alpha x0) / sigma
                    total = total + apart.mean() * (step.alpha / step.sigma) ** 2 / len(chosen)
                elif penalty is Distillation:
                    total = total + apart.mean() / len(chosen)
                elif step.noise:
                    total = total + (apart * step.follow**2).sum(1).mean() / (2 * step.noise**2)
            return 2.0 * total

        outcomes = list(batch.terms.apart(Trajectory(batch, sampled), ()))
        logged = sum(outcome.logs["found"] for outcome in outcomes)
        assert torch.allclose(2.0 * logged, loss(MEAN_R, VAR_R), rtol=1e-8)
        assert_gradient(batch.pipe, outcomes, loss)


@pytest.mark.parametrize(("name", "eta"), NOISY[:2])
def test_the_exact_kl_of_whole_trajectories_is_the_one_in_closed_form(name, eta):
    with bed(name, range(4000), eta, kl=GaussianKL(1.0, (0.0, 1.0))) as (batch, sampled, _):
        expected = trajectory_kl(MEAN_B, VAR_B, MEAN_R, VAR_R, batch.pipe.scheduler, eta=eta).sum()
        with torch.no_grad():
            found = sum(outcome.loss for outcome in batch.terms.apart(Trajectory(batch, sampled), ()))
    assert found == pytest.approx(float(expected), rel=0.05)
