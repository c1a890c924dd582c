"""Simulated raters: many at once, over plain HTTP, each with a log of the votes that the server acknowledged.

A rater who gets no answer sends the same form again until there is one, as a browser's user would.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode

FIELD = re.compile(r'name="(form|page)" value="([^"]*)"')
PATIENCE = 30.0
"""Seconds to wait for a reply."""


@dataclass(frozen=True)
class Vote:
    """A vote that was acknowledged: whose cookie, which page, what answer, when (Unix time) and after how long."""

    cookie: str
    page: str
    answer: str
    at: float
    seconds: float


@dataclass
class Reply:
    """Of a server."""

    status: int
    headers: dict[str, str]
    text: str


class Connection:
    """HTTP/1.1 with one connection that is kept, in as little work as will do."""

    def __init__(self, port: int) -> None:
        self._port, self._cookie = port, ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def cookie(self) -> str:
        return self._cookie

    async def send(self, path: str, form: dict[str, str] | None = None) -> Reply:
        """A request; raises OSError if the connection breaks, and TimeoutError."""
        body = urlencode(form).encode() if form else b""
        head = f"{'POST' if form else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Cookie: sfumato_study={self._cookie}\r\n"
        if form:
            head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        try:
            return await asyncio.wait_for(self._exchange(f"{head}\r\n".encode() + body), PATIENCE)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            if self._streams:
                self._streams[1].close()
            self._streams = None
            raise OSError(str(error)) from error

    async def _exchange(self, request: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        text = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        if found := re.match("sfumato_study=([^;]+)", headers.get("set-cookie", "")):
            self._cookie = found.group(1)
        return Reply(int(head[0].split()[1]), headers, text)


class Rater:
    """Joins, and answers by chance until told to stop or until there is nothing more.

    Args:
        port: of the server, on this machine.
        acknowledged: is called with every vote that the server took.
        pause: seconds between a page and its answer, on average.
        stopped: whether to stop before the next page.
    """

    def __init__(
        self, port: int, acknowledged: Callable[[Vote], None], pause: float, stopped: Callable[[], bool]
    ) -> None:
        self._http, self._acknowledged, self._pause, self._stopped = Connection(port), acknowledged, pause, stopped

    async def take_part(self) -> None:
        """From the first page on."""
        await self._join()
        while not self._stopped():
            page = await self._patiently("/item")
            if page.status == 303:  # the server knows nothing of us
                await self._join()
                continue
            fields = dict(FIELD.findall(page.text))
            if "page" not in fields:
                return
            await asyncio.sleep(random.uniform(0, 2 * self._pause))
            answer = random.choice(("1", "2", "tie"))
            begun = time.perf_counter()
            reply = await self._patiently("/vote", {**fields, "answer": answer})
            if reply.status == 303:
                took = time.perf_counter() - begun
                self._acknowledged(Vote(self._http.cookie, fields["page"], answer, time.time(), took))

    async def _join(self) -> None:
        page = await self._patiently("/")
        if page.status == 200:
            await self._patiently("/join", dict(FIELD.findall(page.text)))

    async def _patiently(self, path: str, form: dict[str, str] | None = None) -> Reply:
        """A reply that is neither an error of the server's nor a plea for patience."""
        while True:
            try:
                reply = await self._http.send(path, form)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            if reply.status < 500 and reply.status != 429:
                return reply
            await asyncio.sleep(0.2)


def run_raters(port: int, count: int, log: str, pause: float, stop: str) -> None:
    """Let raters take part until there is a file named `stop`; every acknowledged vote is a line of the log at once."""

    async def all_of_them() -> None:
        with Path(log).open("a", encoding="utf-8") as file:

            def note(vote: Vote) -> None:
                file.write(json.dumps(asdict(vote)) + "\n")
                file.flush()

            raters = [Rater(port, note, pause, Path(stop).exists) for _ in range(count)]
            await asyncio.gather(*(rater.take_part() for rater in raters))

    asyncio.run(all_of_them())


def read_log(log: str | Path) -> list[Vote]:
    """The votes of a log."""
    return [Vote(**json.loads(line)) for line in Path(log).read_text(encoding="utf-8").splitlines()]
