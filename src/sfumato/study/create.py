"""From a configuration to a study folder: which images meet in which item, and the attention checks."""

from __future__ import annotations

import math
import os
import random
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from sfumato.runs import versions, write_json, write_jsonl, write_text
from sfumato.study.config import Question, StudyConfig
from sfumato.study.design import blocks, deal
from sfumato.study.folder import Item, Option, Study
from sfumato.study.language import load_strings
from sfumato.study.pictures import Album
from sfumato.study.sources import Pictures, pictures_of


def create_study(config: StudyConfig) -> Study:
    """Make a study folder.

    Raises:
        FileExistsError: the folder is not empty.
        FileNotFoundError, ValueError: images are missing, or too few for what is asked.
    """
    folder = config.path
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: choose a new folder with folder=DIR")
    strings = load_strings(config.language)
    points = {name: pictures_of(name, source) for name, source in config.points.items()}
    dice = random.Random(config.seed)
    prompts = choose_prompts(config, list(points.values()), dice)
    album = Album(folder / "images", config.quality)
    items = [list(_items(question, prompts, points, album, dice)) for question in config.questions]
    checks = list(_checks(config, items, prompts, points, album, dice)) if config.check_every else []
    album.write()
    rows = [item.row() for item in [*(item for own in items for item in own), *checks]]
    dice.shuffle(rows)
    write_jsonl(folder / "items.jsonl", rows)
    write_jsonl(folder / "sources.jsonl", album.sources())
    for name, values in (("strings", strings), ("study", config.resolved())):
        write_text(folder / f"{name}.yaml", yaml.safe_dump(values, allow_unicode=True, sort_keys=False))
    created = datetime.now(UTC).isoformat(timespec="seconds")
    runs = {name: os.path.relpath(source.run, folder) for name, source in config.points.items() if source.run}
    write_json(folder / "study.json", {"name": config.name, "created": created, "runs": runs, "versions": versions()})
    return Study.load(folder)


def choose_prompts(config: StudyConfig, points: Sequence[Pictures], dice: random.Random) -> list[str]:
    """The prompts that are asked about.

    Raises:
        ValueError: not every point has images of them, or of as many.
    """
    common = [prompt for prompt in points[0] if all(own.get(prompt) for own in points)]
    if isinstance(config.prompts, list):
        if missing := [prompt for prompt in config.prompts if prompt not in common]:
            raise ValueError(f"not every point has images for the prompt {missing[0]!r}")
        return config.prompts
    wanted = len(common) if config.prompts is None else config.prompts
    if not 0 < wanted <= len(common):
        raise ValueError(f"every point has images for {len(common)} prompts: {wanted} cannot be asked about")
    return dice.sample(common, wanted) if config.prompts else common


def _items(
    question: Question, prompts: list[str], points: dict[str, Pictures], album: Album, dice: random.Random
) -> Iterator[Item]:
    """All items of a question, the options of each in random order."""
    design, names = blocks(len(points), question.points), list(points)
    count = question.items or question.repeats * len(design) * len(prompts)
    used: Counter[tuple[int, tuple[int, ...]]] = Counter()
    most = question.pictures * math.ceil(count / (len(design) * len(prompts)))
    chosen = {prompt: _choice(prompt, points, most, dice) for prompt in prompts}
    for prompt, block in deal(design, len(prompts), count, dice):
        first = question.pictures * used[prompt, block]
        used[prompt, block] += 1
        options = []
        for index in dice.sample(block, len(block)):
            paths = chosen[prompts[prompt]][names[index]][first : first + question.pictures]
            options.append(Option(names[index], tuple(map(album.name, paths))))
        yield Item(secrets.token_hex(8), question.label, prompts[prompt], tuple(options))


def _choice(prompt: str, points: dict[str, Pictures], most: int, dice: random.Random) -> dict[str, list[Path]]:
    """`most` images of a prompt by every point, of the same seeds if there are enough of them."""
    common = set.intersection(*(set(own[prompt]) for own in points.values()))
    shared = dice.sample(sorted(common), most) if len(common) >= most else None
    chosen = {}
    for name, own in points.items():
        if len(own[prompt]) < most:
            raise ValueError(f"{name!r} has {len(own[prompt])} images for {prompt!r}, and {most} are shown")
        chosen[name] = [own[prompt][seed] for seed in shared or dice.sample(sorted(own[prompt]), most)]
    return chosen


def _checks(
    config: StudyConfig,
    items: list[list[Item]],
    prompts: list[str],
    points: dict[str, Pictures],
    album: Album,
    dice: random.Random,
) -> Iterator[Item]:
    """As many attention checks as a rater can meet, of all questions in turn."""
    total = sum(map(len, items))
    for number in range(math.ceil(min(config.items_per_rater or total, total) / (config.check_every or total))):
        which = number % len(items)
        question, item = config.questions[which], dice.choice(items[which])
        own = points[dice.choice(list(points))]
        bad = dice.randrange(len(item.options))
        if question.kind == "variety":
            shown = [own[prompt] for prompt in prompts]
            mixed = [dice.choice(sorted(shown[i % len(shown)].values())) for i in range(question.pictures)]
            one = dice.choice(sorted(own[item.prompt].values()))
            sets = [[one] * question.pictures if i == bad else mixed for i in range(len(item.options))]
            options = [Option(None, tuple(map(album.name, paths))) for paths in sets]
        else:
            options = [replace(option, point=None) for option in item.options]
            broken = dice.choice(sorted(own[item.prompt].values()))
            options[bad] = Option(None, (album.name(broken, scrambled=True),))
        yield replace(item, id=secrets.token_hex(8), options=tuple(options), check=bad)
