"""The HTTP process: one ASGI application in front of the door, the API and the health page, served by uvicorn.

`/v1/*` and the SDKs' other paths (`is_of_door`) go to `door`, `/api/v1/*` to `api.application`. No logic of its own.
"""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.app.vault import vault_of
from infra.drivers.http.asgi import answer
from infra.drivers.http.browser_edge import is_of_door
from infra.drivers.http.client_address import Proxies
from infra.drivers.http.connections import BACKLOG, Connections, HandleRoom, Limits, raise_handle_limit
from infra.drivers.http.health import Health
from infra.drivers.http.pages_proxy import MAX_MESSAGE, UiProxy
from infra.drivers.http.protocol import bounded
from infra.drivers.http.throttle import Throttle
from infra.drivers.http.tls import HANDSHAKE_S, Certificate, certificate_of
from infra.drivers.process.memory import tune_memory
from schemas.errors import NotFound, TooMany

if TYPE_CHECKING:
    from infra.app.session import Session

Closing = Callable[[], Awaitable[None]]

GRACE_S: Final = 3  # for requests in flight at shutdown; long polls are ended then
_API: Final = "/api/v1"
_log = logging.getLogger("touchfold.http")


class Router:
    """Routes a request to its handler. All but `health` are ASGI applications; `ui` is None if it is off."""

    def __init__(
        self,
        door: ASGIApp,
        api: ASGIApp,
        health: Health,
        metrics: ASGIApp,
        ui: ASGIApp | None,
        edges: str = "door,api",
        throttle: Throttle | None = None,
    ) -> None:
        self._edges = edges
        self._door = door
        self._api = api
        self._health = health
        self._metrics = metrics
        self._ui = ui
        self._throttle = throttle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await (self._ui or _no_websocket)(scope, receive, send)
            return
        path: str = scope["path"]
        if self._throttle is not None and not path.startswith("/v1/"):
            try:
                self._slow_down(self._throttle, scope, path)
            except TooMany as err:
                await _refuse(scope, send, err)
                return
        if path.startswith("/v1/") or is_of_door(scope["method"], path):
            await (self._door if "door" in self._edges else _no_door)(scope, receive, send)
        elif path.startswith(_API):
            await (self._api if "api" in self._edges else _no_api)(scope, receive, send)
        elif path == "/health" and scope["method"] in {"GET", "HEAD"}:
            status, found = await asyncio.to_thread(self._health.answer)
            await answer(send, status, json.dumps(found).encode(), b"application/json")
        elif path == "/metrics" and scope["method"] == "GET":
            await self._metrics(scope, receive, send)
        elif path == "/robots.txt":
            await answer(send, 200, _ROBOTS, b"text/plain")
        elif self._ui is not None and (scope["method"] in {"GET", "HEAD"} or path.startswith(_PAGE_POSTS)):
            await self._ui(scope, receive, send)
        else:
            error = NotFound("nothing here: the door is at /v1/…, the API at /api/v1/…, the state at /health")
            await answer(send, error.status, json.dumps(error.body()).encode(), b"application/json")

    def _slow_down(self, throttle: Throttle, scope: Scope, path: str) -> None:
        """Raises TooMany: for sign-in attempts, and for API requests without credentials."""
        if path.startswith((_API, "/metrics")):
            if path in _OPEN or not any(name in (b"authorization", b"cookie") for name, _ in scope["headers"]):
                throttle.stranger(scope)
        elif scope["method"] == "POST" and path.startswith(("/sign-in", "/welcome/")):
            throttle.sign_in(scope)


