"""Prompt sets by name, bundled or on the hub, and any data set of the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from sfumato.config.prompt_files import read_file

PARQUET = "refs/convert/parquet"
"""The branch of a data set on which the hub keeps it as Parquet, CONFIG/SPLIT/NUMBER.parquet."""


@dataclass(frozen=True)
class PromptSet:
    """A set that is known by name.

    Attributes:
        description: what it is, in a line.
        licence: of the prompts.
        paths: its files, in `sfumato/recipes` or in the data set.
        dataset: OWNER/NAME on the hub; None if it is bundled.
        column: of the files, if they are tables.
    """

    description: str
    licence: str
    paths: tuple[str, ...]
    dataset: str | None = None
    column: str | None = None


STYLES = ("anime", "concept-art", "paintings", "photo")
SETS = {
    "general": PromptSet("100 prompts of ten kinds, from plain to composed", "Apache-2.0", ("general.jsonl",)),
    "general-train": PromptSet("48 prompts of the shipped recipes, to tune on", "Apache-2.0", ("general-train.txt",)),
    "general-test": PromptSet("16 prompts of the shipped recipes, held out", "Apache-2.0", ("general-test.txt",)),
    "unrelated": PromptSet(
        "24 prompts far from what aesthetic rewards like, to see drift", "Apache-2.0", ("unrelated.jsonl",)
    ),
    "parti-prompts": PromptSet(
        "about 1,600 prompts of 12 categories and 11 challenges (arXiv 2206.10789)",
        "Apache-2.0",
        ("PartiPrompts.tsv",),
        "nateraw/parti-prompts",
        "Prompt",
    ),
    "hpdv2": PromptSet(
        "the HPS v2 benchmark, 800 prompts of each of four styles (arXiv 2306.09341)",
        "none stated in this repository; its authors' ymhao/HPDv2 says Apache-2.0",
        tuple(f"benchmark/{style}.json" for style in STYLES),
        "zhwang/HPDv2",
    ),
    "pick-a-pic": PromptSet(
        "the 500 prompts of the unique test split of Pick-a-Pic v1, written by users, some of them crude "
        "(arXiv 2305.01569)",
        "none stated",
        ("data/test_unique-00000-of-00001-73a51cbb6488571d.parquet",),
        "yuvalkirstain/pickapic_v1_no_images",
        "caption",
    ),
}


def read_set(name: str, column: str | None = None) -> list[str]:
    """The prompts of one of the `SETS`, downloaded once if they are on the hub.

    Raises:
        ValueError: the hub cannot be reached, or the files are not what they were.
    """
    entry = SETS[name]
    if entry.dataset is None:
        with as_file(files("sfumato").joinpath("recipes", entry.paths[0])) as path:
            return read_file(path, column, name)
    return _download(entry.dataset, entry.paths, column or entry.column)


def read_hub(dataset: str, config: str | None, split: str | None, column: str | None) -> list[str]:
    """The prompts of any data set of the hub, OWNER/NAME, from its files in Parquet.

    Args:
        config: needed if the data set has several and none is called default.
        split: needed if it has several.
        column: with the prompts; without it one that is named prompt, caption or text.

    Raises:
        ValueError: there is no such data set, configuration, split or column, or the hub cannot be reached.
    """
    paths = [path for path in _ask(dataset, partial(_list, dataset)) if path.endswith(".parquet")]
    places = [(path.split("/")[0], path.split("/")[1], path) for path in paths if path.count("/") == 2]
    if not places:
        raise ValueError(f"data set {dataset} has no files in Parquet on the hub: download it, and give a file")
    config = _choose("configuration", config, [own for own, _, _ in places], dataset, "default")
    split = _choose("split", split, [own for its, own, _ in places if its == config], dataset)
    wanted = tuple(path for its, own, path in places if (its, own) == (config, split))
    return _download(dataset, wanted, column, PARQUET)


def _choose(kind: str, asked: str | None, found: list[str], dataset: str, usual: str | None = None) -> str:
    names = list(dict.fromkeys(found))
    chosen = asked or (names[0] if len(names) == 1 else usual)
    if chosen in names:
        return chosen
    problem = f"has no {kind} {asked!r}: choose one" if asked else f"has several {kind}s: say which one"
    raise ValueError(f"data set {dataset} {problem} of {', '.join(names)}")


def _list(dataset: str) -> list[str]:
    from huggingface_hub import HfApi

    return sorted(HfApi().list_repo_files(dataset, repo_type="dataset", revision=PARQUET))


def _download(dataset: str, paths: tuple[str, ...], column: str | None, revision: str | None = None) -> list[str]:
    from huggingface_hub import hf_hub_download

    found = []
    for name in paths:
        file = _ask(dataset, partial(hf_hub_download, dataset, name, repo_type="dataset", revision=revision))
        found += read_file(Path(file), column, f"{name} of data set {dataset}")
    return found


def _ask(dataset: str, question: Callable[[], Any]) -> Any:
    """The hub's answer; raises ValueError if there is none."""
    try:
        return question()
    except Exception as error:  # the hub's own and those of its HTTP library, which differs by version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"cannot read data set {dataset} from the hub ({reason}): check its name and the connection, or give a file"
        ) from error
