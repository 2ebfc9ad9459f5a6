"""Assembles the pages and serves them on a socket: the role `ui`."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from infra.app.vault import vault_of
from infra.drivers.http.pages_proxy import MAX_MESSAGE, UI_KEEPS_S
from infra.drivers.http.server import GRACE_S, StoppableServer
from infra.drivers.process.memory import tune_memory

if TYPE_CHECKING:
    from infra.app.session import Session

PAGES: Final = ("overview", "customers", "customer", "segments", "live", "sources", "health", "team", "audit")
ASSETS: Final = Path(__file__).parent / "assets"
_log = logging.getLogger("touchfold.ui")


def build(session: "Session") -> tuple["uvicorn._types.ASGIApplication", Callable[[], None]]:
    """The ASGI application for a session, and the function that closes it."""
    # NiceGUI makes its folder of stored data when it is imported; we store nothing there.
    os.environ["NICEGUI_STORAGE_PATH"] = str(session.data / "ui")
    from nicegui import ui  # noqa: PLC0415

    from infra.drivers.pages.gate import Gate  # noqa: PLC0415
    from infra.drivers.pages.person_download import mount as mount_downloads  # noqa: PLC0415
    from infra.drivers.pages.services import Services  # noqa: PLC0415

    services = Services.of(session)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _assets(app)
    mount_downloads(app, services)
    for name in PAGES:
        import_module(f"infra.drivers.pages.{name}").register(services)
    ui.run_with(
        app,
        title="Touchfold",
        favicon=ASSETS / "favicon.svg",
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,  # nothing is bound, so there is nothing to poll while nobody is here
        reconnect_timeout=10.0,
        show_welcome_message=False,
    )
    _own_errors()
    return Gate(app, services), services.close  # type: ignore[return-value]


def _own_errors() -> None:
    """Replace NiceGUI's error pages, which show the exception's text."""
    from nicegui import app as pages  # noqa: PLC0415

    from infra.drivers.pages.gate import broken_page, missing_page  # noqa: PLC0415

    @pages.exception_handler(404)
    async def missing(_request: Request, _err: Exception) -> Response:
        return HTMLResponse(missing_page(), 404, {"Cache-Control": "no-store"})

    @pages.exception_handler(Exception)
    async def broken(_request: Request, err: Exception) -> Response:
        _log.error("a page failed", exc_info=err)
        return HTMLResponse(broken_page(), 500, {"Cache-Control": "no-store"})


def _assets(app: FastAPI) -> None:
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

    @app.get("/assets/{name}")
    async def asset(name: str) -> Response:
        path = ASSETS / name
        if path.suffix not in kinds or path.parent != ASSETS or not path.is_file():
            return Response(status_code=404)
        return FileResponse(path, media_type=kinds[path.suffix], headers={"Cache-Control": "no-cache"})


def run(session: "Session", stop: threading.Event, ready: Callable[[], None], listener: socket.socket) -> None:
    """The role: serve until `stop`."""

    vault_of(session).hold_lease()  # events from staff are sealed here
    application, close = build(session)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,  # the door's
        timeout_keep_alive=UI_KEEPS_S,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # to a neighbour
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    try:
        tune_memory()
        StoppableServer(config, stop, ready).run(sockets=[listener])
    finally:
        close()
