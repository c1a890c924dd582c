"""The code in README.md and docs/*.md."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^( *)(`{3,})([\w-]*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
EXCUSE = re.compile(r"<!-- not run: ([^>]+) -->\s*\Z")
PROGRAMS = {"accelerate", "make", "pip", "python", "sfumato", "torchrun"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, and why it cannot be run, if the comment before it says so."""

    page: str
    line: int
    language: str
    text: str
    excuse: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a block of them; of any other block none."""
        lines = [line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]
        are_commands = (
            all(line.split()[0] in PROGRAMS for line in lines) if self.language == "" else self.language == "bash"
        )
        split = [shlex.split(line, comments=True) for line in lines] if are_commands else []
        return [words for words in split if words]


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        excuse = EXCUSE.search(before)
        line = before.count("\n") + 2
        found.append(Block(page, line, match[3], match[4], excuse[1] if excuse else None))
    return found
