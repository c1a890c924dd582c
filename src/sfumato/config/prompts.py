"""Sets of prompts: a list, or a file with one on each line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator


def read_prompts(value: Any) -> list[str]:
    """Prompts from a list, or from a text file (a path, or one that comes with the recipes) with one on each line.

    Blank ones are skipped.

    Raises:
        ValueError: neither a list nor a path, there is no such file, or no prompt in it.
    """
    if isinstance(value, str):
        path = Path(value)
        bundled = files("sfumato").joinpath("recipes", value)
        if not path.exists() and not bundled.is_file():
            raise ValueError(
                f"there is no prompt file {value!r}: give a text file with a prompt on each line, or a list"
            )
        lines = (path if path.exists() else bundled).read_text(encoding="utf-8").splitlines()
        where = str(value)
    elif isinstance(value, list):
        wrong = [line for line in value if not isinstance(line, str)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} in the list of prompts is not text: put it in quotes")
        lines, where = value, "the list of prompts"
    else:
        raise ValueError(f"prompts are a list of texts, or the path of a text file, not {value!r}")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{where} is empty: give at least one prompt")
    return prompts


Prompts = Annotated[list[str], BeforeValidator(read_prompts)]
