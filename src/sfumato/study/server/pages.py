"""The pages of raters: consent, items, leaving and coming back, deletion."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from sfumato.study import voting
from sfumato.study.answers import read_answer
from sfumato.study.folder import Item
from sfumato.study.server.limits import Limits
from sfumato.study.server.render import PageError, Templates
from sfumato.study.server.security import Signer, new_rater
from sfumato.study.store import Store

COOKIE, COOKIE_DAYS = "sfumato_study", 90
LETTERS = "ABCDEFGHI"
LONGEST = 24 * 3600.0
Token = Annotated[str, Field(max_length=400)]


class Signed(BaseModel):
    """What every form of ours sends."""

    form: Token


class Answered(Signed):
    """An answer: the page it was given on, and the choice or the ranks."""

    page: Token
    answer: str | None = Field(None, max_length=8)
    rank: list[int] = Field([], max_length=9)


class Undone(Signed):
    """The key of the vote to take back."""

    vote: Token


class RaterPages:
    """The routes of raters."""

    def __init__(self, store: Store, templates: Templates, signer: Signer, limits: Limits) -> None:
        self._store, self._study = store, store.study
        self._render, self._signer, self._limits = templates, signer, limits

    def router(self) -> APIRouter:
        """All of them."""
        router = APIRouter(default_response_class=HTMLResponse)
        for path, method, page in (
            ("/", "GET", self.consent),
            ("/join", "POST", self.join),
            ("/item", "GET", self.item),
            ("/vote", "POST", self.vote),
            ("/undo", "POST", self.undo),
            ("/return/{token}", "GET", self.come_back),
            ("/forget", "GET", self.ask_to_forget),
            ("/forget", "POST", self.forget),
        ):
            router.add_api_route(path, page, methods=[method])
        return router

    def consent(self, request: Request) -> Response:
        """What it is about, and the button that begins; who has begun goes on."""
        rater = self._visitor(request)
        state = self._state(rater or "")
        if state.joined:
            return self._to(request, "/item")
        if not state.open:
            return self._render(request, "message.html", heading="closed", text="closed_text", rater=None)
        rater = rater or new_rater()
        config = self._study.config
        text = config.consent or self._render.text("consent")
        paragraphs = [part for part in text.replace("{items}", str(self._total())).split("\n\n") if part.strip()]
        page = self._render(request, "consent.html", paragraphs=paragraphs, form=self._signer.form(rater))
        return self._signed_in(request, page, rater)

    def join(self, request: Request, sent: Annotated[Signed, Form()]) -> Response:
        """Begin."""
        self._limits.joining.take(_address(request))
        rater = self._owner(request, sent)
        self._store.write(lambda connection: voting.join(connection, rater))
        return self._to(request, "/item")

    def item(self, request: Request) -> Response:
        """The next question, or thanks."""
        if (rater := self._visitor(request)) is None:
            return self._to(request, "/")
        with self._store.read() as connection:
            state, held = voting.state(connection, rater), voting.held(connection, rater)
        if not state.joined:
            return self._to(request, "/")
        if not held and state.open:
            held = self._store.write(lambda connection: voting.give(connection, self._study, rater))
        signed = {"form": self._signer.form(rater), "link": self._link(request, rater)}
        common: dict[str, Any] = {"rater": rater, "last": state.last_key, **signed}
        if not held or not state.open:
            heading, text = ("done", "done_text") if state.open else ("closed", "closed_text")
            return self._render(request, "message.html", heading=heading, text=text, **common)
        item, turn = self._study.items[held[0].item], held[0].turn
        return self._render(
            request,
            "item.html",
            question=self._study.question(item),
            item=item,
            options=[item.options[index].images for index in item.order(turn)],
            letters=LETTERS,
            page=self._signer.page(rater, held[0]),
            number=state.answered + 1,
            total=max(self._total(), state.answered + 1),
            ahead=[name for later in held[1:] for name in _images(self._study.items[later.item])],
            **common,
        )

    def vote(self, request: Request, sent: Annotated[Answered, Form()]) -> Response:
        """Keep an answer. It is on the disk before this returns."""
        rater = self._owner(request, sent)
        self._limits.answers.take(rater)
        page = self._signer.read_page(rater, sent.page)
        if page is None:
            raise PageError(403, "error_form")
        seconds = min(max(0.0, time.time() - page.shown_at), LONGEST)
        item = self._study.items[page.item]
        question = self._study.question(item)
        try:
            answer = read_answer(question, item, page.turn, sent.answer, sent.rank)
        except ValueError:
            raise PageError(422, "error_ranks" if question.kind == "rank" else "error_answer") from None
        self._store.write(
            lambda connection: voting.vote(connection, self._study, rater, page.assignment, page.key, answer, seconds)
        )
        return self._to(request, "/item")

    def undo(self, request: Request, sent: Annotated[Undone, Form()]) -> Response:
        """Take the last vote back."""
        rater = self._owner(request, sent)
        self._limits.answers.take(rater)
        self._store.write(lambda connection: voting.undo(connection, rater, sent.vote))
        return self._to(request, "/item")

    def come_back(self, request: Request, token: Annotated[str, Path(max_length=400)]) -> Response:
        """A personal link."""
        self._limits.joining.take(_address(request))
        rater = self._signer.rater(token)
        if rater is None or not self._state(rater).joined:
            raise PageError(404, "error_link")
        return self._signed_in(request, self._to(request, "/item"), rater)

    def ask_to_forget(self, request: Request) -> Response:
        """Whether everything of this rater is to be deleted."""
        if (rater := self._visitor(request)) is None:
            return self._to(request, "/")
        return self._render(request, "forget.html", form=self._signer.form(rater))

    def forget(self, request: Request, sent: Annotated[Signed, Form()]) -> Response:
        """Delete everything of this rater."""
        rater = self._owner(request, sent)
        self._limits.answers.take(rater)
        self._store.write(lambda connection: voting.forget(connection, rater))
        page = self._render(request, "message.html", heading="forgotten", text=None, rater=None)
        page.delete_cookie(COOKIE, path=_cookie_path(request))
        return page

    def _visitor(self, request: Request) -> str | None:
        return self._signer.rater(request.cookies.get(COOKIE))

    def _state(self, rater: str) -> voting.State:
        with self._store.read() as connection:
            return voting.state(connection, rater)

    def _owner(self, request: Request, sent: Signed) -> str:
        """Who sent a form, which must be from a page that was made for them."""
        rater = self._visitor(request)
        if rater is None or not self._signer.is_form(rater, sent.form):
            raise PageError(403, "error_form")
        return rater

    def _signed_in(self, request: Request, response: Response, rater: str) -> Response:
        response.set_cookie(
            COOKIE,
            self._signer.link(rater),
            max_age=COOKIE_DAYS * 24 * 3600,
            path=_cookie_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return response

    def _link(self, request: Request, rater: str) -> str:
        return f"{str(request.base_url).rstrip('/')}/return/{self._signer.link(rater)}"

    def _total(self) -> int:
        items = len(self._study.items)
        return min(self._study.config.items_per_rater or items, items)

    def _to(self, request: Request, path: str) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '').rstrip('/')}{path}", status_code=303)


def _images(item: Item) -> list[str]:
    return [name for option in item.options for name in option.images]


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _cookie_path(request: Request) -> str:
    return request.scope.get("root_path", "").rstrip("/") or "/"
