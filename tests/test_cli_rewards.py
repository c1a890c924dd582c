"""Rewards on the command line: what there is, and a try on image files."""

import json
import re

import pytest
import torch

from sfumato.images import load_image, save_png
from sfumato.rewards import build_reward, list_rewards
from tests.rewards.tiny_clip import save_tiny_clip


@pytest.fixture
def pictures(tmp_path):
    """Two image files of different sizes."""
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, side in zip(paths, (16, 24), strict=True):
        save_png(torch.rand(3, side, side, generator=torch.Generator().manual_seed(side)), path)
    return paths


def test_the_list_has_everything_that_is_known(sfumato):
    outcome = sfumato("rewards", "list")
    head, *lines = outcome.out.rstrip().split("\n")
    assert head.split() == ["name", "observed", "gradient", "model", "licence", "size"]
    assert [line.split()[0] for line in lines[::2]] == [info.name for info in list_rewards()]
    (pickscore,) = (i for i, line in enumerate(lines) if line.startswith("pickscore "))
    assert all(word in lines[pickscore] for word in ("yuvalkirstain/PickScore_v1", "MIT", "3.9 GB", "yes"))
    assert lines[pickscore + 1].startswith("    PickScore") and "range: [-100, 100]" in lines[pickscore + 1]


def test_the_list_as_json_is_what_python_knows(sfumato):
    found = json.loads(sfumato("rewards", "list", "--json").out)
    assert found == [info.facts() for info in list_rewards()]
    by_name = {entry["name"]: entry for entry in found}
    assert by_name["gold"]["differentiable"] is False and "build" not in by_name["gold"]


def test_what_was_observed_lies_within_the_range():
    number = r"(-?(?:[\d.e+-]+|inf))"
    for info in list_rewards():
        bounds = re.match(rf"[\[(]{number}, {number}[\])]", info.range)
        found = re.search(rf"{number} to {number} on emoji-64", info.observed)
        if bounds and found:
            values = [float(bounds[1]), *map(float, found.groups()), float(bounds[2])]
            assert values == sorted(values), info


def test_image_files_are_scored(pictures, sfumato):
    outcome = sfumato("rewards", "score", "colourfulness", *pictures)
    assert outcome.code == 0, outcome.err
    head, *lines = outcome.out.rstrip().split("\n")
    assert head.split() == ["colourfulness", "image", "prompt"]
    expected = [build_reward("colourfulness")(load_image(path)[None], [""]).item() for path in pictures]
    assert [float(line.split()[0]) for line in lines] == pytest.approx(expected, rel=1e-4)
    assert [line.split()[1] for line in lines] == [str(path) for path in pictures]


def test_a_configuration_as_in_a_recipe_with_a_prompt_for_each_image(pictures, sfumato, tmp_path):
    clip = {"name": "clip_score", "model": str(save_tiny_clip(tmp_path / "clip"))}
    config = {"name": "minimum", "of": [clip, "colourfulness"]}
    arguments = (json.dumps(config), *pictures, "--prompt", "cat", "--prompt", "red dog", "--json")
    found = json.loads(sfumato("rewards", "score", *arguments).out)
    assert found["reward"] == "min(clip_score, colourfulness)"
    reward = build_reward(config)
    expected = [
        reward(load_image(path)[None], [prompt]).item()
        for path, prompt in zip(pictures, ("cat", "red dog"), strict=True)
    ]
    assert [row["score"] for row in found["scores"]] == pytest.approx(expected, rel=1e-5)
    assert [(row["image"], row["prompt"]) for row in found["scores"]] == [
        (str(pictures[0]), "cat"),
        (str(pictures[1]), "red dog"),
    ]
    one = json.loads(sfumato("rewards", "score", json.dumps(clip), *pictures, "--prompt", "sun", "--json").out)
    assert [row["prompt"] for row in one["scores"]] == ["sun", "sun"]


def test_what_cannot_be_scored_is_one_line(pictures, sfumato, tmp_path):
    def error(*arguments):
        outcome = sfumato("rewards", "score", *arguments)
        assert outcome.code == 1 and outcome.out == ""
        return outcome.err

    assert "did you mean 'colourfulness'" in error("colorfulness", *pictures)
    assert "2 prompts for 1 images" in error("colourfulness", pictures[0], "--prompt", "a", "--prompt", "b")
    assert "does not know the prompt 'nonsense'" in error("gold", pictures[0], "--prompt", "nonsense")
    assert "none.png" in error("colourfulness", tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "cannot read the image" in error("colourfulness", tmp_path / "text.png")
    assert "not measured" in error("{name: colourfulness, normalize: base}", pictures[0])
    assert "not valid YAML" in error("{name: colourfulness", pictures[0])
    assert "a reward is a name" in error("3", pictures[0])
