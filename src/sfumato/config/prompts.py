"""Sets of prompts wherever they come from: a list, a file, a set by name, a data set of the hub."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from sfumato.config.prompt_files import read_file
from sfumato.config.prompt_sets import SETS, read_hub, read_set

HUB = "hub:"


@dataclass(frozen=True)
class Source:
    """Where prompts are read from, and which of them are taken.

    Attributes:
        dataset: a file, the name of a set (`sfumato prompts list`), or a data set of the hub, OWNER/NAME.
        config: of a data set of the hub; needed if it has several.
        split: of a data set of the hub; needed if it has several.
        column: of a table; without it one that is named prompt, caption or text.
        limit: take no more than this many.
        seed: draw them at random, instead of taking the first; their order stays.
    """

    dataset: str
    config: str | None = None
    split: str | None = None
    column: str | None = None
    limit: int | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> Source:
        """From a recipe: `prompts.csv:COLUMN`, `hub:OWNER/NAME:COLUMN`, a set's name, or a mapping of all attributes.

        Raises:
            ValueError: an unknown key, or a value of the wrong kind.
        """
        if isinstance(value, str):
            return cls._parse_text(value)
        known = [field.name for field in fields(cls)]
        if unknown := [str(key) for key in value if key not in known]:
            raise ValueError(f"unknown key {unknown[0]!r} of a prompt set: known are {', '.join(known)}")
        if "dataset" not in value:
            raise ValueError("a prompt set needs the key dataset: a file, the name of a set, or OWNER/NAME on the hub")
        for key, own in value.items():
            number = key in ("limit", "seed")
            if own is not None and (type(own) is not int if number else not isinstance(own, str)):
                raise ValueError(f"{key} of a prompt set must be {'a whole number' if number else 'text'}, not {own!r}")
        if value.get("limit") is not None and value["limit"] < 1:
            raise ValueError(f"limit of a prompt set must be at least 1, not {value['limit']}")
        text = cls._parse_text(value["dataset"])
        return cls(**{**value, "dataset": text.dataset, "column": value.get("column") or text.column})

    @classmethod
    def _parse_text(cls, text: str) -> Source:
        rest, colon, column = text.removeprefix(HUB).rpartition(":")
        split_off = bool(colon) and not Path(text).exists() and (text.startswith(HUB) or Path(rest).exists())
        prefix = HUB if text.startswith(HUB) else ""
        return cls(prefix + rest, column=column) if split_off and column else cls(text)

    def read(self) -> list[str]:
        """The prompts, blank and repeated ones left out, in their order.

        Raises:
            ValueError: there is no such source, or it cannot be read, or there is no prompt in it.
        """
        prompts = _clean(self._raw(), self.dataset)
        if self.limit is None or self.limit >= len(prompts):
            return prompts
        if self.seed is None:
            return prompts[: self.limit]
        return [prompts[i] for i in sorted(random.Random(self.seed).sample(range(len(prompts)), self.limit))]

    def _raw(self) -> list[str]:
        path, name = Path(self.dataset), self.dataset.removesuffix(".txt")
        on_hub = self.dataset.startswith(HUB)
        here = not on_hub and (path.is_file() or name in SETS)
        if here and (self.config or self.split):
            raise ValueError(f"config and split belong to data sets of the hub, and {self.dataset!r} is none")
        if here:
            return read_file(path, self.column) if path.is_file() else read_set(name, self.column)
        if on_hub or (self.dataset.count("/") == 1 and not path.suffix):
            return read_hub(self.dataset.removeprefix(HUB), self.config, self.split, self.column)
        raise ValueError(
            f"there is no prompt file {self.dataset!r}: give a file (.txt, .jsonl, .json, .csv, .tsv, .parquet), a "
            f"list, {HUB}OWNER/NAME, or one of {', '.join(SETS)}"
        )


def read_prompts(value: Any) -> list[str]:
    """Prompts from a list, or from a `Source` as text or mapping.

    Blank ones are skipped. From a source, repeated ones are too, which is said.

    Raises:
        ValueError: neither of these, there is no such source, it cannot be read, or no prompt is in it.
    """
    if isinstance(value, str | Mapping):
        return Source.parse(value).read()
    if not isinstance(value, list):
        raise ValueError(f"prompts are a list of texts, a file, or the name of a set, not {value!r}")
    if wrong := [line for line in value if not isinstance(line, str)]:
        raise ValueError(f"{wrong[0]!r} in the list of prompts is not text: put it in quotes")
    prompts = [line.strip() for line in value if line.strip()]
    if not prompts:
        raise ValueError("the list of prompts is empty: give at least one prompt")
    return prompts


def _clean(lines: list[str], where: str) -> list[str]:
    """The lines without white space around them, blank ones and repeated ones left out."""
    filled = [line.strip() for line in lines if line.strip()]
    prompts = list(dict.fromkeys(filled))
    if not prompts:
        raise ValueError(f"{where} is empty: give at least one prompt")
    if repeated := len(filled) - len(prompts):
        logging.getLogger(__name__).warning("%s: left out %d repeated of %d prompts", where, repeated, len(filled))
    return prompts


Prompts = Annotated[list[str], BeforeValidator(read_prompts)]
"""A list of prompts, or where they are read from; see `read_prompts`."""
