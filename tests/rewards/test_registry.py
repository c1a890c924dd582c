import inspect
import re

import pytest
import torch

from sfumato import rewards
from sfumato.rewards import (
    CLIPScore,
    Colourfulness,
    Constrained,
    Ensemble,
    JPEGCompressibility,
    Minimum,
    PreferenceReward,
    Product,
    WeightedSum,
    build_reward,
    list_rewards,
    score,
)
from sfumato.rewards.compose import Composite

IMAGES, PROMPTS = torch.rand(2, 3, 16, 16), ["a", "b"]


def is_reward(kind):
    """Whether it is a class of rewards that are not made of others."""
    named = inspect.isclass(kind) and kind is not rewards.Reward and hasattr(kind, "differentiable")
    return named and not issubclass(kind, Composite | rewards.RewardInfo)


def weights_dtype(reward):
    return reward.backbone.model.visual_projection.weight.dtype


def test_every_reward_says_what_it_is():
    names = [info.name for info in list_rewards()]
    assert len(set(names)) == len(names)
    assert {"preference", "clip_score", "pickscore", "jpeg_compressibility", "colourfulness", "gold"} <= set(names)
    for info in list_rewards():
        assert info.description and info.range
        made = info.build() if not set(inspect.signature(info.build).parameters) else None
        assert made is None or (made.name, made.differentiable) == (info.name, info.differentiable)


def test_names_mappings_and_lists(tiny_clip):
    assert isinstance(build_reward("colourfulness"), Colourfulness)
    assert isinstance(build_reward({"name": "jpeg_compressibility"}), JPEGCompressibility)
    clip = build_reward({"name": "clip_score", "model": str(tiny_clip)}, dtype=torch.bfloat16)
    assert isinstance(clip, CLIPScore) and weights_dtype(clip) == torch.bfloat16
    assert isinstance(build_reward({"name": "preference", "model": str(tiny_clip)}), PreferenceReward)
    both = build_reward([{"name": "colourfulness", "weight": 0.5}, {"name": "jpeg_compressibility"}])
    expected = 0.5 * Colourfulness()(IMAGES, PROMPTS) + JPEGCompressibility()(IMAGES, PROMPTS)
    assert torch.equal(score(both, IMAGES, PROMPTS), expected)
    alone = build_reward({"name": "colourfulness", "weight": 2})
    assert torch.equal(score(alone, IMAGES, PROMPTS), 2 * Colourfulness()(IMAGES, PROMPTS))


def test_rewards_of_rewards_are_written_like_any_other(tiny_clip):
    clip = {"name": "clip_score", "model": str(tiny_clip)}
    grey = {"name": "colourfulness", "weight": -0.01}
    colour, size = Colourfulness(), JPEGCompressibility()
    config = {"name": "minimum", "of": [grey, ["colourfulness", {"name": "jpeg_compressibility", "weight": 2}]]}
    found = build_reward(config)
    assert isinstance(found, Minimum) and isinstance(found.rewards[1], WeightedSum)
    expected = torch.minimum(-0.01 * colour(IMAGES, PROMPTS), colour(IMAGES, PROMPTS) + 2 * size(IMAGES, PROMPTS))
    assert torch.equal(score(found, IMAGES, PROMPTS), expected)
    limited = build_reward({"name": "constrained", "of": clip, "subject_to": grey, "at_least": -0.3, "strength": 5})
    assert isinstance(limited, Constrained) and (limited.at_least, limited.strength) == (-0.3, 5.0)
    assert isinstance(build_reward({"name": "ensemble", "of": [clip, clip], "penalty": 2}), Ensemble)
    assert isinstance(build_reward({"name": "product", "of": ["colourfulness", clip]}), Product)


def test_a_sum_by_name_is_the_list():
    parts = [{"name": "colourfulness", "weight": 0.5}, "jpeg_compressibility"]
    given = {"normalize": {"mean": 1, "std": 2}, "weight": 3}
    found, plain = build_reward({"name": "sum", "of": parts, **given}), build_reward(parts)
    torch.testing.assert_close(score(found, IMAGES, PROMPTS), 3 * (score(plain, IMAGES, PROMPTS) - 1) / 2)


