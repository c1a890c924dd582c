"""DRaFT and DRaFT+ against loops written out by hand from the components of the pipelines."""

import pytest
import torch

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.rewards import as_reward
from sfumato.rewards.jpeg import JPEGCompressibility
from sfumato.training import Batch, Draft
from sfumato.training.regularizers import KL
from sfumato.training.terms import Terms
from tests import tiny
from tests.training.common import SAMPLING, brightness, make_trainer, sample

FAMILIES = pytest.mark.parametrize("family", ["sd", "sd3"])
LAST_STEPS = pytest.mark.parametrize("last_steps", [1, 2])
SEEDS = [3, 4]
WORDS = ["red", "a blue one"]


def outcome(pipe, family, last_steps, kl=None):
    """What DRaFT makes of a batch."""
    terms = Terms({"kl": KL(kl)} if kl else {})
    reward, switch = as_reward(brightness), AdapterSwitch(denoiser(pipe), "default")
    batch = Batch(pipe, WORDS, SEEDS, SAMPLING[family].call(), reward, switch.off, terms)
    (found,) = Draft(last_steps).outcomes(batch)
    return found


def predictor(pipe, family):
    """(x_t, t) -> the prediction after classifier-free guidance."""
    with torch.no_grad():
        if family == "sd":
            guided, unguided = pipe.encode_prompt(WORDS, "cpu", 1, True)
            conditions = {"encoder_hidden_states": torch.cat([unguided, guided])}
        else:
            guided, unguided, pooled, unpooled = pipe.encode_prompt(prompt=WORDS, prompt_2=None, prompt_3=None)
            conditions = {
                "encoder_hidden_states": torch.cat([unguided, guided]),
                "pooled_projections": torch.cat([unpooled, pooled]),
            }

    def predict(x, t):
        without, given = denoiser(pipe)(torch.cat([x, x]), timestep=t.expand(4), **conditions).sample.chunk(2)
        return without + SAMPLING[family].guidance_scale * (given - without)

    return predict


def by_hand(pipe, family, last_steps):
    """Images, and (x_t, t, prediction) of every step; the last steps with gradient."""
    predict, steps = predictor(pipe, family), SAMPLING[family].num_inference_steps
    pipe.scheduler.set_timesteps(steps)
    x = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    seen = []
    for i, t in enumerate(pipe.scheduler.timesteps):
        with torch.set_grad_enabled(i >= steps - last_steps):
            prediction = predict(x, t)
            seen.append((x, t, prediction))
            x = pipe.scheduler.step(prediction, t, x).prev_sample
    shift = getattr(pipe.vae.config, "shift_factor", None) or 0.0
    decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor + shift).sample
    return (decoded / 2 + 0.5).clamp(0, 1), seen


def assert_same_gradient(pipe, loss, wanted_loss):
    parameters = trainable(denoiser(pipe))
    found, wanted = (torch.autograd.grad(each, parameters) for each in (loss, wanted_loss))
    scale = max(gradient.abs().max() for gradient in wanted)
    assert sum(bool(gradient.any()) for gradient in wanted) > len(wanted) / 2  # SD3 drops its last text projections
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale)


@FAMILIES
@LAST_STEPS
def test_the_gradient_is_that_of_a_loop_by_hand(family, last_steps):
    pipe = tiny.pipeline(family, lora=True)
    found = outcome(pipe, family, last_steps)
    images, _ = by_hand(pipe, family, last_steps)
    rewards = brightness(images, WORDS)
    torch.testing.assert_close(found.rewards, rewards.detach())
    assert_same_gradient(pipe, found.loss, -rewards.mean())


@FAMILIES
@LAST_STEPS
def test_the_penalty_is_that_of_a_loop_by_hand(family, last_steps):
    pipe, base = tiny.pipeline(family, lora=True), tiny.pipeline(family)
    found = outcome(pipe, family, last_steps, kl=0.5)
    images, seen = by_hand(pipe, family, last_steps)
    base_predictions = [predictor(base, family)(x, t) for x, t, _ in seen[-last_steps:]]
    tuned = torch.stack([prediction for _, _, prediction in seen[-last_steps:]])
    penalty = (tuned - torch.stack(base_predictions)).square().mean()
    assert penalty > 1e-4
    torch.testing.assert_close(found.logs["kl"], penalty.detach(), rtol=1e-4, atol=1e-8)
    assert_same_gradient(pipe, found.loss, 0.5 * penalty - brightness(images, WORDS).mean())


@FAMILIES
def test_the_penalty_is_nothing_before_the_first_update(family, tmp_path):
    first, second = make_trainer(tmp_path, family, Draft(2), regularizers={"kl": {"coefficient": 1.0}}, steps=2)
    assert first["kl"] == 0.0
    assert second["kl"] > 0.0


def test_a_larger_penalty_keeps_the_model_nearer_to_its_base(tmp_path):
    distances = []
    for kl in (None, 0.003, 0.1):
        pipe = tiny.pipeline("sd")
        base = sample(pipe)
        penalties = {"kl": {"coefficient": kl} if kl else None}
        make_trainer(tmp_path / str(kl), pipe=pipe, regularizers=penalties, steps=6).run()
        distances.append((sample(pipe) - base).square().mean().sqrt().item())
    assert distances[0] > 2 * distances[1] > 3 * distances[2] > 0


def test_a_reward_without_gradient_is_refused(tmp_path):
    with pytest.raises(ValueError, match="jpeg_compressibility' is not differentiable"):
        make_trainer(tmp_path, reward=JPEGCompressibility())
    assert not list(tmp_path.iterdir())
