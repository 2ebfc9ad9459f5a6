"""Forwards requests for pages to the UI process: HTTP and WebSocket over its Unix socket. No logic of its own.

So a slow page never blocks the door, and any number of door processes can serve the same UI.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Receive, Scope, Send

from infra.drivers.http.asgi import answer
from infra.drivers.http.client_address import Proxies

if TYPE_CHECKING:
    import httpx


TIMEOUT_S: Final = 60.0
CONNECT_S: Final = 10.0  # the supervisor is listening, so a connection waits while the UI restarts
CONNECTIONS: Final = 200
KEPT_S: Final = 30.0  # for an idle connection; the UI keeps it longer (`UI_KEEPS_S`), so that we close it first
UI_KEEPS_S: Final = 75
MAX_BODY: Final = 1 << 20  # bytes of a request
MAX_MESSAGE: Final = 1 << 20  # of a WebSocket; NiceGUI's own are a few kB
_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailers",
     b"transfer-encoding", b"upgrade", b"expect", b"x-forwarded-for"}
)  # fmt: skip
_HANDSHAKE: Final = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol"}
)
_AWAY: Final = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    b"<title>Touchfold</title><body style='font:16px system-ui;margin:4rem auto;max-width:30rem;padding:0 1rem'>"
    b"<h1>The pages are starting</h1><p>This page reloads by itself. Events and the API are not affected."
    b"</p></body></html>"
)
_log = logging.getLogger("touchfold.ui")

_SECURITY: Final = ((b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"))


class UiProxy:
    """An ASGI application in front of the UI's socket at `path`."""

    def __init__(self, path: str, proxies: Proxies | None = None) -> None:
        """`proxies`: whom to trust about the client's address."""
        self._path = path
        self._proxies = proxies or Proxies()
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def close(self) -> None:
        """Close the kept connections; in the event loop of the requests."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        import httpx  # noqa: PLC0415  # 40 ms that a door without pages need not pay

        # A transport, not a client: a client would send one visitor's cookies with the next visitor's requests, add
        # its own headers and follow redirects.
        if self._transport is None:
            limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=KEPT_S)
            self._transport = httpx.AsyncHTTPTransport(uds=self._path, limits=limits)
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        try:
            body = await _body(receive) if has_body else None
        except _TooLarge:
            await answer(send, 413, b"Too large", b"text/plain", *_SECURITY, (b"connection", b"close"))
            return
        except _Gone:
            return
        request = httpx.Request(
            scope["method"],
            f"http://ui{_target(scope)}",
            headers=_forwarded(scope, self._proxies),
            content=body,
            extensions={"timeout": httpx.Timeout(TIMEOUT_S, connect=CONNECT_S).as_dict()},
        )
        try:
            found = await self._ask(request, again=not has_body)
        except httpx.HTTPError as err:
            _log.warning("the UI does not answer: %s", type(err).__name__)
            await answer(send, 503, _AWAY, b"text/html; charset=utf-8", *_SECURITY, (b"retry-after", b"2"))
            return
        try:
            kept = [(name.lower(), value) for name, value in found.headers.raw if name.lower() not in _HOP]
            await send({"type": "http.response.start", "status": found.status_code, "headers": kept})
            # If the UI goes away midway this raises, and the client sees an incomplete response.
            async for part in found.stream:  # type: ignore[union-attr]  # of an async transport
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as err:
            raise ConnectionAbortedError("the UI went away in the middle of a response") from err
        finally:
            await found.aclose()

    async def _ask(self, request: "httpx.Request", *, again: bool) -> "httpx.Response":
        """Retries once if the UI has just closed a kept connection. Raises httpx.HTTPError, _TooLarge."""
        import httpx  # noqa: PLC0415

        assert self._transport is not None, "created with the first request"
        try:
            return await self._transport.handle_async_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if not again:
                raise
            return await self._transport.handle_async_request(request)

    # --- WebSocket ---------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        from websockets.asyncio.client import unix_connect  # noqa: PLC0415
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        await receive()  # websocket.connect
        headers = [
            (n.decode("latin-1"), v.decode("latin-1"))
            for n, v in _forwarded(scope, self._proxies)
            if n not in _HANDSHAKE
        ]
        host = next((value for name, value in headers if name == "host"), "ui")
        headers = [(name, value) for name, value in headers if name not in ("host", "user-agent")]
        try:
            upstream = await unix_connect(
                self._path,
                f"ws://{host}{_target(scope)}",
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                max_size=MAX_MESSAGE,
                open_timeout=CONNECT_S,
                ping_interval=None,  # socket.io has its own
            )
        except (OSError, TimeoutError, WebSocketException, ValueError) as err:  # ValueError: not an address
            _log.info("no WebSocket to the UI: %s", type(err).__name__)
            await send({"type": "websocket.close", "code": 1013})
            return
        async with upstream:
            await send({"type": "websocket.accept", "headers": []})
            down = asyncio.create_task(_down(upstream, send))
            up = asyncio.create_task(_up(upstream, receive))
            done, waiting = await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            ends = await asyncio.gather(down, up, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception) and not isinstance(end, OSError):  # OSError: the client is gone
                    _log.error("a WebSocket failed: %s", type(end).__name__)
            if down in done:
                with suppress(RuntimeError, OSError):  # the client was first
                    await send({"type": "websocket.close", "code": 1001})


async def _down(upstream: Any, send: Send) -> None:
    """A slow browser blocks `send`, which blocks reading here, which blocks the UI's writing: nothing piles up."""
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    with suppress(ConnectionClosed):
        async for message in upstream:
            key = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", key: message})


async def _up(upstream: Any, receive: Receive) -> None:
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    with suppress(ConnectionClosed):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            await upstream.send(text if text is not None else message["bytes"])


def _forwarded(scope: Scope, proxies: Proxies) -> list[tuple[bytes, bytes]]:
    """The request's headers without hop-by-hop ones, and with the client's address and scheme for the UI."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    named = {each.strip() for name, value in headers if name == b"connection" for each in value.lower().split(b",")}
    kept = [(name, value) for name, value in headers if name not in _HOP and name not in named]
    if scope.get("scheme") in {"https", "wss"}:  # our own TLS, or what a proxy in front of us says
        kept = [(name, value) for name, value in kept if name != b"x-forwarded-proto"]
        kept.append((b"x-forwarded-proto", b"https"))
    client = proxies.client(scope)
    if client:
        kept.append((b"x-forwarded-for", client.encode("latin-1")))
    return kept


def _target(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (raw.split(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")


class _TooLarge(Exception):
    """The body exceeds MAX_BODY."""


class _Gone(Exception):
    """The client left before its body was complete."""


async def _body(receive: Receive) -> bytes:
    """The complete body, read before contacting the UI, so that a slow sender holds none of its connections.

    Raises _TooLarge, _Gone. Forms on the pages are small, and there are no uploads.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _TooLarge
        if not message.get("more_body"):
            return b"".join(parts)
