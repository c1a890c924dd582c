"""Looks for what is wrong with preference data before anything is learned from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from sfumato.preferences.looks import Look, look_at, near_duplicates
from sfumato.preferences.pairs import Pair, pair_of
from sfumato.preferences.rows import read_rows
from sfumato.preferences.split import plain

EXAMPLES = 3
READERS = 8


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        level: with an error, what is learned or measured is wrong; a warning is worth a look.
        kind: one word or two.
        text: what was found, with its number.
        count: how often.
        examples: some of the places.
    """

    level: Literal["error", "warning"]
    kind: str
    text: str
    count: int
    examples: tuple[str, ...]


@dataclass
class Split:
    """The pairs of a file, with where each of them stands.

    Attributes:
        name: of the file.
        pairs: those that could be read.
        where: the place of each.
        broken: rows that are no pairs, and why.
        unlabelled: number of rows that say that they have no label.
    """

    name: str
    pairs: list[Pair] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    unlabelled: int = 0

    @classmethod
    def read(cls, path: str | Path, images: str | Path | None = None) -> Split:
        """Read what can be read; raises FileNotFoundError, ValueError and ImportError as `read_rows`."""
        found = cls(str(path))
        for row in read_rows(path, images):
            try:
                pair = pair_of(row)
            except ValueError as error:
                found.broken.append(f"{row.where}: {error}")
                continue
            if pair is None:
                found.unlabelled += 1
            else:
                found.pairs.append(pair)
                found.where.append(row.where)
        return found

    @property
    def images(self) -> list[str]:
        """Paths of all images, each once."""
        return list(dict.fromkeys(image for pair in self.pairs for image in (pair.image_0, pair.image_1)))

    def summary(self) -> dict[str, Any]:
        """What is in it, in numbers."""
        labels = Counter(float(pair.label) for pair in self.pairs)
        return {
            "name": self.name,
            "pairs": len(self.pairs),
            "prompts": len({plain(pair.prompt) for pair in self.pairs}),
            "images": len(self.images),
            "image_0_preferred": labels[1.0],
            "image_1_preferred": labels[0.0],
            "ties": labels[0.5],
            "unlabelled": self.unlabelled,
        }


def check_preferences(splits: Sequence[Split], ordered: bool = False) -> list[Finding]:
    """All that is wrong with the splits, each by itself and one with another.

    Args:
        splits: such as pairs to learn from, held-out pairs and pairs to report on.
        ordered: whether image_0 may be the preferred one in all pairs.
    """
    looks, unseen = _look_at_all(dict.fromkeys(image for split in splits for image in split.images))
    found: list[Finding | None] = []
    for split in splits:
        found += [*_rows(split), *_labels(split, ordered), *_images(split, unseen), *_repeats(split, looks)]
    for one, other in combinations(splits, 2):
        found += _leaks(one, other, looks)
    return [finding for finding in found if finding]


def _finding(
    level: Literal["error", "warning"], kind: str, where: str, what: str, examples: Iterable[str]
) -> Finding | None:
    places = list(examples)
    if not places:
        return None
    return Finding(level, kind, f"{where}: {len(places)} {what}", len(places), tuple(places[:EXAMPLES]))


def _look_at_all(paths: Iterable[str]) -> tuple[dict[str, Look], dict[str, str]]:
    """The looks of images by path, and of those that cannot be read why not."""

    def look(path: str) -> Look | str:
        try:
            return look_at(path)
        except FileNotFoundError:
            return "missing"
        except (OSError, ValueError) as error:
            return f"broken ({error})"

    paths = list(paths)
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(paths, tqdm(pool.map(look, paths), total=len(paths), desc="reading images"), strict=True))
    looks = {path: each for path, each in found.items() if isinstance(each, Look)}
    return looks, {path: each for path, each in found.items() if isinstance(each, str)}


