"""A study folder: what was asked, the items, their images, and nothing that is particular to one server.

```
STUDY/
  study.json          name, when it was made, the runs of the points relative to this folder, versions
  study.yaml          the resolved configuration
  strings.yaml        the words of the pages
  items.jsonl         an item per line: id, question, prompt, check, options with point and images
  sources.jsonl       the file that every image was made from, relative to this folder
  images/*.webp       under random names
  votes.sqlite3       the votes, unless they are in another database
```

`items.jsonl` and `sources.jsonl` say which image is whose and must not be seen by raters; the server shows none of
them.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from sfumato.runs import read_json, read_jsonl
from sfumato.study.config import Question, StudyConfig, parse_study_config


@dataclass(frozen=True)
class Option:
    """One of the things that a rater chooses from.

    Attributes:
        point: whose images they are; None in an attention check.
        images: names of files in `images/`: one, or those of a set.
    """

    point: str | None
    images: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One question about certain images.

    Attributes:
        id: tells nothing about the rest.
        question: the question's name.
        prompt: what the images should show.
        options: in the order in which votes count them.
        check: in an attention check, the option that nobody who looks would choose (or, of a rating, rate high).
    """

    id: str
    question: str
    prompt: str
    options: tuple[Option, ...]
    check: int | None = None

    def order(self, turn: int) -> list[int]:
        """The options in the order in which they are shown: each turn moves all of them by one place."""
        count = len(self.options)
        return [(turn + place) % count for place in range(count)]

    def row(self) -> dict[str, Any]:
        """The item as it is in `items.jsonl`."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Item:
        options = tuple(Option(option["point"], tuple(option["images"])) for option in row["options"])
        return cls(row["id"], row["question"], row["prompt"], options, row["check"])


@dataclass(frozen=True)
class Study:
    """A study folder that is there. `create_study` makes one, `Study.load` opens it."""

    path: Path
    config: StudyConfig

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Open a study folder.

        Raises:
            FileNotFoundError: there is none at `path`.
        """
        path = Path(path)
        if not (path / "study.json").exists():
            raise FileNotFoundError(f"{path} is not a study folder: it has no study.json (`sfumato study create`)")
        text = (path / "study.yaml").read_text(encoding="utf-8")
        return cls(path, parse_study_config(yaml.safe_load(text), str(path)))

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        return read_json(self.path / "study.json")

    @functools.cached_property
    def items(self) -> dict[str, Item]:
        """All items by id."""
        return {row["id"]: Item.from_row(row) for row in read_jsonl(self.items_path)}

    @functools.cached_property
    def checks(self) -> list[Item]:
        """The attention checks."""
        return [item for item in self.items.values() if item.check is not None]

    @functools.cached_property
    def strings(self) -> dict[str, str]:
        """The words of the pages by name."""
        return yaml.safe_load((self.path / "strings.yaml").read_text(encoding="utf-8"))

    @property
    def items_path(self) -> Path:
        return self.path / "items.jsonl"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the items and the exclusion rules, so that votes are never taken for those of another study."""
        rules = self.config.exclusion.model_dump_json()
        return hashlib.sha256(self.items_path.read_bytes() + rules.encode()).hexdigest()

    def question(self, item: Item) -> Question:
        """The question that an item asks."""
        return self.config.question(item.question)
