"""DDPO and Flow-GRPO against loops written out by hand, and what their options do."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from numpy.random import default_rng

from sfumato.config import SamplingConfig
from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.stochastic import planned_stochastic_steps
from sfumato.rewards import as_reward
from sfumato.rewards.jpeg import JPEGCompressibility
from sfumato.training import DDPO, Batch, FlowGRPO, TrainingError
from sfumato.training.batches import micro_batches
from sfumato.training.checks import check_training
from sfumato.training.regularizers import KL, FlowGRPOKL
from sfumato.training.terms import Terms
from sfumato.training.update import Update
from tests import tiny
from tests.training.common import (
    NOISY,
    PROMPTS,
    SAMPLING,
    brightness,
    make_trainer,
    settings,
)

STEPS = 4
FIXED = {"prompt": "red", "seeds": range(16)}
OBJECTIVES = {"sd": DDPO, "sd3": FlowGRPO, "flux": FlowGRPO}
WORDS = ["red", "red", "a blue one", "a blue one"]
SEEDS = [3, 4, 5, 6]
NOISE_LEVEL = 0.7


def update_of(pipe, family, parts=(slice(0, 4),), number=1, reward=brightness, **terms):
    """An update of four images, two of each prompt."""
    switch = AdapterSwitch(denoiser(pipe), "default")
    batches = [
        Batch(pipe, WORDS[part], SEEDS[part], NOISY[family].call(), as_reward(reward), switch.off, Terms(**terms), part)
        for part in parts
    ]
    return Update(number, 0, WORDS, batches, Accelerator(cpu=True))


def gradients(pipe, tallies):
    """The gradient at every step of the optimiser, which does nothing, and the tallies."""
    parameters, found = trainable(denoiser(pipe)), []
    for tally in tallies:
        found.append(([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters], tally))
        denoiser(pipe).zero_grad()
    return found


def gradient(pipe, tallies):
    ((found, tally),) = gradients(pipe, tallies)
    return found, tally


def assert_same(found, wanted):
    scale = max(g.abs().max() for g in wanted)
    assert scale > 0
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * scale)


def predictor(pipe, family, adapter=True):
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
        with nullcontext() if adapter else AdapterSwitch(denoiser(pipe), "default").off():
            predicted = denoiser(pipe)(torch.cat([x, x]), timestep=t.expand(8), **conditions).sample
        without, given = predicted.chunk(2)
        return without + NOISY[family].guidance_scale * (given - without)

    return predict


def ddim_law(scheduler, i, x, eps):
    """Mean and standard deviation of DDIM's step with η = 1 (arXiv 2010.02502, eq. 12 and 16)."""
    t = scheduler.timesteps[i]
    now, after = scheduler.alphas_cumprod[t].double(), scheduler.alphas_cumprod[t - 1000 // STEPS].double()
    std = ((1 - after) / (1 - now) * (1 - now / after)).sqrt()
    image = (x - (1 - now).sqrt() * eps) / now.sqrt()
    return after.sqrt() * image + (1 - after - std**2).sqrt() * eps, std


def sde_law(scheduler, i, x, v):
    """Mean and standard deviation of Flow-GRPO's step (arXiv 2505.05470, eq. 9)."""
    now, after = scheduler.sigmas[i : i + 2].double()
    s, dt = NOISE_LEVEL * (now / (1 - (after if now == 1 else now))).sqrt(), after - now
    return x + (v + s**2 / (2 * now) * (x + (1 - now) * v)) * dt, s * (-dt).sqrt()


def sampled_by_hand(pipe, family, chosen):
    """Images, and (log-probability of each image with gradient, prediction, (x_t, t)) at the chosen steps."""
    law, scheduler = (ddim_law if family == "sd" else sde_law), pipe.scheduler
    predict = predictor(pipe, family)
    scheduler.set_timesteps(STEPS)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    x, seen = noise(generators), []
    for i, t in enumerate(scheduler.timesteps):
        with torch.set_grad_enabled(i in chosen):
            prediction = predict(x, t)
        if i == STEPS - 1:
            x = scheduler.step(prediction, t, x).prev_sample
            break
        mean, std = law(scheduler, i, x.double(), prediction.double())
        after = (mean + std * noise(generators)).detach().float()
        if i in chosen:
            exponents = -((after.double() - mean) ** 2) / (2 * std**2)
            seen.append((exponents.flatten(1), prediction, (x, t)))
        x = after
    shift = getattr(pipe.vae.config, "shift_factor", None) or 0.0
    with torch.no_grad():
        return (pipe.vae.decode(x / pipe.vae.config.scaling_factor + shift).sample / 2 + 0.5).clamp(0, 1), seen


def noise(generators):
    return torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for generator in generators])


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_the_gradient_is_that_of_a_loop_by_hand(family):
    pipe = tiny.pipeline(family, lora=True)
    found, tally = gradient(pipe, OBJECTIVES[family]()(update_of(pipe, family)))
    images, seen = sampled_by_hand(pipe, family, range(STEPS - 1))
    rewards = brightness(images, WORDS).double()
    torch.testing.assert_close(tally.rewards.double(), rewards, rtol=1e-5, atol=0)
    centred = (rewards.view(2, 2) - rewards.view(2, 2).mean(1, keepdim=True)).flatten()
    spread = rewards.std(correction=0) if family == "sd3" else centred.abs()  # of two numbers
    log_probs = torch.stack([exponents.mean(1) for exponents, _, _ in seen])
    loss = -(log_probs * centred / (spread + 1e-6)).mean()
    assert_same(found, torch.autograd.grad(loss, trainable(denoiser(pipe))))


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_the_unbiased_gradient_of_some_steps_and_the_penalty_by_hand(family):
    pipe = tiny.pipeline(family, lora=True)
    options = {"baseline": "leave_one_out", "normalize": None, "advantage_clip": None, "average": False, "steps": 2}
    update = update_of(pipe, family, penalties={"kl": KL(0.01)})
    found, tally = gradient(pipe, OBJECTIVES[family](**options)(update))
    chosen = sorted(update.random().choice(STEPS - 1, 2, replace=False))
    images, seen = sampled_by_hand(pipe, family, chosen)
    base = predictor(pipe, family, adapter=False)
    with torch.no_grad():
        differences = [prediction - base(*place) for _, prediction, place in seen]
    penalty = torch.stack(
        [(p - (p.detach() - d)).square().mean() for (_, p, _), d in zip(seen, differences, strict=True)]
    )
    rewards = brightness(images, WORDS).double()
    others = rewards.view(2, 2).flip(1).flatten()
    log_probs = torch.stack([exponents.sum(1) for exponents, _, _ in seen])
    loss = 0.01 * penalty.mean() - 3 / 2 * (log_probs * (rewards - others)).sum(0).mean()
    torch.testing.assert_close(tally.logs["kl"], penalty.mean().detach(), rtol=1e-4, atol=0)
    assert_same(found, torch.autograd.grad(loss, trainable(denoiser(pipe))))


