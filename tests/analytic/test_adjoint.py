"""Adjoint Matching against the tilted optimum, which is known in closed form."""

import contextlib

import pytest
import torch

from sfumato.analytic import QuadraticReward, analytic_pipeline, gaussian, tilt
from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.rollout import replay
from sfumato.pipelines.stochastic import step_std, stochastic_steps
from sfumato.training import AdjointMatching, Batch, Trainer
from tests.analytic.bed import scheduler
from tests.training.common import EXACT

BASE, BETA = gaussian([0.4, 0.5, 0.6], 0.05**2), 0.5
"""Narrow, as rewards want images in [0, 1]."""
REWARD = QuadraticReward(linear=70.0, curvature=100.0)


def pipeline(name="DDIMScheduler"):
    """The base world under a noise schedule whose log-SNR falls evenly, so that few steps resolve it."""
    signal = torch.sigmoid(torch.linspace(11, -6, 1000, dtype=torch.float64))
    betas = 1 - signal / torch.cat([torch.ones(1).double(), signal[:-1]])
    return analytic_pipeline(BASE, scheduler(name, trained_betas=betas.tolist(), timestep_spacing="trailing"))


def trained(folder, eta, steps=16):
    """How far the training moves the mean, and what it leaves of the variance."""
    pipe = pipeline()
    settings = {"steps": 40, "batch_size": 32, "lr": 0.05, "lr_schedule": "linear", "checkpoint_every": 1000}
    lora = {"rank": 1, "targets": ["mean", "log_variance"]}
    config = TrainingConfig.model_validate({**settings, "lora": lora, "monitor_every": None, "prefix": EXACT})
    sampling = SamplingConfig(num_inference_steps=steps, guidance_scale=1.0, arguments={"eta": eta})
    Trainer(pipe, AdjointMatching(BETA, steps=4), REWARD, [""], config, sampling, folder).run()
    world = pipe.world()
    return (world.mean - BASE.mean).detach(), (world.variance / BASE.variance).detach()


def test_memoryless_sampling_tunes_towards_the_tilted_optimum(tmp_path):
    """Up to O(1/N), see benchmarks/adjoint.py."""
    wanted = tilt(BASE, REWARD, BETA).world
    shift, left = trained(tmp_path, eta=1.0)
    share = shift / (wanted.mean - BASE.mean)
    assert bool(((share > 0.6) & (share < 1.05)).all()), share
    assert bool((left > wanted.variance / BASE.variance - 0.02).all())  # never beyond the tilt: no collapse
    assert bool((left < 0.9).all())


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_before_training_the_loss_is_that_of_the_adjoint_alone(name):
    """All steps are affine maps here, so the adjoint is a product of slopes."""
    pipe, call = pipeline(name), {"num_inference_steps": 6, "guidance_scale": 1.0, "eta": 1.0}
    batch = Batch(pipe, [""] * 4, [1, 2, 3, 4], call, REWARD, contextlib.nullcontext)
    objective = AdjointMatching(BETA)
    sampled = batch.sample(record=True)
    noisy = stochastic_steps(pipe, sampled)
    with torch.enable_grad():
        outcomes = list(objective._matched(batch, batch.sample(last_steps=1, record=True), set(noisy), 1.0))
    linear, curvature = REWARD.terms(sampled.images)
    adjoint = -(linear - curvature * sampled.images) / BETA
    expected = []
    for index in reversed(range(6)):
        step = sampled.steps[index]
        if index in noisy:
            expected.append((step_std(pipe, step) * adjoint).square().flatten(1).sum(1).mean() / 2)
        slope = replay(pipe, sampled, index, sample=step.sample + 1).next_sample - step.next_sample
        adjoint = slope * adjoint
    assert len(expected) == len(outcomes) >= 5
    for outcome, value in zip(outcomes, expected, strict=True):
        assert outcome.loss.item() == pytest.approx(value.item(), rel=1e-6)
