"""Learning from given images where the best prediction is known: gradients in closed form, and where training ends."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch

from sfumato.analytic import analytic_pipeline, gaussian
from sfumato.config import SamplingConfig, TrainingConfig
from sfumato.pipelines.plan import blank_rollout
from sfumato.pipelines.predictions import noise_level, noise_like
from sfumato.rewards import as_reward
from sfumato.training import SFT, Batch, DiffusionDPO, Trainer
from sfumato.training.denoising import spread_levels
from sfumato.training.examples import Examples
from sfumato.training.update import Update
from tests.analytic.bed import MEAN_B, VAR_B, scheduler

LEVELS, BETA = 3, 7.0
DRAWS = pytest.mark.parametrize("draws", [1, 3])
SCHEDULERS = pytest.mark.parametrize("name", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])


@dataclass(frozen=True)
class Given:
    """Rows (n, 2, D) of two images each, of which an update takes the first ones."""

    images: torch.Tensor
    labels: torch.Tensor

    def check(self, pipe, prompt, call):
        pass

    def __call__(self, update, batch, whole):
        count = len(batch.prompts)
        images, labels = self.images[:count], self.labels[:count]
        rows = [row for row in range(count) for _ in range(2)]
        latents, weights = images.reshape(2 * count, -1, 1, 1), torch.stack([labels, 1 - labels], 1).flatten()
        examples = Examples(latents, [""] * len(rows), rows, weights)
        return examples if whole else examples[weights.nonzero().flatten().tolist()]


def given(objective, images, labels):
    vars(objective)["source"] = Given(images, labels)
    return objective


def gradient(objective, name, count):
    """Of the loss of `count` rows by the mean of the base world; and α, σ (n, draws, 1), ε (n, draws, D) they got."""
    pipe = analytic_pipeline(gaussian(MEAN_B, VAR_B), scheduler(name))
    batch = Batch(pipe, [""] * count, list(range(count)), {}, as_reward(lambda i, p: i), nullcontext)
    update = Update(1, 0, batch.prompts, [batch], None)
    sum(each.loss for each in objective.outcomes(update, batch)).backward()
    blank = blank_rollout(pipe, prompt="", seeds=[0], num_inference_steps=LEVELS)
    levels = torch.tensor([noise_level(pipe.scheduler, step) for step in blank.steps]).double()
    random, shape = update.random(0), (count, objective.noise_draws)
    places = torch.from_numpy(spread_levels(random, *shape, LEVELS))
    alpha, sigma = levels[places[torch.arange(count) % len(places)]].unbind(-1)
    seeds = random.integers(2**32, size=shape).flatten().tolist()
    noise = noise_like(torch.zeros(len(seeds), 3).double(), seeds).reshape(*shape, 3)
    return pipe.unet.mean.weight.grad[:, 0], alpha[..., None], sigma[..., None], noise


def influence(name, alpha, sigma):
    """How much the prediction falls as the world's mean rises: ε falls by α σ / V, the velocity by σ / V."""
    return (sigma if name.startswith("Flow") else alpha * sigma) / (alpha**2 * VAR_B + sigma**2)


@DRAWS
@SCHEDULERS
def test_the_first_gradient_of_dpo(name, draws):
    """The noise cancels between the two images, so that only their difference remains."""
    images = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([1.0, 0.0, 0.5, 1.0] * 10).double()
    objective = given(DiffusionDPO(BETA, noise_levels=LEVELS, noise_draws=draws), images, labels)
    found, alpha, sigma, _ = gradient(objective, name, len(images))
    difference = (2 * labels - 1)[:, None, None] * (images[:, :1] - images[:, 1:])
    wanted = -BETA / (2 * 3) * (influence(name, alpha, sigma) ** 2 * difference).mean((0, 1))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


@DRAWS
@SCHEDULERS
def test_the_gradient_of_sft_leads_from_the_mean_to_the_data(name, draws):
    """The residual is c (x0 - m) - κ ε, whose noise averages to nothing, with κ = α v c / σ."""
    images = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([1.0, 0.0, 0.5, 1.0] * 10).double()
    objective = given(SFT(noise_levels=LEVELS, noise_draws=draws), images, labels)
    found, alpha, sigma, noise = gradient(objective, name, len(images))
    c = influence(name, alpha, sigma)
    preferred = (torch.stack([labels, 1 - labels], 1)[..., None] * images).sum(1, keepdim=True)
    wanted = -2 / 3 * (c * (c * (preferred - MEAN_B) - alpha * VAR_B * c / sigma * noise)).mean((0, 1))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)


def brightness(images, prompts):
    return images.mean(dim=(1, 2, 3))


def shuffled(images, prompts):
    """A reward that has nothing to do with brightness."""
    return (1e4 * images.sum(dim=(1, 2, 3))).sin()


def trained(folder, objective, reward=brightness):
    """By how much the mean of N(0.45, 0.05²) rises."""
    pipe = analytic_pipeline(gaussian([0.45] * 3, 0.05**2), scheduler("DDIMScheduler", timestep_spacing="trailing"))
    small = {
        "steps": 30,
        "batch_size": 16,
        "lr": 0.02,
        "lr_schedule": "linear",
        "checkpoint_every": 100,
        "monitor_every": None,
    }
    config = TrainingConfig.model_validate({**small, "lora": {"rank": 1, "targets": ["mean"]}})
    sampling = SamplingConfig(num_inference_steps=6, guidance_scale=1.0)
    Trainer(pipe, objective, reward, [""], config, sampling, folder).run()
    return (pipe.world().mean.detach() - 0.45).mean().item()


def test_what_the_reward_prefers_among_images_of_the_base_becomes_likelier(tmp_path):
    objective = DiffusionDPO(500.0, noise_levels=LEVELS)
    gain = trained(tmp_path / "right", objective)
    assert gain > 0.05
    assert abs(trained(tmp_path / "shuffled", objective, shuffled)) < gain / 4


def pairs():
    """Bright ones against dark ones, (16, 2, 3)."""
    noise = 0.03 * torch.randn(16, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    return noise + torch.tensor([0.55, 0.35])[None, :, None]


def test_bright_is_learned_from_bright_against_dark_and_nothing_from_shuffled_labels(tmp_path):
    right, mixed = torch.ones(16).double(), torch.tensor([1.0, 0.0, 0.0, 1.0] * 4).double()
    gain = trained(tmp_path / "right", given(DiffusionDPO(500.0, noise_levels=LEVELS), pairs(), right))
    assert gain > 0.05
    assert abs(trained(tmp_path / "mixed", given(DiffusionDPO(500.0, noise_levels=LEVELS), pairs(), mixed))) < gain / 4


def test_sft_ends_at_the_preferred_images(tmp_path):
    right = torch.ones(16).double()
    assert trained(tmp_path, given(SFT(noise_levels=LEVELS), pairs(), right)) == pytest.approx(0.1, abs=0.02)
