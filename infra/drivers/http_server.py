"""The HTTP process: one ASGI application in front of the door, the API and the health page, served by uvicorn.

`/v1/*` and the SDKs' other paths go to `infra.drivers.door`, `/api/v1/*` to `infra.drivers.api`. Owns no meaning.
"""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from infra.drivers.health import Health
from schemas.errors import NotFound

if TYPE_CHECKING:
    from infra.bootstrap import Session

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75  # longer than the idle pools of SDKs (60 s): the client closes, not we under its request
GRACE_S: Final = 3  # of requests in flight when we stop; long polls end then
_API: Final = "/api/v1"
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Touchfold</title>
<style>body{{font:16px system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}}code{{background:#eee}}</style>
<h1>Touchfold runs</h1>
<p>Status <b>{status}</b>: {accepted} touchpoints accepted, {applied} applied.</p>
<ul><li><a href="/health">/health</a>: database, vault, disk, lag</li>
<li><code>POST /v1/track</code>, <code>/v1/identify</code>, <code>/v1/batch</code> …: the door</li>
<li><a href="/api/v1/docs">/api/v1</a>: profiles, segments, changes, SQL</li></ul>
<p>Begin with <code>touchfold source create web</code>; it prints a write key and a curl line.</p></html>
"""
_log = logging.getLogger("touchfold.http")


class Router:
    """Sends a request to who answers it. `door`, `api`: ASGI applications."""

    def __init__(self, door: Application, api: Application, health: Health) -> None:
        self._door = door
        self._api = api
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/v1/"):
            await self._door(scope, receive, send)
        elif path.startswith(_API):
            await self._api(scope, receive, send)
        elif path == "/health" and scope["method"] in {"GET", "HEAD"}:
            found = await asyncio.to_thread(self._health.look)
            status = 200 if found["status"] == "ok" else 503
            await _answer(send, status, json.dumps(found).encode(), b"application/json")
        elif path == "/" and scope["method"] in {"GET", "HEAD"}:
            found = await asyncio.to_thread(self._health.look)
            page = _PAGE.format(**{key: escape(str(value)) for key, value in found.items()})
            await _answer(send, 200, page.encode(), b"text/html; charset=utf-8")
        elif path.startswith(_DOOR_PATHS):
            await self._door(scope, receive, send)
        else:
            error = NotFound("nothing here: the door is /v1/…, the API /api/v1/…, the state /health")
            await _answer(send, error.status, json.dumps(error.body()).encode(), b"application/json")


_DOOR_PATHS: Final = ("/b", "/batch", "/projects/", "/sourceConfig", "/beacon/", "/pixel/", "/analytics.js/")
"""What SDKs call outside /v1; http-surface 2.1. The door answers 404 for those it does not serve."""


async def _answer(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, and with word of its start."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()


def serve(application: Application, stop: threading.Event, ready: Callable[[], None], listener: socket.socket) -> None:
    """Serve on a socket that listens already, until `stop`."""
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a request's own word for its address is not taken
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    _Server(config, stop, ready).run(sockets=[listener])


def run(session: "Session", stop: threading.Event, ready: Callable[[], None], listener: socket.socket) -> None:
    """The role: put the application together, serve until `stop`, answer what waits and close."""
    from infra.drivers.api import build_api  # noqa: PLC0415  # FastAPI takes 0.5 s to import
    from infra.drivers.door import build_door  # noqa: PLC0415
    from infra.drivers.roles import settle_memory  # noqa: PLC0415

    session.vault().hold_lease()
    door, api = build_door(session), build_api(session)
    settle_memory()
    try:
        serve(Router(door, api, Health(session)), stop, ready, listener)
    finally:
        door.close()
        api.state.api.close()
