"""The probe port of a role: GET /live, /ready and /metrics. Answers from memory, so no outage makes it wait.

Every response closes its connection. A client has SEND_S for a request of at most MOST_BYTES; beyond MOST connections
the one waiting longest is closed, so slow or endless senders only harm each other.
"""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

SEND_S: Final = 5.0  # for a complete request, and for a complete response to be read
MOST: Final = 64
MOST_BYTES: Final = 8_192
START_S: Final = 10.0
_log = logging.getLogger("touchfold.probes")


class Reply(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"


Pages = Mapping[str, Callable[[], Reply]]


def json_reply(good: bool, body: Mapping[str, object]) -> Reply:
    """200 if `good`, otherwise 503."""
    return Reply(200 if good else 503, json.dumps(body).encode())


class ProbeServer:
    """Its own thread with one event loop. `pages`: by path, a function that answers immediately from memory."""

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        self._listener = listener
        self._pages = pages
        self._open: dict[asyncio.Task[None], None] = {}  # the one that waits longest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait(START_S)

    def close(self) -> None:
        """Idempotent; responses in progress are cut off."""
        if self._loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(START_S)
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accepted, sock=self._listener, limit=MOST_BYTES)
        self._started.set()
        async with server:
            await self._stop.wait()
        for task in list(self._open):
            task.cancel()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is served in a task"
        if len(self._open) >= MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(SEND_S):
                await self._answer(reader, writer)
        except (TimeoutError, OSError, asyncio.CancelledError):
            writer.transport.abort()  # it was too slow, went away, or had to make room
        finally:
            self._open.pop(task, None)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            reply, method = _refused(431), b"GET"
        else:
            method, _, rest = head.partition(b" ")
            reply = self._reply(method, rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1"))
        lines = (
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\ncontent-type: {reply.content_type}\r\n"
            f"content-length: {len(reply.body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        writer.write(lines.encode() + (b"" if method == b"HEAD" else reply.body))
        await writer.drain()

    def _reply(self, method: bytes, path: str) -> Reply:
        if method not in {b"GET", b"HEAD"}:
            return _refused(405)
        page = self._pages.get(path)
        if page is None:
            return _refused(404)
        try:
            return page()
        except Exception:
            _log.exception("the probe %s failed", path)
            return _refused(500)


def _refused(status: int) -> Reply:
    return Reply(status, json.dumps({"error": HTTPStatus(status).phrase}).encode())
