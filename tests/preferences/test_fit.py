"""One fit: what it learns, against closed form, and that interruptions and processes do not change it."""

import math

import pytest
import torch
from scipy.optimize import minimize

from sfumato.preferences import Pair, PreferenceFit, PreferenceTraining, bradley_terry_loss, evaluate_preference
from sfumato.rewards import PreferenceReward
from tests import forked
from tests.golden import seeded_clip
from tests.preferences.world import red_pictures
from tests.rewards.tiny_clip import save_tiny_clip
from tests.training.test_processes import free_port, ranks

FULL = {"trainable": "full", "lr": 2e-3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def planted(noise=0.1):
    """Images by key; the less red one is preferred (the untrained CLIP likes red), one label in ten is wrong."""
    pictures, redness = red_pictures(200)
    generator = torch.Generator().manual_seed(1)
    pairs = []
    for i in range(0, 200, 2):
        label = float(redness[i] < redness[i + 1])
        wrong = i < 140 and torch.rand((), generator=generator) < noise
        pairs.append(Pair("cat", str(i), str(i + 1), 1 - label if wrong else label))
    return {str(i): picture for i, picture in enumerate(pictures)}, pairs[:70], pairs[70:]


@pytest.fixture(scope="module")
def world():
    return planted()


def fit(clip, world, state=None, **settings):
    images, pairs, held_out = world
    return PreferenceFit(
        PreferenceReward(clip), pairs, held_out, PreferenceTraining(**settings), images.__getitem__, state
    )


def weights(found):
    """All that was trained."""
    return torch.cat([parameter.detach().flatten() for parameter in found.parameters.values()])


def judged(found, images):
    """Rewards of some images. Keys of attention have biases that no reward depends on, so weights say less."""
    return found.reward(torch.stack([images[str(i)] for i in range(8)]), ["cat", "dog"] * 4)


def test_a_linear_head_is_the_logistic_regression_on_differences_of_embeddings(clip, world):
    images, pairs, _ = world
    config = {"steps": 4000, "batch_size": 70, "lr": 0.03, "weight_decay": 0.0, "evaluate_every": 4000}
    found = fit(clip, (images, pairs, pairs), **config)
    found.run()
    backbone = found.reward.backbone
    with torch.no_grad():
        pictures = torch.stack([backbone.image_embeds(images[str(i)][None])[0] for i in range(140)])
        match = backbone.logit_scale * pictures @ backbone.text_embeds(["cat"])[0]
    features = torch.cat([4 * pictures, match[:, None]], 1).double()
    differences, labels = features[0::2] - features[1::2], torch.tensor([pair.label for pair in pairs])

    def loss(w):
        return bradley_terry_loss(differences @ torch.from_numpy(w), labels).item()

    best = minimize(loss, torch.zeros(17).double().numpy(), method="BFGS")
    assert found.looks[-1]["loss"] == pytest.approx(best.fun, rel=0.02) and best.fun < 0.6


def test_the_same_seed_gives_the_same_reward_and_another_seed_another(clip, world):
    found = [fit(clip, world, steps=10, hidden=4, seed=seed, evaluate_every=5) for seed in (0, 0, 1)]
    one, same, other = (weights(each) for each in found if each.run())
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_it_stops_early_and_keeps_the_best_step(clip, world):
    images, pairs, held_out = world
    flipped = [Pair(pair.prompt, pair.image_0, pair.image_1, 1 - pair.label) for pair in held_out]
    found = fit(clip, (images, pairs, flipped), steps=200, lr=0.02, evaluate_every=5, patience=3)
    looks = found.run()
    best = min(looks, key=lambda record: record["loss"])
    assert looks[-1]["step"] == best["step"] + 15 < 200
    assert evaluate_preference(found.reward, flipped, images.__getitem__).loss == pytest.approx(best["loss"], rel=1e-5)
    assert not any(parameter.requires_grad for parameter in found.reward.head.parameters())


def test_ties_keep_two_images_level(clip, world):
    images, pairs, held_out = world
    ties = [Pair(pair.prompt, pair.image_0, pair.image_1, 0.5) for pair in pairs]
    before = evaluate_preference(PreferenceReward(clip), held_out, images.__getitem__).loss
    found = fit(clip, (images, ties, ties), steps=100, lr=0.02)
    found.run()
    after = evaluate_preference(found.reward, held_out, images.__getitem__).loss
    assert abs(after - math.log(2)) < 0.1 < abs(before - math.log(2))


def test_pairs_that_say_nothing_of_the_prompt_take_its_weight_away(clip, world):
    found = fit(clip, world, steps=100, lr=0.02)
    found.run()
    assert found.reward.head.match < 0.5


def test_full_training_moves_a_backbone_of_its_own_and_forgets_what_the_old_one_said(clip, world):
    picture, reward, other = world[0]["0"][None], PreferenceReward(clip), PreferenceReward(clip)
    before = reward(picture, ["cat"])
    config = PreferenceTraining(steps=2, evaluate_every=1, **FULL)
    PreferenceFit(reward, world[1], world[2], config, world[0].__getitem__).run()
    fresh = reward.logits(reward.backbone.image_embeds(picture), reward.backbone.text_embeds(["cat"]))
    assert torch.equal(reward(picture, ["cat"]), fresh) and not torch.equal(fresh, before)
    assert torch.equal(other(picture, ["cat"]), before)


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"hidden": None, **FULL}], ids=["head", "whole"])
def test_a_siglip_is_trained_too(world, tmp_path, settings):
    seeded_clip.siglip(tmp_path)
    found = fit(tmp_path, world, steps=30, evaluate_every=10, **{"lr": 0.02, **settings})
    looks = found.run()
    assert min(look["loss"] for look in looks) < math.log(2)
    found.reward.save(tmp_path / "reward", with_backbone=found.config.full)
    images = torch.stack([world[0]["0"], world[0]["1"]])
    loaded = PreferenceReward(tmp_path / "reward")(images, ["cat", "dog"])
    torch.testing.assert_close(loaded, found.reward(images, ["cat", "dog"]))


