"""The words of the pages: a YAML file for each language, with the same keys in all of them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


def languages() -> list[str]:
    """The languages that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def load_strings(language: str) -> dict[str, str]:
    """The words of a language by name.

    Args:
        language: one of `languages()`, or the path of a YAML file.

    Raises:
        ValueError: there is no such language, or the file has not the keys of the others.
    """
    if language in languages():
        return yaml.safe_load(_folder().joinpath(f"{language}.yaml").read_text(encoding="utf-8"))
    if not Path(language).is_file():
        raise ValueError(f"there is no language {language!r}: choose {', '.join(languages())}, or give a YAML file")
    own = yaml.safe_load(Path(language).read_text(encoding="utf-8"))
    wanted = load_strings("en")
    if not isinstance(own, dict) or own.keys() != wanted.keys():
        wrong = sorted(wanted.keys() ^ own.keys()) if isinstance(own, dict) else sorted(wanted)
        raise ValueError(f"{language} needs the keys of strings/en.yaml, no more and no less: see {', '.join(wrong)}")
    return {key: str(text) for key, text in own.items()}


def _folder() -> Any:
    return files("sfumato").joinpath("study", "strings")