def test_device_and_dtype_reach_the_parts(tiny_clip):
    clip = {"name": "clip_score", "model": str(tiny_clip)}
    found = build_reward({"name": "minimum", "of": [clip, "colourfulness"]}, dtype=torch.bfloat16)
    assert weights_dtype(found.rewards[0]) == torch.bfloat16


def test_a_recipe_names_the_dtype_of_a_reward_and_of_its_parts(tiny_clip):
    clip = {"name": "clip_score", "model": str(tiny_clip)}
    half = build_reward({"name": "minimum", "of": [clip, clip | {"dtype": "float32"}], "dtype": "bfloat16"})
    assert [weights_dtype(part) for part in half.rewards] == [torch.bfloat16, torch.float32]
    given = {"weight": 2, "normalize": {"mean": 1, "std": 2}, "dtype": "float16"}
    (normalized,) = build_reward(clip | given).rewards
    assert weights_dtype(normalized.rewards[0]) == torch.float16
    with pytest.raises(ValueError, match="dtype of a reward is one of float32, bfloat16, float16, not 'half'"):
        build_reward(clip | {"dtype": "half"})


def test_a_users_own_function_and_class_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "def darkness(images, prompts):\n    return 1 - images.mean((1, 2, 3))\n\n"
        "class Power:\n"
        "    name, range, differentiable = 'power', (0.0, 1.0), True\n"
        "    def __init__(self, p=1):\n        self.p = p\n"
        "    def __call__(self, images, prompts):\n        return images.mean((1, 2, 3)) ** self.p\n"
    )
    monkeypatch.chdir(tmp_path)
    darkness = build_reward({"name": "own_rewards:darkness"})
    assert darkness.name == "darkness"
    assert torch.equal(score(darkness, IMAGES, PROMPTS), 1 - IMAGES.mean((1, 2, 3)))
    power = build_reward({"name": "own_rewards:Power", "p": 2})
    assert power.range == (0.0, 1.0)
    torch.testing.assert_close(score(power, IMAGES, PROMPTS), IMAGES.mean((1, 2, 3)) ** 2)
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'q'; its options are: p"):
        build_reward({"name": "own_rewards:Power", "q": 2})
    with pytest.raises(ValueError, match="no attribute 'lightness'"):
        build_reward({"name": "own_rewards:lightness"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("colorfulness", r"did you mean 'colourfulness'\? There are preference, pickscore, "),
        ({"name": "clip_score"}, r"missing .*: 'model'; its options are: model\. It is 100 max.* folder, emoji64"),
        ({"name": "colourfulness", "strength": 2}, r"'strength'; its options are: none"),
        ({"model": "emoji64"}, "needs a name"),
        ({"name": "minimum"}, "missing a required argument: 'of'; its options are: of"),
        (
            {"name": "minimum", "of": "colourfulness"},
            "reward 'minimum': `of` is a list of rewards, not 'colourfulness'",
        ),
        ({"name": "ensemble", "of": ["colourfulness", "colorfulness"]}, "unknown reward 'colorfulness'"),
        ({"name": "colourfulness", "weight": "much"}, "the weight of 'colourfulness' is a number, not 'much'"),
        ({"name": "ensemble", "of": ["colourfulness"] * 2, "penalty": None}, "penalty is a number, not None"),
        ({"name": "no_such_module:reward"}, r"cannot load the reward 'no_such_module:reward'.*module:attribute"),
    ],
)
def test_what_cannot_be_built_says_what_to_do(config, message):
    with pytest.raises(ValueError, match=message):
        build_reward(config)


@pytest.mark.parametrize("kind", [kind for kind in vars(rewards).values() if is_reward(kind)])
def test_a_docstring_says_what_goes_in_whether_a_gradient_comes_out_and_the_licence(kind):
    text = kind.__doc__
    if "\n" not in text:  # it is another one but for a word
        text += getattr(rewards, re.search(r"`(\w+)`", text)[1]).__doc__
    assert re.search(r"Images\s+(are\s+floats|\(B,3,H,W\))\s+in\s+\[0, 1\]", text)
    assert re.search("[Ll]icence| under |Apache", text) and re.search("ifferentiable|gradient", text)