def test_the_penalty_of_flow_grpo_is_that_of_the_formula():
    pipe = tiny.pipeline("sd3", lora=True)
    _, tally = gradient(pipe, FlowGRPO()(update_of(pipe, "sd3", penalties={"kl": FlowGRPOKL(1.0)})))
    _, seen = sampled_by_hand(pipe, "sd3", range(STEPS - 1))
    base, found = predictor(pipe, "sd3", adapter=False), []
    for i, (_, prediction, place) in enumerate(seen):
        x = place[0].double()
        (mean, std), (other, _) = (
            sde_law(pipe.scheduler, i, x, v.detach().double()) for v in (prediction, base(*place))
        )
        s = std / (pipe.scheduler.sigmas[i] - pipe.scheduler.sigmas[i + 1]).double().sqrt()
        found.append(((mean - other) ** 2).mean() / (2 * s**2))
    torch.testing.assert_close(tally.logs["kl"].double(), torch.stack(found).mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
@pytest.mark.parametrize("parts", [[slice(0, 2), slice(2, 4)], [slice(i, i + 1) for i in range(4)]], ids=["2", "4"])
def test_on_the_first_pass_the_ratio_is_one_whatever_the_micro_batches(family, parts):
    pipe = tiny.pipeline(family, lora=True)
    whole, _ = gradient(pipe, OBJECTIVES[family]()(update_of(pipe, family)))
    found, tally = gradient(pipe, OBJECTIVES[family]()(update_of(pipe, family, parts)))
    assert tally.logs["ratio_deviation"] == tally.logs["approx_kl"] == tally.logs["clip_fraction"] == 0
    scale = max(g.abs().max() for g in whole)
    assert max((a - b).abs().max() for a, b in zip(found, whole, strict=True)) < 0.02 * scale


def test_on_the_first_pass_the_ratio_is_one_in_half_precision_too():
    pipe = tiny.pipeline("sd", lora=True).to(torch.bfloat16)
    found, tally = gradient(pipe, DDPO()(update_of(pipe, "sd")))
    assert tally.logs["ratio_deviation"] == 0
    single = tiny.pipeline("sd", lora=True)
    wanted, _ = gradient(single, DDPO()(update_of(single, "sd")))
    half, whole = (torch.cat([g.flatten().float() for g in each]) for each in (found, wanted))
    assert torch.cosine_similarity(half, whole, dim=0) > 0.6


def test_later_passes_clip_ratios_and_every_minibatch_is_a_step():
    pipe = tiny.pipeline("sd", lora=True)
    objective = DDPO(inner_epochs=2, minibatches=2, clip_range=1e-4)
    steps = objective(update_of(pipe, "sd", [slice(0, 2), slice(2, 4)]))
    parameters, tallies = trainable(denoiser(pipe)), []
    for tally in steps:
        tallies.append(tally)
        with torch.no_grad():
            for parameter in parameters:
                parameter -= 0.01 * parameter.grad
        denoiser(pipe).zero_grad()
    assert [len(tally.rewards) for tally in tallies] == [2, 2, 2, 2]
    assert tallies[0].logs["ratio_deviation"] == 0 < tallies[2].logs["ratio_deviation"]
    assert torch.equal(tallies[0].rewards, tallies[2].rewards)
    assert tallies[2].logs["clip_fraction"] > 0
    assert tallies[2].loss < tallies[0].loss  # the first two steps raised the probability of the better images


def test_groups_with_equal_rewards_are_not_replayed():
    pipe = tiny.pipeline("sd", lora=True)

    def only_blue(images, prompts):
        return brightness(images, prompts) * torch.tensor([float(prompt != "red") for prompt in prompts])

    parts = [slice(0, 2), slice(2, 4)]
    forwards = tiny.counted(pipe.unet)
    found, tally = gradient(pipe, DDPO()(update_of(pipe, "sd", parts, reward=only_blue)))
    assert len(forwards) == 2 * STEPS + (STEPS - 1)
    assert tally.logs["idle"] == 0.5
    assert len(tally.rewards) == 4
    penalised, _ = gradient(pipe, DDPO()(update_of(pipe, "sd", parts, reward=only_blue, penalties={"kl": KL(1e-12)})))
    assert_same(found, penalised)


def test_micro_batches_that_processes_are_at_together():
    parts = micro_batches(settings(batch_size=12, micro_batch_size=2), 3)
    for rank in range(3):
        update = Update(1, 0, [], [], SimpleNamespace(num_processes=3, process_index=rank))
        assert [update.alongside(part) for part in parts[rank::3]] == [slice(0, 6), slice(6, 12)]


def test_a_denoiser_that_does_not_repeat_itself_is_refused():
    pipe = tiny.pipeline("sd", lora=True)
    pipe.unet.register_forward_hook(lambda module, args, output: (output[0] + 1e-3 * torch.randn(output[0].shape),))
    with pytest.raises(TrainingError, match=r"must be 1 .* but is off by .* more than 10% of clip_range"):
        list(DDPO()(update_of(pipe, "sd")))


def test_only_the_steps_of_the_window_are_stochastic_and_trained():
    pipe = tiny.pipeline("sd3", lora=True)
    forwards = tiny.counted(pipe.transformer)
    objective = FlowGRPO(window=1, window_range=(0, 3))
    starts = set()
    for number in range(16):
        with objective.sampler(pipe, default_rng(number)):
            starts |= set(planned_stochastic_steps(pipe, prompt="red", **NOISY["sd3"].call()))
    assert starts == {0, 1, 2}
    forwards.clear()
    gradient(pipe, objective(update_of(pipe, "sd3")))
    assert len(forwards) == STEPS + 1


def test_without_the_unconditional_gradient():
    pipe = tiny.pipeline("sd", lora=True)
    whole, _ = gradient(pipe, DDPO()(update_of(pipe, "sd")))
    half, tally = gradient(pipe, DDPO(unconditional_gradient=False)(update_of(pipe, "sd")))
    assert tally.logs["ratio_deviation"] == 0
    flat = [torch.cat([g.flatten() for g in each]) for each in (whole, half)]
    cosine = torch.cosine_similarity(*flat, dim=0)
    assert 0.5 < cosine < 0.999


def check(objective, family="sd", sampling=None, reward=brightness, **changes):
    pipe = tiny.shared(family)
    changes = {"batch_size": 4, "images_per_prompt": 2, **changes}
    check_training(pipe, objective, as_reward(reward), PROMPTS, settings(**changes), sampling or NOISY[family])


@pytest.mark.parametrize(
    ("objective", "family", "changes", "message"),
    [
        (DDPO(), "sd", {"sampling": SAMPLING["sd"]}, r"DDIMScheduler draws no noise.*eta=1.0"),
        (DDPO(), "sd3", {}, r"FlowMatchEulerDiscreteScheduler draws no noise.*flow_sde"),
        (DDPO(), "sd", {"images_per_prompt": 1}, "images_per_prompt to 2 or more, or training.objective.baseline"),
        (DDPO(minibatches=2), "sd", {}, "minibatches is 2, among which the 1 micro-batches"),
        (DDPO(steps=4), "sd", {}, "steps is 4, but only 3 steps draw noise"),
        (DDPO(unconditional_gradient=False), "sd", {"sampling": SamplingConfig(guidance_scale=1.0)}, "guidance is off"),
        (DDPO(), "sd", {"sampling": SamplingConfig(arguments={"etta": 1.0})}, "did you mean 'eta'"),
        (FlowGRPO(), "sd", {}, "DDIMScheduler"),
        (DDPO(), "sd", {"regularizers": {"kl": {"coefficient": 1.0, "form": "flow_grpo"}}}, "take gaussian"),
        (FlowGRPO(window=2), "sd3", {}, r"window of 2 steps does not fit into .*window_range \[0, 5\] of 4 steps"),
        (FlowGRPO(window=3, window_range=(1, 3)), "sd3", {}, "does not fit"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sampled(objective, family, changes, message):
    forwards = tiny.counted(denoiser(tiny.shared(family)))
    with pytest.raises(ValueError, match=message):
        check(objective, family, **changes)
    assert len(forwards) <= 1


def test_what_can_work_is_not():
    check(DDPO(steps=3), reward=JPEGCompressibility())
    check(DDPO(minibatches=2), micro_batch_size=1)
    check(DDPO(baseline="update", normalize="update"), images_per_prompt=1)
    check(FlowGRPO(window=2, window_range=(1, 4)), "sd3")
    check(FlowGRPO(), "flux", regularizers={"kl": {"coefficient": 1.0, "form": "flow_grpo"}})


def of_others(images, prompts):
    """The rewards of other images of the same prompts."""
    return JPEGCompressibility()(images, prompts).roll(1)


@pytest.mark.parametrize(("family", "images", "steps", "rise"), [("sd", 8, 6, 0.006), ("sd3", 6, 5, 0.02)])
def test_a_reward_without_gradient_rises_and_that_of_other_images_does_not(family, images, steps, rise, tmp_path):
    sizes = []
    sampling = NOISY[family].model_copy(update={"num_inference_steps": 3})
    for reward in (JPEGCompressibility(), of_others):
        pipe = tiny.pipeline(family)
        options = {"batch_size": 3 * images, "images_per_prompt": images, "steps": steps, "lr": 0.1}
        make_trainer(
            tmp_path / str(reward), family, OBJECTIVES[family](), reward, pipe, sampling=sampling, **options
        ).run()
        sizes.append(JPEGCompressibility()(rollout(pipe, **FIXED, **sampling.call()).images, []).mean())
    before = JPEGCompressibility()(rollout(tiny.pipeline(family), **FIXED, **sampling.call()).images, []).mean()
    assert sizes[0] > before + rise
    assert sizes[1] < before + rise / 2
