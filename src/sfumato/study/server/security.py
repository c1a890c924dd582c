"""What proves who somebody is: signed links, pages and forms. Raters have no names and no passwords."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import Any, NamedTuple

from itsdangerous import BadData, URLSafeTimedSerializer

from sfumato.study.store import token_hash
from sfumato.study.voting import Held

RATER = re.compile(r"[0-9a-f]{32}")
ADMIN_HOURS = 12
SIGNING = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}


class Page(NamedTuple):
    """What a page with a question knows of itself.

    Attributes:
        assignment, item, turn: what is answered, as in `voting.Held`.
        key: random, different whenever a page is made.
        shown_at: Unix time.
    """

    assignment: int
    item: str
    turn: int
    key: str
    shown_at: float


class Signer:
    """Signs and checks with the study's secret; what does not fit gives None."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def link(self, rater: str) -> str:
        """A rater's personal link, and what their cookie holds."""
        return self._serializer("rater").dumps(rater)

    def rater(self, token: str | None) -> str | None:
        """The rater of a link or cookie."""
        found = self._loaded("rater", token)
        return found if isinstance(found, str) and RATER.fullmatch(found) else None

    def page(self, rater: str, shown: Held) -> str:
        """Names a page that shows an item to a rater now."""
        page = Page(shown.assignment, shown.item, shown.turn, secrets.token_hex(16), round(time.time(), 3))
        return self._serializer(f"page {rater}").dumps(page)

    def read_page(self, rater: str, text: str) -> Page | None:
        """What `page` named, if it was for this rater."""
        found = self._loaded(f"page {rater}", text)
        return Page(*found) if found else None

    def form(self, owner: str) -> str:
        """Proof that a form comes from a page of ours, shown to its owner: a rater, or an admin's cookie."""
        return hmac.new(self._secret.encode(), f"form {owner}".encode(), hashlib.sha256).hexdigest()

    def is_form(self, owner: str, text: str) -> bool:
        """Whether `form` made this text for this owner."""
        return hmac.compare_digest(self.form(owner).encode(), text.encode())

    def admin(self, admin_hash: str) -> str:
        """The cookie of somebody who had the admin token."""
        return self._serializer("admin").dumps(admin_hash)

    def is_admin(self, cookie: str | None, admin_hash: str) -> bool:
        """Whether a cookie is from `admin`, not too old, and the token has not been renewed since."""
        found = self._loaded("admin", cookie, max_age=ADMIN_HOURS * 3600)
        return isinstance(found, str) and hmac.compare_digest(found, admin_hash)

    def _serializer(self, salt: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._secret, salt=salt, signer_kwargs=SIGNING)

    def _loaded(self, salt: str, text: str | None, max_age: int | None = None) -> Any:
        try:
            return self._serializer(salt).loads(text or "", max_age=max_age)
        except BadData:
            return None


def is_token(token: str, admin_hash: str) -> bool:
    """Whether this is the admin token, in constant time."""
    return hmac.compare_digest(token_hash(token), admin_hash)


def new_rater() -> str:
    """128 random bits: nobody guesses another's."""
    return secrets.token_hex(16)
