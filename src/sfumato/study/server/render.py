"""Templates filled in, with everything that comes from outside escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from sfumato.study.folder import Study

WEB = Path(__file__).parent.parent / "web"


class PageError(Exception):
    """An error that its page explains.

    Attributes:
        status: of HTTP.
        text: name of one of the study's strings.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Templates:
    """The pages of a study in its language."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(WEB),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )

    def text(self, name: str, /, **places: object) -> str:
        """One of the study's strings, with its places filled in."""
        text = self._study.strings[name]
        for place, value in places.items():
            text = text.replace(f"{{{place}}}", str(value))
        return text

    def __call__(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """A page."""
        config, url = self._study.config, self._url(request)
        page = self._environment.get_template(template).render(
            title=config.title or self.text("title"), contact=config.contact, t=self.text, url=url, **values
        )
        return HTMLResponse(page, status)

    def _url(self, request: Request) -> Callable[[str], str]:
        root = request.scope.get("root_path", "").rstrip("/")
        return lambda path: f"{root}{path}"
