"""Images under their random names, style and scripts. Only what was there at the start is served."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from sfumato.study.folder import Study
from sfumato.study.server.render import WEB, PageError

LONG = {"Cache-Control": "private, max-age=604800, immutable"}
BRIEF = {"Cache-Control": "no-cache"}
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def file_routes(study: Study) -> APIRouter:
    """Routes of files."""
    router = APIRouter()
    images = {name for item in study.items.values() for option in item.options for name in option.images}
    assets = {path.name: path for path in WEB.iterdir() if path.suffix in TYPES}

    @router.get("/images/{name}", response_class=FileResponse)
    def image(name: Annotated[str, Path(max_length=64)]) -> FileResponse:
        if name not in images:
            raise PageError(404, "error_missing")
        return FileResponse(study.images / name, media_type="image/webp", headers=LONG)

    @router.get("/static/{name}", response_class=FileResponse)
    def asset(name: Annotated[str, Path(max_length=64)]) -> FileResponse:
        if name not in assets:
            raise PageError(404, "error_missing")
        return FileResponse(assets[name], media_type=TYPES[assets[name].suffix], headers=BRIEF)

    return router
