"""Every YAML block of the documentation is a valid part of a recipe, by the real checks."""

import re

import pytest
import yaml

from sfumato.config import parse_recipe
from sfumato.config.preference import PreferenceRecipe
from tests.docs.blocks import PAGES, blocks

RECIPE = {"name": "documented", "reward": "colourfulness", "prompts": ["a cat"]}
WITH_YAML = [page for page in PAGES if any(block.language == "yaml" for block in blocks(page)) and "study" not in page]


def entries(text):
    """The top-level entries of a block one by one, since a page may show one key in several ways."""
    starts = [match.start() for match in re.finditer(r"^\w", text, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield yaml.safe_load(text[start:end])


@pytest.mark.parametrize("page", WITH_YAML)
def test_recipes_are_valid(page, desk, monkeypatch):
    monkeypatch.setattr("sfumato.config.prompts.read_hub", lambda *a: ["a", "b"])
    monkeypatch.setattr("sfumato.config.prompts.read_set", lambda name, *a: [f"{name} {i}" for i in "abc"])
    (desk / "mine.csv").write_text("caption\na cat\na house\n")
    for block in blocks(page):
        if block.language != "yaml":
            continue
        whole = yaml.safe_load(block.text)
        if "held_out" in whole:
            PreferenceRecipe.model_validate(whole)
            continue
        for entry in entries(block.text):
            if "objective" in entry:
                entry = {"training": entry}
            parse_recipe(RECIPE | entry, str(block))
