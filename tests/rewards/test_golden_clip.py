"""CLIPScore, PickScore, the aesthetic predictor and SigLIP against their own code (golden/make_rewards_clip.py)."""

from dataclasses import replace

import pytest
import torch

from sfumato.convert import convert_weights
from sfumato.rewards import CLIPScore, LAIONAesthetic, SigLIPScore, build_reward
from tests.golden import seeded, seeded_clip
from tests.rewards.golden_clip import GOLDEN, noise_in_every_matrix, relative

SIZES = [(32, 32), (60, 100)]
"""Of the models themselves, and one that is resized and cropped."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for kind in (seeded_clip.clip, seeded_clip.siglip):
        (folder / kind.__name__).mkdir()
        kind(folder / kind.__name__)
    torch.save(seeded_clip.aesthetic(), folder / "linear.pth")
    convert_weights("aesthetic", [folder / "linear.pth"], folder / "aesthetic.safetensors")
    return folder


@pytest.fixture
def rewards(folder, monkeypatch):
    """By the name in the golden file; a score, or what becomes of the scores of a prompt's pictures."""
    local = {"model": str(folder / "clip"), "processor": str(folder / "clip")}
    made = {
        "clip_score": (CLIPScore(folder / "clip"), lambda r: r),
        "pickscore": (build_reward({"name": "pickscore", **local}), lambda r: r.softmax(0)),
        "aesthetic": (LAIONAesthetic(folder / "aesthetic.safetensors", folder / "clip"), lambda r: r),
        "siglip": (SigLIPScore(folder / "siglip"), torch.sigmoid),
    }
    for reward, _ in made.values():  # to the 8 bits that PIL rounds to
        backbone = reward.backbone
        monkeypatch.setattr(backbone, "preprocess", replace(backbone.preprocess, rounds=True))
    return made


def difference(reward, finish, size, theirs):
    """Relative, over the prompts that they have."""
    images = seeded.pictures(3, *size).float() / 255
    prompts = seeded_clip.PROMPTS[: len(theirs)]
    return relative(torch.stack([finish(reward(images, [prompt] * 3)) for prompt in prompts]), theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["clip_score", "pickscore", "aesthetic", "siglip"])
def test_it_is_what_the_reference_says(rewards, name, size):
    theirs = torch.tensor(GOLDEN["{}x{}".format(*size)][name])
    assert difference(*rewards[name], size, theirs) < 1e-4
    assert theirs.std() / theirs.abs().mean() > 1e-2  # scores differ far more than the two do


@pytest.mark.parametrize("name", ["clip_score", "pickscore", "aesthetic", "siglip"])
def test_a_weight_that_is_off_by_a_percent_would_be_seen(rewards, name):
    reward, finish = rewards[name]
    theirs = torch.tensor(GOLDEN["32x32"][name])
    for weight in noise_in_every_matrix(reward.backbone):
        blind = name == "aesthetic" and weight.startswith("text")
        assert (difference(reward, finish, (32, 32), theirs) > 1e-4) != blind, weight


def test_pickscore_bears_its_name(rewards):
    assert rewards["pickscore"][0].name == "pickscore"
