"""Diffusion-DPO and supervised fine-tuning against losses written out by hand from the components of the pipelines."""

import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from sfumato.images import load_image
from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.pipelines.rollout import rollout
from sfumato.preferences import load_pairs
from sfumato.training import SFT, DiffusionDPO
from sfumato.training.denoising import spread_levels
from tests import tiny
from tests.pipelines.differences import agrees, trained
from tests.training.common import brightness, make_trainer
from tests.training.pairs_bed import LEVELS, WORDS, call, outcomes, single, write_pairs

LABELS = [1.0, 0.0, 0.5]
KINDS = pytest.mark.parametrize("kind", ["sd", "sd-v", "sd3", "flux"])


def pipeline(kind, lora=True):
    """In float64, as the losses compare small differences."""
    pipe = tiny.pipeline(kind.removesuffix("-v"), lora=lora).to(torch.float64)
    if kind == "sd-v":
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    return pipe


def encoded(pipe, path, kind):
    """x0 (1, ...) of an image."""
    latents = pipe.vae.encode(2 * load_image(path)[None].double() - 1).latent_dist.mode()
    latents = (latents - (getattr(pipe.vae.config, "shift_factor", None) or 0.0)) * pipe.vae.config.scaling_factor
    return pipe._pack_latents(latents, *latents.shape) if kind == "flux" else latents


def error_by_hand(pipe, kind, x0, prompt, place, seed):
    """The mean squared error of the prediction for one image, 0-d."""
    noise = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed))[None].double()
    family, scheduler = kind.removesuffix("-v"), pipe.scheduler
    if family == "sd":
        scheduler.set_timesteps(LEVELS)
        t = scheduler.timesteps[place]
        alpha, sigma = scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt()
        embeddings = pipe.encode_prompt([prompt], "cpu", 1, False)[0]
        prediction = pipe.unet(alpha * x0 + sigma * noise, t, embeddings).sample
        wanted = alpha * noise - sigma * x0 if kind == "sd-v" else noise
        return (prediction - wanted).square().mean()
    if family == "sd3":
        scheduler.set_timesteps(LEVELS)
        embeddings, _, pooled, _ = pipe.encode_prompt(prompt=[prompt], prompt_2=None, prompt_3=None)
        further = {"timestep": scheduler.timesteps[place][None]}
    else:
        grid = np.linspace(1.0, 1 / LEVELS, LEVELS)
        config = scheduler.config
        limits = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
        scheduler.set_timesteps(sigmas=grid, mu=calculate_shift(x0.shape[1], *limits))
        embeddings, pooled, text_ids = pipe.encode_prompt([prompt], None, max_sequence_length=tiny.TOKENS)
        side = math.isqrt(x0.shape[1])
        further = {
            "timestep": scheduler.sigmas[place][None],
            "guidance": torch.tensor([3.5]).double(),
            "txt_ids": text_ids,
            "img_ids": pipe._prepare_latent_image_ids(1, side, side, "cpu", torch.float64),
        }
    sigma = scheduler.sigmas[place]
    x = (1 - sigma) * x0 + sigma * noise
    conditions = {"encoder_hidden_states": embeddings, "pooled_projections": pooled}
    prediction = pipe.transformer(hidden_states=x, **conditions, **further).sample
    return (prediction - (noise - x0)).square().mean()


def errors_by_hand(pipe, kind, path, update):
    """(pairs, 2) and labels, in the order in which the update takes the pairs of the file."""
    pairs = [load_pairs(path)[i] for i in np.random.default_rng([0, 0, 2]).permutation(len(LABELS))]
    draws = update.random(0)
    places, seeds = spread_levels(draws, len(pairs), 1, LEVELS)[:, 0], draws.integers(2**32, size=len(pairs))
    rows = [
        torch.stack(
            [
                error_by_hand(pipe, kind, encoded(pipe, image, kind), pair.prompt, place, int(seed))
                for image in (pair.image_0, pair.image_1)
            ]
        )
        for pair, place, seed in zip(pairs, places, seeds, strict=True)
    ]
    return torch.stack(rows), torch.tensor([pair.label for pair in pairs])


def assert_same(pipe, found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    parameters = trainable(denoiser(pipe))
    gradients = [torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (found, wanted)]
    pairs = [(a, b) for a, b in zip(*gradients, strict=True) if b is not None and b.any()]
    scale = max(b.abs().max() for _, b in pairs)
    assert len(pairs) > len(parameters) / 2
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale)


