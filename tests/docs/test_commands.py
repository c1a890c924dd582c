"""Every command of the documentation is one that there is, with arguments that it takes; cheap ones are run.

`sfumato ...` is parsed by the real command line, and recipes are read with the overrides that stand behind them.
"""

import re
import tomllib
from pathlib import Path

import pytest
from click import ClickException
from typer.main import get_command

from sfumato.cli.shared import app
from sfumato.config import is_suite, load_recipe, load_suite
from sfumato.config.preference import load_preference_recipe
from tests.docs.blocks import PAGES, PROGRAMS, ROOT, blocks

WITH_COMMANDS = [page for page in PAGES if any(block.commands for block in blocks(page))]
RECIPES = {"train", "run", "evaluate"}
CHEAP = {"diagnose", "export", "frontier", "power", "prompts", "recipes", "report", "rewards"}
ON_THE_HUB = {"--push", "parti-prompts"}
STANDING_FOR_OTHERS = {"BASE": "emoji64", "SOURCE": "runs/mine/training/tuned", "FILE": "mine.txt", "RUN": "runs/mine"}
"""What a reader fills in, such as the capital letters of `sfumato sample "a dog" --lora SOURCE`."""


def commands(page):
    """Where each command stands, and its words up to where its output goes."""
    for block in blocks(page):
        for words in block.commands if not block.excuse else []:
            end = next((i for i, word in enumerate(words) if word in (">", "|")), len(words))
            yield str(block), [STANDING_FOR_OTHERS.get(word, word) for word in words[:end]]


def after_launcher(words):
    """A command of sfumato without what starts it on several processes."""
    return ["sfumato", *words[words.index("sfumato.cli") + 1 :]] if "sfumato.cli" in words else words


def parsed(words):
    """Let the command line parse the words without running anything; raises what it raises to a user."""
    command = get_command(app)
    context = command.context_class(command, info_name="sfumato")
    path = []
    while hasattr(command, "commands"):
        name = words[len(path)]
        path.append(name)
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    command.parse_args(context, list(words[len(path) :]))
    return path


def check_sfumato(words, run, runs):
    path = parsed(words)
    rest = words[len(path) :]
    if not runs:
        return
    if path[0] in RECIPES:
        source, overrides = rest[0], [word for word in rest[1:] if "=" in word]
        load_suite(source, overrides).cells() if is_suite(source) else load_recipe(source, overrides)
    elif path == ["preference", "train"]:
        load_preference_recipe(rest)
    elif (path[0] in CHEAP or path == ["preference", "check"]) and not ON_THE_HUB.intersection(words):
        outcome = run(*words)
        assert outcome.code in (0, 3), outcome.err


def check_installed(words):
    """`pip install X` names this folder, one of our extras, or a package by name alone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[2:]:
        own = re.fullmatch(r"sfumato\[(\w+)\]", word)
        assert own[1] in extras if own else re.fullmatch(r"\.|[\w-]+", word), word


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_are_understood(page, desk, sfumato):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for where, words in commands(page):
        words = after_launcher(words)
        assert words[0] in PROGRAMS, f"{where}: what is {words[0]}?"
        try:
            if words[0] == "sfumato":
                check_sfumato(words[1:], sfumato, runs=page != "docs/start.md")
            elif words[0] == "make":
                assert words[1] in targets
            elif words[0] == "pip":
                check_installed(words)
            elif words[1] == "-m":
                assert (ROOT / words[2].replace(".", "/")).exists() or (
                    ROOT / f"{words[2].replace('.', '/')}.py"
                ).exists()
            else:
                assert (ROOT / words[1]).exists()
        except (AssertionError, ValueError, OSError, ClickException) as error:
            raise AssertionError(f"{where}: {' '.join(words)}: {error}") from error


def test_start_in_five_minutes_is_true(desk, sfumato):
    """That page's commands in order, with fewer updates and pictures."""
    less = ["training.steps=1", "training.batch_size=1", "training.monitor_every=null", "training.lora.rank=2"]
    fewer = [
        "sampling.num_inference_steps=2",
        "evaluation.prompts=[plant, bug, mammal]",
        "evaluation.images_per_prompt=4",
    ]
    done = []
    for _, words in commands("docs/start.md"):
        if words[:2] in (["sfumato", "train"], ["sfumato", "run"], ["sfumato", "frontier"]):
            outcome = sfumato(*words[1:], *(less + fewer if words[1] == "train" else []))
            assert outcome.code == 0, outcome.err
            done.append(words[1])
    assert done == ["train", "run", "frontier"]
    assert Path("runs/first/report.html").exists()
