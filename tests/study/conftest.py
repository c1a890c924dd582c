"""Studies, clients without a browser, and servers in processes of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from sfumato.study import Study
from sfumato.study.server.app import create_app
from sfumato.study.store import Store
from tests.study.bed import make_study
from tests.study.postgres import Postgres

FIELD = re.compile(r'name="(form|page|vote)" value="([^"]*)"')


class Person:
    """Somebody with a browser that runs no scripts."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.http = TestClient(app, follow_redirects=True, **settings)

    def fields(self, page: str) -> dict[str, str]:
        """The hidden fields of a page, those of the last form if several have the name."""
        return dict(FIELD.findall(page))

    def join(self) -> str:
        """Agree, and see the first item."""
        page = self.http.get("/").text
        return self.http.post("/join", data={"form": self.fields(page)["form"]}).text

    def answer(self, page: str, answer: str | None = None) -> Any:
        """Answer whatever the page asks; with its first choice unless told otherwise."""
        data: dict[str, Any] = self.fields(page)
        data.pop("vote", None)
        if count := page.count("<select"):
            data["rank"] = [str(rank) for rank in range(1, count + 1)]
        else:
            data["answer"] = answer or "1"
        return self.http.post("/vote", data=data)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


@pytest.fixture
def store(study: Study) -> Iterator[Store]:
    opened = Store(study)
    yield opened
    opened.close()


@pytest.fixture
def token(store: Store) -> str | None:
    """That of the admin page."""
    return store.first_admin_token()


@pytest.fixture
def app(store: Store) -> Any:
    return create_app(store)


@pytest.fixture
def person(app: Any) -> Person:
    return Person(app)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    server = Postgres()
    yield server
    server.remove()
