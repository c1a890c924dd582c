"""Stopping early, running a last step again on new noise and predicting at noised images: gradients in closed form.

In a Gaussian world all three are the posterior mean E[x0 | x], with the derivative by the world's mean and log-variance
that autograd takes of its formula.
"""

import pytest
import torch

from sfumato.analytic import affine_steps, double_precision
from sfumato.pipelines.plan import blank_rollout
from sfumato.pipelines.predictions import noise_like, noised, predicted_original, target
from sfumato.pipelines.rollout import continued, replay, rollout
from tests.analytic.bed import MEAN_R, VAR_R, tuned_pipeline

SCHEDULERS = ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
CALL = {"prompt": "", "seeds": [1, 2], "num_inference_steps": 8}
CLEAN = torch.tensor([[0.4, -0.2, 1.0], [1.3, 0.5, -2.0]], dtype=torch.float64).reshape(2, 3, 1, 1)


@pytest.fixture(params=SCHEDULERS)
def pipe(request):
    pipe = tuned_pipeline(request.param)
    with double_precision(pipe.scheduler):
        yield pipe


def posterior_mean(sample, step, mean, log_variance):
    """E[x0 | x], (B, 3)."""
    variance = log_variance.exp()
    gain = step.alpha * variance / (step.alpha**2 * variance + step.sigma**2)
    return mean + gain * (sample.flatten(1) - step.alpha * mean)


def check(pipe, loss, closed_form):
    """The loss and its gradient by the LoRA against a function of the world's mean and log-variance."""
    loss.backward()
    world = [x.clone().requires_grad_() for x in (MEAN_R, VAR_R.log())]
    expected = closed_form(*world)
    expected.backward()
    assert torch.allclose(loss, expected, rtol=0, atol=1e-8)
    for head, parameter in zip((pipe.unet.mean, pipe.unet.log_variance), world, strict=True):
        a, b = head.lora_A["default"].weight, head.lora_B["default"].weight
        assert parameter.grad.abs().min() > 1e-4
        assert torch.allclose(b.grad, parameter.grad[:, None] @ a.detach().T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("stop", [3, -3])
def test_an_image_predicted_early(pipe, stop):
    steps = rollout(pipe, record=True, **CALL).steps
    images = rollout(pipe, stop_at=stop, last_steps=1, **CALL).images
    affine, sample = affine_steps(pipe.scheduler)[stop], steps[stop].sample
    check(pipe, images.square().sum(), lambda *world: posterior_mean(sample, affine, *world).square().sum())


@pytest.mark.parametrize("index", [-2, -3])
def test_the_last_steps_on_new_noise(pipe, index):
    """DRaFT-LV: clean images, noised again."""
    blank = blank_rollout(pipe, **CALL)
    sample = noised(pipe.scheduler, blank.steps[index], CLEAN, noise_like(CLEAN, [5, 6]))
    images = continued(pipe, blank, index, sample=sample, last_steps=-index).images

    def closed_form(*world):
        x = sample.flatten(1)
        for step in affine_steps(pipe.scheduler)[index:]:
            x = step.keep * x + step.follow * posterior_mean(x, step, *world)
        return x.square().sum()

    pipe.scheduler.set_timesteps(CALL["num_inference_steps"])
    check(pipe, images.square().sum(), closed_form)


def test_the_loss_of_training_on_given_images(pipe):
    blank = blank_rollout(pipe, **CALL)
    noise, step = noise_like(CLEAN, [5, 6]), blank.steps[4]
    sample, wanted = (make(pipe.scheduler, step, CLEAN, noise) for make in (noised, target))
    made = replay(pipe, blank, 4, grad=True, sample=sample)
    pipe.scheduler.set_timesteps(CALL["num_inference_steps"])
    affine = affine_steps(pipe.scheduler)[4]
    assert torch.allclose(sample, affine.alpha * CLEAN + affine.sigma * noise, rtol=0, atol=1e-9)
    error = predicted_original(pipe.scheduler, made) - CLEAN
    ratio = (made.prediction - wanted) / error
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-6)  # ε or velocity: x0's error, scaled alike
    check(pipe, error.square().sum(), lambda *w: (posterior_mean(sample, affine, *w) - CLEAN.flatten(1)).square().sum())
