"""The rewards that ship with emoji-64, in the state in which they ship."""

import json

import pytest
import torch

from sfumato import emoji64
from sfumato.rewards import build_reward, score


@pytest.mark.parametrize(
    "config", ["gold", {"name": "preference", "model": "emoji64"}, {"name": "clip_score", "model": "emoji64"}]
)
def test_they_load_by_name_and_score_within_their_range(config):
    reward = build_reward(config)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    scores = score(reward, images, ["fruit", "red apple, noto style"])
    assert ((scores >= reward.range[0]) & (scores <= reward.range[1])).all()
    if reward.name == "preference":
        scores.sum().backward()
        assert images.grad.isfinite().all() and images.grad.abs().max() > 0


def test_the_preference_reward_agrees_with_raters_whose_labels_are_a_tenth_wrong():
    report = json.loads(emoji64.path("preference", "evaluation.json").read_text())
    assert report["low"] > 0.7 and report["accuracy"] < 0.95
    assert report["true_labels"]["drawn"]["accuracy"] > report["accuracy"]
