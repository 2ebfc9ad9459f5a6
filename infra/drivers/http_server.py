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
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from infra.drivers.health import Health
from infra.drivers.ui_proxy import MAX_MESSAGE, UiProxy
from schemas.errors import NotFound

if TYPE_CHECKING:
    from infra.bootstrap import Session

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Closing = Callable[[], Awaitable[None]]

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75  # longer than the idle pools of SDKs (60 s): the client closes, not we under its request
GRACE_S: Final = 3  # of requests in flight when we stop; long polls end then
_API: Final = "/api/v1"
_log = logging.getLogger("touchfold.http")


class Router:
    """Sends a request to who answers it; all but `health` are ASGI applications, `ui` is None where it is off."""

    def __init__(
        self,
        door: Application,
        api: Application,
        health: Health,
        metrics: Application,
        ui: Application | None,
        edges: str = "door,api",
    ) -> None:
        self._edges = edges
        self._door = door
        self._api = api
        self._health = health
        self._metrics = metrics
        self._ui = ui

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await (self._ui or _no_websocket)(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith("/v1/"):
            await (self._door if "door" in self._edges else _no_door)(scope, receive, send)
        elif path.startswith(_API):
            await (self._api if "api" in self._edges else _no_api)(scope, receive, send)
        elif path == "/health" and scope["method"] in {"GET", "HEAD"}:
            status, found = await asyncio.to_thread(self._health.answer)
            await _answer(send, status, json.dumps(found).encode(), b"application/json")
        elif path == "/metrics" and scope["method"] == "GET":
            await self._metrics(scope, receive, send)
        elif path.startswith(_DOOR_PATHS):
            await self._door(scope, receive, send)
        elif self._ui is not None and (scope["method"] in {"GET", "HEAD"} or path.startswith(_PAGE_POSTS)):
            await self._ui(scope, receive, send)
        else:
            error = NotFound("nothing here: the door is /v1/…, the API /api/v1/…, the state /health")
            await _answer(send, error.status, json.dumps(error.body()).encode(), b"application/json")


_PAGE_POSTS: Final = ("/sign-in", "/sign-out", "/welcome/", "/_nicegui")
"""Where pages send to; a sender with a mistyped path is told so, and not shown a page."""
_DOOR_PATHS: Final = ("/b", "/batch", "/projects/", "/sourceConfig", "/beacon/", "/pixel/", "/analytics.js/")
"""What SDKs call outside /v1; http-surface 2.1. The door answers 404 for those it does not serve."""


async def _answer(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _no_door(_scope: Scope, _receive: Receive, send: Send) -> None:
    await _elsewhere(send, "this process serves the API and the pages: the door is what touchfold ingest serves")


async def _no_api(_scope: Scope, _receive: Receive, send: Send) -> None:
    await _elsewhere(send, "this process is a door: the API is what touchfold serve serves")


async def _elsewhere(send: Send, message: str) -> None:
    error = NotFound(message)
    await _answer(send, error.status, json.dumps(error.body()).encode(), b"application/json")


async def _no_websocket(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})


class StoppableServer(uvicorn.Server):
    """uvicorn without its own signal handlers, and with word of its start."""

    def __init__(
        self,
        config: uvicorn.Config,
        stop: threading.Event,
        ready: Callable[[], None],
        stopping: Callable[[], None] = lambda: None,
        closing: Closing | None = None,
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready
        self._stopping = stopping  # ends what waits for long
        self._closing = closing  # after the last request

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._closing is not None:
            await self._closing()

    async def on_tick(self, counter: int) -> bool:
        if self._stop.is_set():
            self._stopping()
            return True
        return await super().on_tick(counter)


def serve(
    application: Application,
    stop: threading.Event,
    ready: Callable[[], None],
    listener: socket.socket,
    stopping: Callable[[], None] = lambda: None,
    closing: Closing | None = None,
) -> None:
    """Serve on a socket that listens already, until `stop`; then `stopping` is called, what runs may end, `closing`."""
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
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
    StoppableServer(config, stop, ready, stopping, closing).run(sockets=[listener])


def run(
    session: "Session",
    stop: threading.Event,
    ready: Callable[[], None],
    listener: socket.socket,
    ui_path: str | None = None,
    edges: str = "door,api",
) -> None:
    """The role: put the application together, serve until `stop`, answer what waits and close."""
    from infra.adapters.meter import Meter  # noqa: PLC0415
    from infra.drivers.api import build_api  # noqa: PLC0415  # FastAPI takes 0.5 s to import
    from infra.drivers.door import build_door  # noqa: PLC0415
    from infra.drivers.metrics import Metrics  # noqa: PLC0415
    from infra.drivers.roles import settle_memory  # noqa: PLC0415

    session.vault().hold_lease()
    if session.adapters.kafka is not None:
        from infra.cluster import warm_up  # noqa: PLC0415  # of a cluster alone

        warm_up(session)
    meter = Meter(session.data / "meters")
    door, api = build_door(session, meter), build_api(session)
    services = api.state.api
    metrics = Metrics(services, meter)
    settle_memory()
    try:
        ui = None if ui_path is None else UiProxy(ui_path)
        router = Router(
            metrics.timed_door(door), metrics.timed_api(api), Health(session, edges), metrics.handle, ui, edges
        )
        serve(router, stop, ready, listener, services.stop, None if ui is None else ui.close)
    finally:
        door.close()
        metrics.close()
        services.close()
        meter.close()
