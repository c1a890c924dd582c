"""Rewards of other packages: a distribution with entry points, as pip would have installed it, on sys.path."""

import pytest
import torch

from sfumato.rewards import build_reward, list_rewards, score

IMAGES, PROMPTS = torch.rand(2, 3, 8, 8), ["a", "b"]
CODE = '''
from sfumato.rewards import RewardInfo


def warmth(images, prompts):
    """Red minus blue.

    More.
    """
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


warmth.range = (-1.0, 1.0)


class Power:
    name, differentiable = "power", False
    range = property(lambda self: (0.0, 1.0))

    def __init__(self, p=1, device="cpu"):
        self.p, self.device = p, device

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3)) ** self.p


def make(p):
    return Power(p)


info = RewardInfo("whatever", "A power of brightness", "[0, 1]", True, make, model="me/power", licence="MIT")
number = 3
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    def install(package, **entries):
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(CODE)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{attribute}" for name, attribute in entries.items()]
        (info / "entry_points.txt").write_text("[sfumato.rewards]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_functions_classes_and_infos_are_built_by_name(install):
    install("warm-rewards", warmth="warmth", power="Power", described="info")
    warmth = build_reward("warmth")
    assert warmth.range == (-1.0, 1.0) and warmth.differentiable
    assert torch.equal(score(warmth, IMAGES, PROMPTS), IMAGES[:, 0].mean((1, 2)) - IMAGES[:, 2].mean((1, 2)))
    for name in ("power", "described"):
        power = build_reward({"name": name, "p": 2})
        torch.testing.assert_close(score(power, IMAGES, PROMPTS), IMAGES.mean((1, 2, 3)) ** 2)
    assert build_reward("power", device="meta").device == "meta"
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'q'; its options are: p"):
        build_reward({"name": "power", "q": 2})


def test_they_are_listed_with_what_is_known_of_them(install):
    install("warm-rewards", warmth="warmth", power="Power", described="info")
    found = {info.name: info for info in list_rewards()}
    assert found["warmth"].description == "Red minus blue." and found["warmth"].range == "[-1, 1]"
    assert not found["power"].differentiable and found["power"].range == "depends on its options"
    assert (found["described"].model, found["described"].licence) == ("me/power", "MIT")
    assert {found[name].package for name in ("warmth", "power", "described")} == {"warm-rewards"}
    assert found["colourfulness"].package == ""
    with pytest.raises(ValueError, match=r"unknown reward 'warmht': did you mean 'warmth'\?"):
        build_reward("warmht")


def test_a_name_of_ours_is_refused(install):
    install("loud-rewards", colourfulness="warmth", fine="warmth")
    with pytest.raises(ValueError, match="loud-rewards brings a reward 'colourfulness', and so does sfumato itself"):
        build_reward("colourfulness")
    with pytest.raises(ValueError, match="rename its entry point"):
        list_rewards()
    assert build_reward("fine").name == "warmth"


def test_two_packages_with_one_name_are_refused(install):
    install("one", shared="warmth", alone="warmth")
    install("two", shared="warmth")
    with pytest.raises(ValueError, match=r"the package (one|two) brings a reward 'shared', and so does (one|two)"):
        build_reward("shared")
    assert build_reward("alone").name == "warmth"


@pytest.mark.parametrize(
    ("attribute", "message"), [("absent", "of broken cannot be loaded: AttributeError"), ("number", "is 3: it has to")]
)
def test_a_broken_one_is_named_when_it_is_used(install, attribute, message):
    install("broken", odd=attribute)
    with pytest.raises(ValueError, match=message):
        build_reward("odd")
    assert build_reward("colourfulness").name == "colourfulness"
