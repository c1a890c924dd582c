"""Anything that fits the OpenAPI schema, and much that does not, is answered without an error of ours."""

from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from sfumato.study.server.app import create_app
from sfumato.study.server.limits import Buckets, Limits
from sfumato.study.store import Store
from tests.study.bed import make_study
from tests.study.conftest import Person

FREE = Buckets(1e9, 1e9)


@dataclass
class Insider:
    """A rater and the admin in one browser: what they send passes the first doors."""

    person: Person
    cookies: dict[str, str]

    def fill(self, body: dict[str, Any], path: str, number: int) -> dict[str, Any]:
        """The body with the fields that nobody can guess, the rest as it was made up."""
        page = self.person.http.get("/admin" if path.startswith("/admin") else "/item").text
        known = self.person.fields(page) if number % 4 else {}
        if path == "/forget" and number % 8:
            known = {}
        return body | {name: known[name] for name in body.keys() & known.keys()}


@pytest.fixture(scope="module")
def insider(tmp_path_factory):
    store = Store(make_study(tmp_path_factory.mktemp("study"), prompts=1))
    app = create_app(store, Limits(FREE, FREE, FREE))
    person = Person(app)
    person.answer(person.join())
    person.http.post("/admin/login", data={"token": store.first_admin_token()})
    yield Insider(person, {cookie.name: cookie.value for cookie in person.http.cookies.jar})
    store.close()


@pytest.fixture(scope="module")
def api(insider):
    schema = schemathesis.openapi.from_dict(insider.person.http.app.openapi())
    schema.app = insider.person.http.app
    return schema


READ = ["/", "/item", "/admin", "/admin/votes.jsonl", "/health"]
SENT = ["/join", "/vote", "/undo", "/forget", "/return/{token}", "/images/{name}", "/static/{name}"]
SENT += [f"/admin/{name}" for name in ("login", "logout", "extend", "switch")]
numbers = iter(range(10**9))


@pytest.mark.parametrize("path", READ + SENT)
def test_what_fits_the_schema_is_no_error_of_ours(api, insider, path):
    for method in api[path]:
        try_operation(api[path][method], insider, GenerationMode.POSITIVE)


@pytest.mark.parametrize("path", SENT)
def test_what_does_not_fit_it_is_no_error_of_ours(api, insider, path):
    method = "GET" if "{" in path else "POST"
    try_operation(api[path][method], insider, GenerationMode.NEGATIVE)


def test_no_path_is_left_out(api):
    assert {*READ, *SENT} == set(api)


def try_operation(operation, insider, mode):
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(operation.as_strategy(generation_mode=mode))
    def attempt(case):
        if isinstance(case.body, dict):
            case.body = insider.fill(case.body, case.path, next(numbers))
        case.call_and_validate(checks=[not_a_server_error], cookies=insider.cookies)

    attempt()
