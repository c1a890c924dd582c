"""The files that pages are made of."""

from __future__ import annotations

from pathlib import Path

import jinja2

from sfumato.report import vocabulary

WEB = Path(__file__).parent / "web"


def asset(name: str) -> str:
    """The text of a file."""
    return (WEB / name).read_text(encoding="utf-8")


def template(name: str) -> jinja2.Template:
    """A page to fill in, with the filters that write numbers."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": vocabulary.number,
        "percent": vocabulary.percent,
        "signed": vocabulary.signed,
        "sentence": lambda text: vocabulary.capitalise(text.rstrip(".")) + ".",
    }
    return environment.get_template(name)
