"""The page of whoever runs the study: what came in, more votes, an end, the data."""

from __future__ import annotations

import json
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from sfumato.study.export import vote_rows
from sfumato.study.models import StudyRow
from sfumato.study.server.limits import Limits
from sfumato.study.server.render import PageError, Templates
from sfumato.study.server.security import ADMIN_HOURS, Signer, is_token
from sfumato.study.store import Store, add_slots
from sfumato.study.summary import summarise

COOKIE = "sfumato_admin"


class Login(BaseModel):
    """The token that was printed once."""

    token: str = Field(max_length=100)


class Command(BaseModel):
    """What every form of the page sends."""

    form: str = Field(max_length=100)


class Extension(Command):
    """So many more votes on each item."""

    votes: int = Field(ge=1, le=100)


class Switch(Command):
    """Whether votes are taken."""

    open: bool


class AdminPages:
    """The routes of the admin."""

    def __init__(self, store: Store, templates: Templates, signer: Signer, limits: Limits) -> None:
        self._store, self._render, self._signer, self._limits = store, templates, signer, limits

    def router(self) -> APIRouter:
        """All of them."""
        router = APIRouter(prefix="/admin", default_response_class=HTMLResponse)
        for path, method, page in (
            ("", "GET", self.show),
            ("/login", "POST", self.login),
            ("/logout", "POST", self.logout),
            ("/extend", "POST", self.extend),
            ("/switch", "POST", self.switch),
            ("/votes.jsonl", "GET", self.votes),
        ):
            router.add_api_route(path, page, methods=[method])
        return router

    def show(self, request: Request) -> Response:
        """What came in so far; without the cookie, the form that asks for the token."""
        if not self._is_admin(request):
            return self._render(request, "login.html")
        with self._store.read() as connection:
            found = summarise(connection, self._store.study)
        form = self._signer.form(request.cookies[COOKIE])
        return self._render(request, "admin.html", name=self._store.study.config.name, form=form, **found)

    def login(self, request: Request, sent: Annotated[Login, Form()]) -> Response:
        """Check the token."""
        self._limits.tokens.take(request.client.host if request.client else "")
        admin_hash = self._admin_hash()
        if not is_token(sent.token, admin_hash):
            raise PageError(403, "error_form")
        response = self._back(request)
        response.set_cookie(
            COOKIE,
            self._signer.admin(admin_hash),
            max_age=ADMIN_HOURS * 3600,
            path=self._path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def logout(self, request: Request, sent: Annotated[Command, Form()]) -> Response:
        """Forget the cookie."""
        self._check(request, sent)
        response = self._back(request)
        response.delete_cookie(COOKIE, path=self._path(request))
        return response

    def extend(self, request: Request, sent: Annotated[Extension, Form()]) -> Response:
        """Ask for more votes on each item."""
        self._check(request, sent)
        self._store.write(lambda connection: add_slots(connection, self._store.study, sent.votes))
        return self._back(request)

    def switch(self, request: Request, sent: Annotated[Switch, Form()]) -> Response:
        """Take votes, or take none any more."""
        self._check(request, sent)
        self._store.write(lambda connection: connection.execute(sa.update(StudyRow).values(open=sent.open)))
        return self._back(request)

    def votes(self, request: Request) -> Response:
        """The votes as JSON lines: see `sfumato.study.export`."""
        if not self._is_admin(request):
            raise PageError(403, "error_form")
        with self._store.read() as connection:
            rows = vote_rows(connection, self._store.study)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        headers = {"Content-Disposition": 'attachment; filename="votes.jsonl"'}
        return Response(text, media_type="application/jsonl", headers=headers)

    def _admin_hash(self) -> str:
        with self._store.read() as connection:
            return connection.execute(sa.select(StudyRow.admin_hash)).scalar_one()

    def _is_admin(self, request: Request) -> bool:
        cookie = request.cookies.get(COOKIE)
        return cookie is not None and self._signer.is_admin(cookie, self._admin_hash())

    def _check(self, request: Request, sent: Command) -> None:
        if not self._is_admin(request) or not self._signer.is_form(request.cookies[COOKIE], sent.form):
            raise PageError(403, "error_form")

    def _path(self, request: Request) -> str:
        return f"{request.scope.get('root_path', '').rstrip('/')}/admin"

    def _back(self, request: Request) -> Response:
        return RedirectResponse(self._path(request), status_code=303)
