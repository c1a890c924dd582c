"""The rewards that ship with emoji-64, in the state in which they ship."""

import json

import pytest
import torch

from sfumato import emoji64
from sfumato.rewards import build_reward, score


@pytest.mark.parametrize(
    "config",
    [
        "gold",
        {"name": "gold", "style": "twemoji"},
        {"name": "preference", "model": "emoji64"},
        {"name": "clip_score", "model": "emoji64"},
        {"name": "aesthetic", "weights": "emoji64"},
    ],
)
def test_they_load_by_name_and_score_within_their_range(config):
    reward = build_reward(config)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    scores = score(reward, images, ["fruit", "red apple, noto style"])
    assert ((scores >= reward.range[0]) & (scores <= reward.range[1])).all()
    if reward.differentiable:
        scores.sum().backward()
        assert images.grad.isfinite().all() and images.grad.abs().max() > 0


def test_the_preference_reward_agrees_with_raters_whose_labels_are_a_tenth_wrong():
    report = json.loads(emoji64.path("preference", "evaluation.json").read_text())
    assert report["low"] > 0.7 and report["accuracy"] < 0.95
    assert report["true_labels"]["drawn"]["accuracy"] > report["accuracy"]


def test_the_aesthetic_reward_sees_the_style_that_its_raters_liked():
    facts = json.loads(emoji64.path("aesthetic", "evaluation.json").read_text())
    liked = sorted(facts["worth"], key=facts["worth"].__getitem__)
    for kind in ("drawn", "copied"):
        assert facts[kind]["correlation_with_ratings"] > 0.3
        assert sorted(facts[kind]["means"], key=facts[kind]["means"].__getitem__) == liked


def test_gold_of_another_style_is_another_score_and_an_unknown_style_is_refused():
    images = torch.rand(2, 3, 64, 64)
    found = [score(build_reward({"name": "gold", "style": style}), images, ["fruit"] * 2) for style in emoji64.STYLES]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(score(build_reward("gold"), images, ["fruit"] * 2), found[-1])
    with pytest.raises(ValueError, match=r"knows no style 'apple'.*noto, twemoji, fluent"):
        build_reward({"name": "gold", "style": "apple"})