@pytest.mark.parametrize("settings", [{}, FULL], ids=["head", "full"])
def test_micro_batches_add_up_to_the_batch(clip, world, settings):
    parts = [
        fit(clip, world, steps=3, batch_size=9, micro_batch_size=size, evaluate_every=3, **settings)
        for size in (None, 4, 1)
    ]
    whole, *others = (judged(each, world[0]) for each in parts if each.run())
    for other in others:
        torch.testing.assert_close(other, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings", [{"hidden": 4}, {"hidden": 4, **FULL}, {"hidden": None, **FULL}], ids=["head", "full", "no head"]
)
def test_interrupted_at_any_step_it_continues_bit_for_bit(clip, world, tmp_path, settings):
    settings = {"steps": 12, "evaluate_every": 4, "warmup_steps": 6, "weight_decay": 0.01, **settings}
    whole = fit(clip, world, **settings)
    looks = whole.run()
    for step in (1, 4, 6, 8, 11, 12):
        state = tmp_path / f"{step}.safetensors"
        for record in fit(clip, world, state, **settings):
            if record["step"] == step:
                break
        again = fit(clip, world, state, **settings)
        assert again.step == 4 * (step // 4)
        assert again.run() == looks and torch.equal(weights(again), weights(whole))


def test_a_damaged_state_and_that_of_more_processes_are_refused(clip, world, tmp_path):
    state = tmp_path / "state.safetensors"
    fit(clip, world, state, steps=2, evaluate_every=1).run()
    from sfumato.preferences.state import load_state, save_state

    tensors, facts = load_state(state)
    save_state(state, tensors, {**facts, "processes": 2})
    with pytest.raises(ValueError, match=r"by 2 processes, and 1 would round sums differently"):
        fit(clip, world, state, steps=2, evaluate_every=1)
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"state\.safetensors is damaged .*delete it"):
        fit(clip, world, state, steps=2, evaluate_every=1)


CASES = {"head": {"hidden": 4}, "full": {**FULL, "weight_decay": 0.01}}


def train_case(clip, case, path):
    """In a process of its own, or in one of two."""
    found = fit(clip, planted(), steps=4, batch_size=10, micro_batch_size=3, evaluate_every=2, **CASES[case])
    looks = found.run()
    if found.accelerator.is_main_process:
        torch.save({"rewards": judged(found, planted()[0]), "looks": looks}, path)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_reward_of_one(clip, case, tmp_path):
    log = tmp_path / "log"
    train_case(clip, case, tmp_path / "one")
    started = [forked.start(train_case, clip, case, tmp_path / "two", log=log, **rank) for rank in ranks(free_port())]
    forked.finish(*started, log=log)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    torch.testing.assert_close(two["rewards"], one["rewards"], rtol=1e-4, atol=1e-4)
    for found, wanted in zip(two["looks"], one["looks"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)


def test_a_loss_that_is_not_finite_ends_it(clip, world):
    images, pairs, held_out = world
    broken = {**images, pairs[0].image_0: torch.full((3, 16, 16), math.nan)}
    with pytest.raises(ValueError, match=r"the loss of step 1 is not finite: lower training\.lr"):
        fit(clip, (broken, pairs[:1], held_out), steps=2).run()


def test_empty_sides_are_refused(clip, world):
    with pytest.raises(ValueError, match="70 to learn from, 0 held out"):
        fit(clip, (world[0], world[1], []))


def test_autocast_changes_little(clip, world):
    one, two = (fit(clip, world, steps=10, evaluate_every=10, autocast=dtype) for dtype in (None, "bfloat16"))
    assert one.run()[-1]["loss"] == pytest.approx(two.run()[-1]["loss"], rel=0.05)
    assert not torch.equal(weights(one), weights(two))
    assert two.reward.head.output.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": "heads"}, "'head' or 'full'"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"hidden": None}, "null leaves no head to train: set trainable: full"),
        ({"curve": [0.5, 1.5]}, "less than 1"),
    ],
)
def test_settings_that_train_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PreferenceTraining(**settings)