@KINDS
def test_dpo_is_the_loss_by_hand(kind, tmp_path):
    path = write_pairs(tmp_path, LABELS)
    pipe = pipeline(kind)
    update = single(pipe, kind.removesuffix("-v"))
    found, logs = outcomes(DiffusionDPO(beta=20.0, pairs=path, noise_levels=LEVELS), update)
    errors, labels = errors_by_hand(pipe, kind, path, update)
    with torch.no_grad():
        base, _ = errors_by_hand(pipeline(kind, lora=False), kind, path, update)
    change = errors - base
    margins = -10.0 * (change[:, 0] - change[:, 1])
    likely = labels * margins.sigmoid().log() + (1 - labels) * (-margins).sigmoid().log()
    assert_same(pipe, found, -likely.mean())
    right = [0.5 if label == 0.5 else float((m > 0) == (label > 0.5)) for m, label in zip(margins, labels, strict=True)]
    assert logs["implicit_accuracy"] == pytest.approx(sum(right) / 3)
    assert logs["margin"] == pytest.approx(((2 * labels - 1) * margins).mean().item(), rel=1e-3, abs=1e-5)


@KINDS
def test_sft_is_the_denoising_loss_of_preferred_images(kind, tmp_path):
    path, pipe = write_pairs(tmp_path, LABELS), pipeline(kind)
    update = single(pipe, kind.removesuffix("-v"))
    found, _ = outcomes(SFT(pairs=path, noise_levels=LEVELS), update)
    errors, labels = errors_by_hand(pipe, kind, path, update)
    assert_same(pipe, found, (labels * errors[:, 0] + (1 - labels) * errors[:, 1]).mean())


@pytest.mark.parametrize("kind", ["sd", "flux"])
@pytest.mark.parametrize("objective", [DiffusionDPO, SFT])
def test_the_gradient_is_that_of_finite_differences(kind, objective, tmp_path):
    pipe = pipeline(kind)
    made = objective(pairs=write_pairs(tmp_path, LABELS), noise_levels=LEVELS)
    update = single(pipe, kind)
    assert agrees(trained(pipe), lambda: outcomes(made, update)[0], 1e-5, 1e-3)


def test_before_the_first_update_nothing_is_decided(tmp_path):
    path = write_pairs(tmp_path, LABELS)
    trainer = make_trainer(tmp_path / "run", objective=DiffusionDPO(pairs=path), batch_size=3, steps=2)
    first, second = trainer.run()
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert first["implicit_accuracy"] == 0.5 and first["margin"] == 0.0
    assert second["margin"] != 0.0
    assert "reward" not in first


def test_a_tie_pulls_the_margin_to_nothing(tmp_path):
    path, pipe = write_pairs(tmp_path, [0.5]), pipeline("sd")
    update = single(pipe, prompts=WORDS[:1])
    loss, _ = outcomes(DiffusionDPO(beta=20.0, pairs=path), update)
    assert loss > math.log(2)
    torch.optim.SGD(trainable(denoiser(pipe)), lr=1e-3).step(lambda: loss.backward())
    assert outcomes(DiffusionDPO(beta=20.0, pairs=path), update)[0] < loss


def test_pairs_of_the_base_are_judged_by_the_reward_and_drawn_anew(tmp_path):
    pipe, seen = pipeline("sd"), []

    def noted(images, prompts):
        seen.append(images)
        return brightness(images, prompts)

    objective = DiffusionDPO()
    found = []
    for number in (1, 1, 2):
        update = single(pipe, reward=noted, number=number)
        found.append(objective.source(update, update.batches[0], whole=True))
    first, again, other = found
    assert torch.equal(first.latents, again.latents) and not torch.equal(first.latents, other.latents)
    assert first.rows == [0, 0, 1, 1, 2, 2] and first.prompts == [word for word in WORDS for _ in range(2)]
    assert not torch.equal(first.latents[::2], first.latents[1::2])
    wanted = (brightness(seen[0], WORDS) > brightness(seen[1], WORDS)).float()
    assert torch.equal(first.weights.view(-1, 2), torch.stack([wanted, 1 - wanted], 1))
    with single(pipe).batches[0].base():
        base = rollout(pipe, prompt=WORDS, seeds=[50, 51, 52], **call("sd")).images
    assert torch.equal(seen[0], base)
    update = single(pipe)
    preferred = objective.source(update, update.batches[0], whole=False)
    assert torch.equal(preferred.latents, first.latents[first.weights == 1])


def test_the_best_of_several_candidates_is_learned_from():
    pipe, seen = pipeline("sd"), []

    def noted(images, prompts):
        seen.append(brightness(images, prompts))
        return seen[-1]

    update = single(pipe, reward=noted)
    examples = SFT(candidates=3).source(update, update.batches[0], whole=True)
    best = torch.stack(seen, 1).argmax(1)
    assert torch.equal(examples.weights.view(3, 3), torch.nn.functional.one_hot(best, 3).to(examples.weights))
    assert examples.rows == [0, 0, 0, 1, 1, 1, 2, 2, 2] and len(set(best.tolist())) > 1
    two = SFT().source(update, update.batches[0], whole=True)
    assert torch.equal(two.latents[::2], examples.latents[::3])


def test_equal_rewards_make_a_tie():
    pipe = pipeline("sd")
    update = single(pipe, reward=lambda images, prompts: images.new_zeros(len(images)))
    examples = DiffusionDPO().source(update, update.batches[0], whole=False)
    assert examples.weights.tolist() == [0.5] * 6
