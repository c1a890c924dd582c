import json
import math

import pytest
import torch

from sfumato.preferences import Pair, PreferenceTraining, evaluate_preference, fit_preference, train_preference
from sfumato.rewards import PreferenceReward, build_reward
from tests.rewards.tiny_clip import save_tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def world():
    """Images by key; the less red one is preferred (the untrained CLIP likes red), one label in ten is wrong."""
    generator = torch.Generator().manual_seed(0)
    images = {str(i): torch.rand(3, 16, 16, generator=generator) * 0.2 for i in range(200)}
    redness = torch.rand(200, generator=generator)
    pairs = []
    for i in range(0, 200, 2):
        images[str(i)][0] += 0.8 * redness[i]
        images[str(i + 1)][0] += 0.8 * redness[i + 1]
        label = float(redness[i] < redness[i + 1])
        if i < 140 and torch.rand((), generator=generator) < 0.1:
            label = 1 - label
        pairs.append(Pair("cat", str(i), str(i + 1), label))
    return images, pairs[:70], pairs[70:]


@pytest.mark.parametrize(
    "config",
    [
        PreferenceTraining(steps=60, lr=0.02),
        PreferenceTraining(steps=60, lr=0.02, hidden=8),
        PreferenceTraining(steps=30, lr=2e-3, trainable="full", batch_size=16, evaluate_every=15),
    ],
    ids=["linear", "hidden", "full"],
)
def test_a_planted_preference_is_learned(clip, world, tmp_path, config):
    images, pairs, held_out = world
    read = images.__getitem__
    before = evaluate_preference(PreferenceReward(clip), held_out, read)
    report = train_preference(clip, pairs, held_out, tmp_path / "reward", config, read)
    reward = build_reward({"name": "preference", "model": str(tmp_path / "reward")})
    after = evaluate_preference(reward, held_out, read)
    assert after.accuracy >= 0.85 > 0.5 > before.accuracy and after.low > 0.7
    assert after.loss < math.log(2) < before.loss
    assert after.accuracy == report["accuracy"] and after.loss == pytest.approx(report["loss"], rel=1e-5)
    assert json.loads((tmp_path / "reward" / "evaluation.json").read_text()) == report
    assert (tmp_path / "reward" / "model.safetensors").exists() == (config.trainable == "full")


def test_the_same_seed_gives_the_same_reward_and_another_seed_another(clip, world):
    images, pairs, held_out = world

    def weights(seed):
        reward = PreferenceReward(clip)
        config = PreferenceTraining(steps=10, hidden=4, seed=seed, evaluate_every=5)
        list(fit_preference(reward, pairs, held_out, config, images.__getitem__))
        return torch.nn.utils.parameters_to_vector(reward.head.parameters())

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_it_stops_early_and_keeps_the_best_step(clip, world):
    images, pairs, held_out = world
    reward = PreferenceReward(clip)
    flipped = [Pair(pair.prompt, pair.image_0, pair.image_1, 1 - pair.label) for pair in held_out]
    config = PreferenceTraining(steps=200, lr=0.02, evaluate_every=5, patience=3)
    records = list(fit_preference(reward, pairs, flipped, config, images.__getitem__))
    best = min(records, key=lambda record: record["loss"])
    assert records[-1]["step"] == best["step"] + 15 < 200
    assert evaluate_preference(reward, flipped, images.__getitem__).loss == pytest.approx(best["loss"], rel=1e-5)
    assert not any(parameter.requires_grad for parameter in reward.head.parameters())


def test_ties_keep_two_images_level(clip, world):
    images, pairs, held_out = world
    ties = [Pair(pair.prompt, pair.image_0, pair.image_1, 0.5) for pair in pairs]
    reward = PreferenceReward(clip)
    before = evaluate_preference(reward, held_out, images.__getitem__).loss
    list(fit_preference(reward, ties, ties, PreferenceTraining(steps=100, lr=0.02), images.__getitem__))
    after = evaluate_preference(reward, held_out, images.__getitem__).loss
    assert abs(after - math.log(2)) < 0.1 < abs(before - math.log(2))


def test_pairs_that_say_nothing_of_the_prompt_take_its_weight_away(clip, world):
    images, pairs, held_out = world
    reward = PreferenceReward(clip)
    list(fit_preference(reward, pairs, held_out, PreferenceTraining(steps=100, lr=0.02), images.__getitem__))
    assert reward.head.match < 0.5


def test_full_training_forgets_what_the_old_weights_said_of_a_prompt(clip, world):
    images, pairs, held_out = world
    reward = PreferenceReward(clip)
    picture = images["0"][None]
    reward(picture, ["cat"])
    config = PreferenceTraining(steps=2, trainable="full", evaluate_every=1)
    list(fit_preference(reward, pairs, held_out, config, images.__getitem__))
    fresh = reward.logits(reward.backbone.image_embeds(picture), reward.backbone.text_embeds(["cat"]))
    assert torch.equal(reward(picture, ["cat"]), fresh)


def test_empty_sides_are_refused(clip, world):
    with pytest.raises(ValueError, match="70 to learn from, 0 held out"):
        next(fit_preference(PreferenceReward(clip), world[1], [], PreferenceTraining()))


@pytest.mark.parametrize(
    ("field", "value", "message"), [("trainable", "heads", "'head' or 'full'"), ("steps", 0, "at least 1")]
)
def test_settings_that_train_nothing_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        PreferenceTraining(**{field: value})