def _rows(split: Split) -> Iterator[Finding | None]:
    yield _finding("error", "no pair", split.name, "rows are no pairs", split.broken)
    if not split.pairs:
        yield Finding("error", "empty", f"{split.name}: there are no pairs", 0, ())
    blank = [where for where, pair in zip(split.where, split.pairs, strict=True) if not plain(pair.prompt)]
    yield _finding("warning", "no prompt", split.name, "pairs have an empty prompt", blank)


def _labels(split: Split, ordered: bool) -> Iterator[Finding | None]:
    labels = Counter(float(pair.label) for pair in split.pairs)
    text = what_labels_lack(labels, ordered)
    if split.pairs and text:
        yield Finding("error", "labels", f"{split.name}: {text}", len(split.pairs), ())


def what_labels_lack(labels: Counter[float], ordered: bool) -> str | None:
    """Why nothing can be learned from labels that are counted here, if so."""
    decided = sorted(label for label in labels if label != 0.5)
    if not decided:
        return "all labels are ties, which say that all images are equally good"
    if len(decided) == 1 and not ordered:
        return (
            f"no label but {decided[0]:g} among those that are no ties: the column may have been misread; if image_"
            f"{1 - decided[0]:g} is always the preferred one on purpose, say so with ordered"
        )
    return None


def _images(split: Split, unseen: dict[str, str]) -> Iterator[Finding | None]:
    wrong = [(path, unseen[path]) for path in split.images if path in unseen]
    missing = [path for path, why in wrong if why == "missing"]
    yield _finding("error", "missing images", split.name, "images are not there", missing)
    broken = [f"{path}: {why}" for path, why in wrong if why != "missing"]
    yield _finding("error", "broken images", split.name, "files are damaged or no images", broken)


def _repeats(split: Split, looks: dict[str, Look]) -> Iterator[Finding | None]:
    """Pairs of a picture with itself; pairs that come again, with the same label or another one."""
    same, labels, places = [], defaultdict(set), defaultdict(list)
    for where, pair in zip(split.where, split.pairs, strict=True):
        one, other = (_content(image, looks) for image in (pair.image_0, pair.image_1))
        if one == other and pair.label != 0.5:
            same.append(where)
        key = (plain(pair.prompt), *sorted((one, other)))
        labels[key].add(pair.label if one <= other else 1 - pair.label)
        places[key].append(where)
    yield _finding("error", "same image twice", split.name, "pairs prefer a picture to itself", same)
    again = [(key, " = ".join(found)) for key, found in places.items() if len(found) > 1]
    duplicates = [found for key, found in again if len(labels[key]) == 1]
    yield _finding("warning", "duplicates", split.name, "pairs come more than once", duplicates)
    against = [found for key, found in again if {0.0, 1.0} <= labels[key]]
    yield _finding("warning", "contradictions", split.name, "pairs are labelled both ways", against)


def _content(path: str, looks: dict[str, Look]) -> str:
    """What tells a picture from others: its content, or its path where it cannot be read."""
    return looks[path].content if path in looks else path


def _leaks(one: Split, other: Split, looks: dict[str, Look]) -> Iterator[Finding | None]:
    between = f"{one.name} and {other.name}"
    files = [{_content(path, looks): path for path in split.images if path in looks} for split in (one, other)]
    shared = [f"{path} = {files[1][content]}" for content, path in files[0].items() if content in files[1]]
    yield _finding("error", "same image in two splits", between, "images are in both", shared)
    alone = [[path for content, path in mine.items() if content not in theirs] for mine, theirs in (files, files[::-1])]
    near = near_duplicates(*([looks[path] for path in paths] for paths in alone))
    alike = [f"{alone[0][i]} ~ {alone[1][j]}" for i, j in near]
    yield _finding("warning", "near-duplicates in two splits", between, "couples of images look alike", alike)
    prompts = [{plain(pair.prompt): pair.prompt for pair in split.pairs} for split in (one, other)]
    both = [repr(prompt) for key, prompt in prompts[0].items() if key in prompts[1]]
    yield _finding("warning", "same prompt in two splits", between, "prompts are in both", both)