_OPEN: Final = (f"{_API}/openapi.json", f"{_API}/docs")
_PAGE_POSTS: Final = ("/sign-in", "/sign-out", "/welcome/", "/_nicegui")
"""Paths that browsers post to. A sender that mistyped a path gets an error rather than a page."""
_ROBOTS: Final = b"User-agent: *\nDisallow: /\n"
_WAIT_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Touchfold</title>
<body style="font:16px system-ui;margin:4rem auto;max-width:30rem;padding:0 1rem"><h1>Too many attempts</h1>
<p>Wait {wait} seconds, then <a href="/sign-in">try again</a>.</p></body></html>"""


async def _refuse(scope: Scope, send: Send, err: TooMany) -> None:
    """429 in the common error format, or as a page for a browser."""
    again = (b"retry-after", str(err.retry_after_s).encode())
    if any(name == b"accept" and b"text/html" in value for name, value in scope["headers"]):
        page = _WAIT_PAGE.format(wait=err.retry_after_s).encode()
        await answer(send, err.status, page, b"text/html; charset=utf-8", again)
    else:
        await answer(send, err.status, json.dumps(err.body()).encode(), b"application/json", again)


async def _no_door(_scope: Scope, _receive: Receive, send: Send) -> None:
    await _elsewhere(send, "this process serves the API and the pages; touchfold ingest serves the door")


async def _no_api(_scope: Scope, _receive: Receive, send: Send) -> None:
    await _elsewhere(send, "this process is a door; touchfold serve serves the API")


async def _elsewhere(send: Send, message: str) -> None:
    error = NotFound(message)
    await answer(send, error.status, json.dumps(error.body()).encode(), b"application/json")


async def _no_websocket(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})


class StoppableServer(uvicorn.Server):
    """uvicorn without its own signal handlers, and with a callback when it has started."""

    def __init__(
        self,
        config: uvicorn.Config,
        stop: threading.Event,
        ready: Callable[[], None],
        stopping: Callable[[], None] = lambda: None,
        closing: Closing | None = None,
        book: Connections | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._ready = ready
        self._stopping = stopping  # ends long-waiting requests
        self._closing = closing  # after the last request
        self._book = book
        self._certificate = certificate

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._certificate is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            await self._listen(sockets or [], self._certificate)
        self._ready()

    async def _listen(self, sockets: list[socket.socket], certificate: Certificate) -> None:
        """As in uvicorn, which has no option for the handshake timeout; its default is a minute, far too long."""

        def protocol() -> asyncio.Protocol:
            made = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            assert isinstance(made, asyncio.Protocol), "ours"
            return made

        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol,
                sock=each,
                ssl=certificate.context,
                ssl_handshake_timeout=HANDSHAKE_S,
                backlog=self.config.backlog,
            )
            for each in sockets
        ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._book is not None:
            self._book.cut_off_all()
            await asyncio.sleep(0)  # the loop ends them before itself
        if self._closing is not None:
            await self._closing()

    async def on_tick(self, counter: int) -> bool:
        if self._stop.is_set():
            self._stopping()
            return True
        if self._book is not None:
            self._book.look()  # ten times a second
        if self._certificate is not None:
            self._certificate.look()
        return await super().on_tick(counter)


def serve(
    application: ASGIApp,
    stop: threading.Event,
    ready: Callable[[], None],
    listener: socket.socket,
    stopping: Callable[[], None] = lambda: None,
    closing: Closing | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008  # a tuple of constants
    proxies: Proxies | None = None,
    certificate: Certificate | None = None,
) -> None:
    """Serve on a listening socket until `stop`; then call `stopping`, let running requests end, and call `closing`.

    `proxies`: their connections are not counted by address. `certificate`: for TLS; None: plain HTTP.
    """
    shared = (proxies or Proxies()).trusts
    book = Connections(time.monotonic, limits, shared=shared, room=HandleRoom())
    http, websocket = bounded(book)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=http,
        ws=websocket,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # do not believe a request about its own address
        backlog=BACKLOG,
        timeout_keep_alive=int(limits.keep_alive_s),
        timeout_graceful_shutdown=GRACE_S,
    )
    StoppableServer(config, stop, ready, stopping, closing, book, certificate).run(sockets=[listener])


def run(
    session: "Session",
    stop: threading.Event,
    ready: Callable[[], None],
    listener: socket.socket,
    ui_path: str | None = None,
    edges: str = "door,api",
) -> None:
    """The role: assemble the application, serve until `stop`, answer waiting requests and close."""
    from infra.adapters.machine.meter import Meter  # noqa: PLC0415
    from infra.adapters.machine.shared_buckets import SharedBuckets  # noqa: PLC0415
    from infra.drivers.http.api.application import build_api  # noqa: PLC0415  # FastAPI takes 0.5 s to import
    from infra.drivers.http.door import build_door  # noqa: PLC0415
    from infra.drivers.http.metrics import Metrics  # noqa: PLC0415
    from infra.drivers.http.throttle import throttle_of  # noqa: PLC0415

    raise_handle_limit()
    vault_of(session).hold_lease()
    if session.adapters.kafka is not None:
        from infra.app.log import warm_up  # noqa: PLC0415  # of a cluster alone

        warm_up(session)
    meter = Meter(session.data / "meters")
    buckets = SharedBuckets(session.data / "meters" / "rates-1")
    throttle = throttle_of(session, buckets)
    door, api = build_door(session, meter, buckets), build_api(session, throttle)
    services = api.state.api
    metrics = Metrics(services, meter)
    tune_memory()
    try:
        proxies = Proxies(session.settings.proxies)
        ui = None if ui_path is None else UiProxy(ui_path, proxies)
        edge, applied = metrics.timed_door(door), metrics.timed_api(api)
        router = Router(edge, applied, Health(session, edges), metrics.handle, ui, edges, throttle)
        closing = None if ui is None else ui.close
        limits = Limits(most=session.settings.connections)
        tls = certificate_of(session.settings)
        serve(router, stop, ready, listener, services.stop, closing, limits=limits, proxies=proxies, certificate=tls)
    finally:
        door.close()
        services.close()
        buckets.close()
        meter.close()
