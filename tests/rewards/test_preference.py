import json

import pytest
import torch
from transformers import CLIPModel

from sfumato.rewards import PreferenceReward, build_reward
from sfumato.rewards.preference import save_ensemble
from tests.rewards.test_clip import PROMPTS, cosines
from tests.rewards.tiny_clip import save_tiny_clip


def with_random_head(folder, hidden=0):
    reward = PreferenceReward(folder)
    head = reward.add_head(hidden)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    return reward


def test_without_a_head_it_is_pickscore(tiny_clip, images):
    reward = PreferenceReward(tiny_clip)
    scale = CLIPModel.from_pretrained(tiny_clip).logit_scale.exp().item()
    torch.testing.assert_close(
        reward(images, PROMPTS), scale * cosines(tiny_clip, images, PROMPTS), rtol=1e-4, atol=1e-4
    )
    assert reward.range == pytest.approx((-scale, scale))


def test_tokenizer_and_preprocessing_may_live_elsewhere(tiny_clip, images, tmp_path):
    CLIPModel.from_pretrained(tiny_clip).save_pretrained(tmp_path)
    reward = PreferenceReward(tmp_path, processor=tiny_clip)
    assert torch.equal(reward(images, PROMPTS), PreferenceReward(tiny_clip)(images, PROMPTS))


@pytest.mark.parametrize("hidden", [0, 8])
def test_an_untrained_head_changes_nothing_and_a_trained_one_is_unbounded(tiny_clip, images, hidden):
    plain, reward = PreferenceReward(tiny_clip), PreferenceReward(tiny_clip)
    head = reward.add_head(hidden)
    assert torch.equal(reward(images, PROMPTS), plain(images, PROMPTS))
    with torch.no_grad():
        head.output.weight.fill_(1e3)
    assert reward(images, PROMPTS).abs().max() > plain.range[1]
    assert reward.range == (-float("inf"), float("inf"))


def test_linear_head_is_the_formula_that_docs_state(tiny_clip, images):
    reward = with_random_head(tiny_clip)
    image, text = reward.backbone.image_embeds(images), reward.backbone.text_embeds(PROMPTS)
    weight, bias = reward.head.output.weight[0], reward.head.output.bias
    match = reward.head.match * reward.backbone.logit_scale * (image * text).sum(-1)
    expected = match + 4 * image @ weight + bias  # sqrt(16) = 4
    torch.testing.assert_close(reward(images, PROMPTS), expected)


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("with_backbone", [False, True])
def test_saved_and_loaded_it_scores_exactly_the_same(images, tmp_path, hidden, with_backbone):
    clip = save_tiny_clip(tmp_path / "here" / "clip")
    reward = with_random_head(clip, hidden)
    folder = tmp_path / "here" / "reward"
    reward.save(folder, with_backbone)
    assert (folder / "model.safetensors").exists() == with_backbone
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1  # whoever may read one may read all
    moved = (tmp_path / "here").rename(tmp_path / "there") / "reward"
    loaded = PreferenceReward(moved)
    assert torch.equal(loaded(images, PROMPTS), reward(images, PROMPTS))
    assert not any(parameter.requires_grad for parameter in loaded.head.parameters())
    assert str(tmp_path) not in (moved / "preference.json").read_text()


def test_a_head_refuses_another_clip_than_its_own(tmp_path):
    clip = save_tiny_clip(tmp_path / "clip", seed=0)
    with_random_head(clip).save(tmp_path / "reward", with_backbone=False)
    PreferenceReward(tmp_path / "reward", dtype=torch.bfloat16)
    save_tiny_clip(clip, seed=1)
    with pytest.raises(ValueError, match=r"learned on another CLIP.*learn the reward again"):
        PreferenceReward(tmp_path / "reward")


def test_a_reward_that_was_moved_away_from_its_clip_says_where_that_was(tmp_path):
    with_random_head(save_tiny_clip(tmp_path / "clip")).save(tmp_path / "reward", with_backbone=False)
    (tmp_path / "deep").mkdir()
    moved = (tmp_path / "reward").rename(tmp_path / "deep" / "reward")
    with pytest.raises(FileNotFoundError, match=f"learned on the model in {tmp_path}/deep/clip, which is not there"):
        PreferenceReward(moved)


def test_a_damaged_head_is_named(tiny_clip, tmp_path):
    with_random_head(tiny_clip).save(tmp_path, with_backbone=False)
    head = tmp_path / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"head\.safetensors is damaged"):
        PreferenceReward(tmp_path)


def test_a_hub_id_is_kept_as_it_is(tiny_clip, tmp_path):
    reward = with_random_head(tiny_clip)
    reward.backbone.source, reward.backbone.processor = "someone/clip", "someone/processor"
    reward.save(tmp_path, with_backbone=False)
    saved = json.loads((tmp_path / "preference.json").read_text())
    assert saved == {"backbone": "someone/clip", "processor": "someone/processor", "hidden": 0}


def test_gradient_equals_finite_differences(tiny_clip, tmp_path):
    with_random_head(tiny_clip, 4).save(tmp_path / "reward", with_backbone=True)
    reward = PreferenceReward(tmp_path / "reward", dtype=torch.float64)
    images = torch.rand(1, 3, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    assert torch.autograd.gradcheck(lambda x: reward(x, ["cat"]), images.requires_grad_())


@pytest.mark.parametrize("hidden", [0, 8])
def test_rescaled_it_keeps_the_order_of_images(tiny_clip, images, hidden):
    reward = with_random_head(tiny_clip, hidden)
    before = reward(images, PROMPTS)
    reward.rescale(0.25, -3.0)
    torch.testing.assert_close(reward(images, PROMPTS), 0.25 * before - 3)
    with pytest.raises(ValueError, match="positive factor"):
        reward.rescale(0.0)


def test_without_a_head_its_temperature_is_rescaled_and_nothing_can_shift_it(images, tmp_path):
    reward = PreferenceReward(save_tiny_clip(tmp_path))
    before = reward(images, PROMPTS)
    with pytest.raises(ValueError, match="shifted only if it has a head"):
        reward.rescale(1.0, 1.0)
    reward.rescale(0.25)
    torch.testing.assert_close(reward(images, PROMPTS), 0.25 * before)
    reward.save(tmp_path / "saved", with_backbone=True)
    assert not (tmp_path / "saved" / "preference.json").exists()
    assert torch.equal(PreferenceReward(tmp_path / "saved")(images, PROMPTS), reward(images, PROMPTS))


def test_an_ensemble_is_built_of_the_rewards_in_subfolders(tmp_path, images):
    clip = save_tiny_clip(tmp_path / "clip")
    for name, hidden in (("a", 0), ("b", 4)):
        with_random_head(clip, hidden).save(tmp_path / "both" / name, with_backbone=False)
    save_ensemble(tmp_path / "both", ["a", "b"], 0.5)
    moved = (tmp_path / "both").rename(tmp_path / "moved")
    reward = build_reward({"name": "preference", "model": str(moved)})
    one, other = (PreferenceReward(moved / name)(images, PROMPTS) for name in "ab")
    torch.testing.assert_close(reward(images, PROMPTS), (one + other) / 2 - 0.5 * (one - other).abs() / 2)
    assert len({id(part.backbone) for part in reward.rewards}) == 1, "they share the backbone"
    with pytest.raises(ValueError, match="holds an ensemble of 2 rewards"):
        PreferenceReward(moved)


def test_a_reward_without_a_head_is_not_saved(tiny_clip, tmp_path):
    with pytest.raises(ValueError, match="no head"):
        PreferenceReward(tiny_clip).save(tmp_path, with_backbone=False)
