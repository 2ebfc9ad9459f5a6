"""uvicorn's HTTP and WebSocket protocols with limits on header size, on time, and on overhead bytes.

uvicorn has no option for any of these: `h11_max_incomplete_event_size` belongs to its other parser, `limit_concurrency`
counts idle connections and answers everybody with 503, `timeout_keep_alive` starts with the first response and restarts
with each byte (decision 0015). Times and numbers of connections are up to `infra.drivers.http.connections`.
"""

import json
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from infra.drivers.http.client_address import network_of
from infra.drivers.http.connections import Connections, Phase, cut_off
from schemas.errors import BadRequest, HeaderTooLarge, TooManyConnections, TouchfoldError

PIPELINED: Final = 256  # requests queued behind one being answered: each takes 3 kB here, but only 20 bytes to send
OVERHEAD: Final = 8  # bytes received per byte of chunked body at most: one-byte chunks have 5


class BoundedHttp(HttpToolsProtocol):
    """A connection. `book` is set by `bounded`."""

    book: ClassVar[Connections]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.phase = Phase.IDLE
        self.since = 0.0
        self.served = False
        self.address = ""
        self.unread_since: float | None = None
        self.flushing_since: float | None = None
        self._raw = 0  # bytes of the header being read, then of the body with its chunk framing
        self._fed = 0  # bytes being parsed now
        self._whole = False  # a request ended within them
        self._body = 0  # bytes of the body being read
        self.held = 0  # bytes of unanswered bodies
        self._refusal: TouchfoldError | None = None

    # --- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        self.address = network_of(self.client[0]) if self.client else ""
        if not self.book.enter(self):
            transport.write(_answer(TooManyConnections("too many connections: try again", retry_after_s=1)))
            self.phase = Phase.ENDING
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.book.leave(self)
        self._let_go()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # after an error uvicorn drops it, and all of this with it

    def shutdown(self) -> None:
        if self.phase is Phase.ENDING:
            self.transport.close()  # it has its response; uvicorn would wait for one from the application
        else:
            super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        self.book.leave(self)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread_since = None

    @property
    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def reading(self) -> bool:
        return not self.flow.read_paused

    # --- what comes ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if self.phase is Phase.ENDING:
            self._throw_away(size)
            return
        self._fed, self._whole = size, False
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError:
            self.refuse(self._refusal or BadRequest("this is not an HTTP request"))
            return
        if self.phase is Phase.BODY:
            self._count_body(size)
        elif not self._whole:  # all of it belongs to one incomplete header
            self._raw += size
            if self._raw > self.book.limits.header_bytes:
                self.refuse(self._header_too_large())

    def _count_body(self, size: int) -> None:
        self._raw += size
        if self.cycle is not None and self.cycle.response_complete and self._raw > self.book.limits.ignored_bytes:
            cut_off(self.transport)
        elif self._raw - self._body > self.book.limits.header_bytes + OVERHEAD * self._body:
            self.refuse(BadRequest("the body has more chunk framing than content"))
        elif self.book.held > self.book.limits.bodies_bytes:
            self.book.shed()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase, self.since = Phase.HEAD, self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is Phase.HEAD:  # otherwise a trailer, which nobody reads: the headers are complete already
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._raw + self._fed > self.book.limits.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.book.limits.header_bytes:
                self._refusal = self._header_too_large()
                raise self._refusal
        if len(self.pipeline) >= PIPELINED:
            self._refusal = BadRequest(f"more than {PIPELINED} requests at once on a connection")
            raise self._refusal
        super().on_headers_complete()
        self.phase, self._raw, self._body = Phase.BODY, -self._fed, 0

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._body += size
        if self.answering:
            self.held += size
            self.book.held += size
        super().on_body(body)

    def on_response_complete(self) -> None:
        self._let_go()
        super().on_response_complete()

    def _let_go(self) -> None:
        self.book.held -= self.held
        self.held = 0

    def on_message_complete(self) -> None:
        self.phase, self.since, self.served = Phase.IDLE, self.loop.time(), True
        self._raw, self._whole = 0, True
        super().on_message_complete()

    def _header_too_large(self) -> HeaderTooLarge:
        return HeaderTooLarge(f"the header is larger than {self.book.limits.header_bytes} bytes")

    # --- refusals --------------------------------------------------------------------------------------------------

    def refuse(self, err: TouchfoldError) -> None:
        """Answer with an error if still possible, and close; further input is discarded for a while."""
        before, self.phase, self.since = self.phase, Phase.ENDING, self.loop.time()
        cycle = self.cycle
        if before is Phase.BODY and not self.answering:
            self.transport.close()  # it has its response and keeps sending
            return
        if cycle is not None and self.answering:
            if before is not Phase.BODY or cycle.response_started or self.pipeline:
                cut_off(self.transport)  # an earlier request's response is being sent
                return
            cycle.disconnected = True
            cycle.body.clear()
            cycle.message_event.set()
            self._let_go()
        self.transport.write(_answer(err))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _throw_away(self, size: int) -> None:
        self._raw += size
        if self._raw > self.book.limits.ignored_bytes:
            cut_off(self.transport)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket; pings detect dead clients, and `Connections` those that do not read."""

    book: ClassVar[Connections]
    phase: Phase = Phase.SOCKET
    served = True
    answering = True
    reading = True
    held = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.since = 0.0
        self.address = ""
        self.unread_since: float | None = None
        self.flushing_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        self.address = network_of(self.client[0]) if self.client else ""
        self.book.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.book.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread_since = None

    def refuse(self, err: TouchfoldError) -> None:
        """No error response is possible in the middle of a WebSocket."""
        del err
        cut_off(self.transport)


def bounded(book: Connections) -> tuple[type[BoundedHttp], type[BoundedWebSocket]]:
    """The two protocols, with their connections tracked in `book`."""
    http = type("BoundedHttp", (BoundedHttp,), {"book": book})
    socket = type("BoundedWebSocket", (BoundedWebSocket,), {"book": book})
    return http, socket


def _answer(err: TouchfoldError) -> bytes:
    """A complete response, sent without calling the application."""
    body = json.dumps(err.body()).encode()
    again = b"" if err.retry_after_s is None else b"retry-after: %d\r\n" % err.retry_after_s
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    return STATUS_LINE[err.status] + head + again + b"\r\n" + body
