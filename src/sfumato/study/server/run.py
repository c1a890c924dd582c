"""Serve a study, in one process or several."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.study.folder import Study
from sfumato.study.store import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

FOLDER, DATABASE = "SFUMATO_STUDY_FOLDER", "SFUMATO_STUDY_DATABASE"


def run_server(
    folder: Path, database: str | None, *, host: str, port: int, workers: int, root_path: str, proxies: str
) -> None:
    """Serve until interrupted. Requests are not logged: addresses of raters and their links are nobody's business."""
    import uvicorn

    os.environ[FOLDER] = str(folder.resolve())
    if database:
        os.environ[DATABASE] = database
    uvicorn.run(
        "sfumato.study.server.run:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        root_path=root_path,
        forwarded_allow_ips=proxies,
        access_log=False,
        server_header=False,
        log_level="warning",
    )


def application() -> FastAPI:
    """The application of the study that the environment names."""
    from sfumato.study.server.app import create_app

    store = Store(Study.load(os.environ[FOLDER]), os.environ.get(DATABASE))
    app = create_app(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app.router.lifespan_context = lifespan
    return app
