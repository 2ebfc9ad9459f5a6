"""How many connections a process accepts, and how long each may take to send a request or read its response.

One `Connections` per event loop tracks every connection and checks all of them once a second, at no cost per request.
It closes those that are too slow; when there are too many, it closes the one that has been idle longest.
`infra.drivers.http.protocol` handles the limits within a connection.
"""

import asyncio
import os
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from schemas.errors import RequestTimeout, StoreUnavailable, TouchfoldError

RESERVED_HANDLES: Final = 100  # file descriptors reserved for databases, files and pipes opened later
BACKLOG: Final = 65_535  # the kernel caps it at net.core.somaxconn; a dropped client retries after 1 s
FEWEST: Final = 8  # connections at least, however few descriptors there are
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # for SO_LINGER: do not wait for unread data
BATCH: Final = 16  # share of the bound closed in one go, so that searching for the oldest is rare


class Limits(NamedTuple):
    """Limits per connection and per process. Times are accurate to about `look_s`."""

    header_bytes: int = 32_768
    header_s: float = 10.0  # from connecting, or a later request's first byte, to the end of the header
    request_s: float = 30.0  # to the end of the body
    keep_alive_s: float = 75.0  # longer than SDKs keep idle connections (60 s), so that the client closes first
    answer_s: float = 60.0  # for the client to read 64 kB of a response
    linger_s: float = 2.0  # how long a refused sender may keep sending, so that it can read why
    ignored_bytes: int = 33_554_432  # of a body whose request has been answered already
    bodies_bytes: int = 128_000_000  # of all requests that are incomplete or not yet answered
    most: int = 4_096  # connections
    look_s: float = 1.0

    @property
    def most_of_address(self) -> int:
        """One address may use at most half."""
        return max(1, self.most // 2)


class Phase(IntEnum):
    """What a connection is waiting for."""

    IDLE = 0  # the first byte of a request
    HEAD = 1  # the rest of a header
    BODY = 2  # the rest of a body
    ENDING = 3  # refused: further input is discarded
    SOCKET = 4  # a WebSocket


class Connection(Protocol):
    """A connection, as far as these limits need to know it."""

    transport: asyncio.Transport
    address: str
    phase: Phase
    since: float  # when the phase began; of HEAD and BODY: when the request did
    served: bool  # has had a complete request
    unread_since: float | None  # since when the client has not been reading the response
    held: int  # bytes of unanswered bodies
    flushing_since: float | None  # nothing more will be written, but input is still unread

    @property
    def answering(self) -> bool:
        """Whether a request has been passed on and its response is not complete."""

    @property
    def reading(self) -> bool:
        """False while we have paused reading."""

    def refuse(self, err: TouchfoldError) -> None:
        """Answer with an error and close."""


class Connections:
    """All connections of an event loop. Not thread-safe."""

    def __init__(
        self,
        now: Callable[[], float],
        limits: Limits = Limits(),  # noqa: B008  # a tuple of constants
        *,
        shared: Callable[[str], bool] = lambda _address: False,
        room: Callable[[int], int] = lambda most: most,
    ) -> None:
        """`shared`: whether an address stands for many people (a trusted proxy); `room`: most connections possible."""
        self.now = now
        self._given = limits
        self._shared = shared
        self._room = room
        self._all: set[Connection] = set()
        self._of_address: Counter[str] = Counter()
        self.held = 0  # bytes of bodies, by the connections themselves
        self._looked_at = now()
        self.limits = limits._replace(most=room(limits.most))

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, connection: Connection) -> bool:
        """Accept a new connection. False if there is no room and no idle connection can be closed to make some."""
        self.join(connection)
        bound, address = self.limits.most_of_address, connection.address
        if self._of_address[address] > bound and not self._shared(address):
            return self._make_room(bound, connection, address)
        return len(self._all) <= self.limits.most or self._make_room(self.limits.most, connection, None)

    def join(self, connection: Connection) -> None:
        """Take over a connection from another protocol."""
        self._all.add(connection)
        self._of_address[connection.address] += 1

    def leave(self, connection: Connection) -> None:
        """The connection has ended. Idempotent."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def _make_room(self, bound: int, but: Connection | None, address: str | None) -> bool:
        """Close those idle longest: first those that never sent a request, then idle ones, then unfinished bodies."""
        waiting = [
            each
            for each in self._all
            if each is not but and (address is None or each.address == address) and _waits(each)
        ]
        waiting.sort(key=_worth)
        for each in waiting[: max(1, bound // BATCH)]:
            self.leave(each)
            cut_off(each.transport)
        return bool(waiting)

    def shed(self) -> None:
        """Too many bytes of bodies are held: refuse incomplete ones, oldest first."""
        halves = sorted((each for each in self._all if each.phase is Phase.BODY and each.held), key=_since)
        for each in halves:
            if self.held <= self.limits.bodies_bytes * 0.9:
                return
            each.refuse(StoreUnavailable("too many requests are waiting: send again", retry_after_s=1))

    def look(self) -> None:
        """Close what is too slow. Called often; checks every `look_s`."""
        now = self.now()
        away = now - self._looked_at
        if away < self.limits.look_s:
            return
        self._looked_at = now
        self.limits = self._given._replace(most=self._room(self._given.most))
        late = (
            away > 3 * self.limits.look_s
        )  # the loop was blocked: what was sent in time is still unread, and is read next
        for each in list(self._all):
            self._judge(each, now, late=late)
        while len(self._all) > self.limits.most and self._make_room(self.limits.most, None, None):
            pass  # there is less room than before

    def cut_off_all(self) -> None:
        """At the end of the process: close whatever is left."""
        for each in list(self._all):
            cut_off(each.transport)

    def _judge(self, each: Connection, now: float, *, late: bool) -> None:
        limits = self.limits
        unread = each.unread_since is not None and now - each.unread_since > limits.answer_s
        if unread or (each.phase is Phase.ENDING and now - each.since > limits.linger_s):
            cut_off(each.transport)
        elif each.transport.is_closing() or (each.phase is Phase.IDLE and not each.answering):
            self._judge_idle(each, now)
        elif each.phase in (Phase.HEAD, Phase.BODY):
            if not each.reading:
                each.since = now
                return
            most_s = limits.header_s if each.phase is Phase.HEAD else limits.request_s
            if not late and now - each.since > most_s:
                each.refuse(RequestTimeout(f"the request did not arrive within {most_s:.0f} s"))
        elif each.phase is Phase.IDLE:
            each.since = now  # idle from the end of its response

    def _judge_idle(self, each: Connection, now: float) -> None:
        """Nothing more is being written: unread input must be read, and the next request must arrive."""
        limits = self.limits
        if each.transport.get_write_buffer_size():
            if each.flushing_since is None:
                each.flushing_since = now
            if now - each.flushing_since > limits.answer_s:
                cut_off(each.transport)
            return
        each.flushing_since = None
        if now - each.since > (limits.keep_alive_s if each.served else limits.header_s):
            each.transport.close()


def cut_off(transport: asyncio.Transport) -> None:
    """Close a connection and drop its unread output; otherwise the kernel keeps megabytes of it until it is read."""
    with suppress(OSError):  # it is gone
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def _since(connection: Connection) -> float:
    return connection.since


def _waits(connection: Connection) -> bool:
    if connection.phase is Phase.SOCKET:
        return False
    return connection.unread_since is not None or not connection.answering or connection.phase is Phase.BODY


def _worth(connection: Connection) -> tuple[int, float]:
    """The order in which connections are closed to make room."""
    if connection.phase is Phase.ENDING or (not connection.served and connection.phase <= Phase.HEAD):
        return 0, connection.since
    if connection.phase <= Phase.HEAD:
        return 1, connection.since
    return 2, connection.since


def raise_handle_limit() -> None:
    """Raise the limit on file descriptors to the account's hard limit; the soft limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class HandleRoom:
    """How many connections the file descriptors allow, beyond those already open when this is created."""

    def __init__(self) -> None:
        self._taken = len(os.listdir("/proc/self/fd"))

    def __call__(self, most: int) -> int:
        """`most`, or less if the process's limit has been lowered meanwhile."""
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return most
        free = soft - self._taken
        return max(FEWEST, min(most, free - min(RESERVED_HANDLES, free // 2)))
