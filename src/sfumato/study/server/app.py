"""The application: routes, and what becomes of errors."""

from __future__ import annotations

import math

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from sfumato.study.models import StudyRow
from sfumato.study.server.admin import AdminPages
from sfumato.study.server.files import file_routes
from sfumato.study.server.guard import Guard
from sfumato.study.server.limits import Limits, TooManyError
from sfumato.study.server.pages import RaterPages
from sfumato.study.server.render import PageError, Templates
from sfumato.study.server.security import Signer
from sfumato.study.store import Store
from sfumato.study.voting import ClosedError, StaleError, UnknownRaterError

TEXTS = {413: "error_large"}
EXPLAINED = (
    PageError,
    HTTPException,
    RequestValidationError,
    TooManyError,
    StaleError,
    ClosedError,
    UnknownRaterError,
    sa.exc.OperationalError,
    sa.exc.TimeoutError,
)


def create_app(store: Store, limits: Limits | None = None) -> FastAPI:
    """The pages of a study around its votes."""
    limits, templates = limits or Limits(), Templates(store.study)
    with store.read() as connection:
        signer = Signer(connection.execute(sa.select(StudyRow.secret)).scalar_one())
    app = FastAPI(title="sfumato study", openapi_url=None, redirect_slashes=False)
    app.include_router(RaterPages(store, templates, signer, limits).router())
    app.include_router(AdminPages(store, templates, signer, limits).router())
    app.include_router(file_routes(store.study))
    app.add_api_route("/health", lambda: _health(store), methods=["GET"], name="health")
    app.add_middleware(Guard)

    async def explain(request: Request, error: Exception) -> Response:
        status, text, headers = _explained(error)
        page = templates(request, "error.html", status, text=text)
        page.headers.update(headers)
        return page

    for kind in EXPLAINED:
        app.add_exception_handler(kind, explain)
    return app


def _health(store: Store) -> dict[str, bool]:
    """Whether the database answers."""
    with store.read() as connection:
        return {"ok": connection.execute(sa.select(StudyRow.schema_version)).scalar_one() > 0}


def _explained(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of the page that explains an error."""
    match error:
        case PageError():
            return error.status, error.text, {}
        case HTTPException():
            return error.status_code, TEXTS.get(error.status_code, "error_missing"), dict(error.headers or {})
        case RequestValidationError():
            return 422, "error_answer", {}
        case TooManyError():
            return 429, "error_many", {"Retry-After": str(math.ceil(error.seconds))}
        case StaleError():
            return 409, "error_stale", {}
        case ClosedError():
            return 409, "closed_text", {}
        case UnknownRaterError():
            return 403, "error_form", {}
        case _:
            return 503, "error_busy", {"Retry-After": "2"}
