import pytest
import torch

from sfumato.rewards import PreferenceReward, SigLIPScore, score
from tests.golden import seeded, seeded_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    seeded_clip.siglip(folder)
    return folder


@pytest.fixture
def images():
    return seeded.pictures(2, 40, 40).float() / 255


def test_it_is_the_logit_and_within_its_range(folder, images):
    reward = SigLIPScore(folder)
    assert reward.range == pytest.approx((-110, 90), rel=1e-5)
    found = score(reward, images, ["cat", "dog"])
    cosines = (reward.backbone.image_embeds(images) * reward.backbone.text_embeds(["cat", "dog"])).sum(1)
    torch.testing.assert_close(found, 100 * cosines - 10, rtol=1e-4, atol=1e-4)


def test_case_and_company_of_a_prompt_do_not_matter(folder, images):
    reward = SigLIPScore(folder)
    alone = reward(images[:1], ["cat"])
    torch.testing.assert_close(SigLIPScore(folder)(images, ["CAT", "a very long prompt of many words"])[:1], alone)


def test_gradient_equals_finite_differences(folder):
    reward = SigLIPScore(folder, dtype=torch.float64)
    images = torch.rand(1, 3, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    assert torch.autograd.gradcheck(lambda x: reward(x, ["cat"]), images.requires_grad_(), atol=1e-4, rtol=1e-3)


def test_scores_in_bf16_are_float32(folder, images):
    rough = score(SigLIPScore(folder, dtype=torch.bfloat16), images, ["cat", "dog"])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, score(SigLIPScore(folder), images, ["cat", "dog"]), atol=5, rtol=0)


def test_a_clip_has_no_such_logit(tiny_clip):
    with pytest.raises(ValueError, match="has no logit_bias: for a CLIP take clip_score"):
        SigLIPScore(tiny_clip)


def test_a_preference_reward_takes_a_siglip_too(folder, images):
    reward = PreferenceReward(folder)
    torch.testing.assert_close(reward(images, ["cat", "dog"]), SigLIPScore(folder)(images, ["cat", "dog"]) + 10)
