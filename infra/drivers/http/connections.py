"""How many connections a process takes, and how long each may take to send a request or to read its answer.

One `Connections` per event loop knows every connection and looks at all of them once a second, which costs a request
nothing. It closes what is too slow; where there are too many it closes the one that has waited longest without being
served. What is counted and refused inside a connection is `infra.drivers.http.protocol`'s.
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

RESERVED_HANDLES: Final = 100  # file descriptors for databases, files and pipes that are opened later
BACKLOG: Final = 65_535  # the kernel takes what net.core.somaxconn allows; whom it drops comes again after 1 s
FEWEST: Final = 8  # connections, however few descriptors there are
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: no waiting for what lies unread
BATCH: Final = 16  # this share of a bound is closed at once, so that looking for the oldest is rare


class Limits(NamedTuple):
    """Of each connection, and of all of a process. Seconds are kept to about `look_s`."""

    header_bytes: int = 32_768
    header_s: float = 10.0  # from the connection, or a later request's first byte, to the end of the header
    request_s: float = 30.0  # to the end of the body
    keep_alive_s: float = 75.0  # longer than the idle pools of SDKs (60 s): the client closes, not we under its request
    answer_s: float = 60.0  # for 64 kB of an answer to be read
    linger_s: float = 2.0  # a refused sender may go on so long, so that it can read why
    ignored_bytes: int = 33_554_432  # of a body whose request was answered already
    bodies_bytes: int = 128_000_000  # of all requests that wait for the rest of them, or for their answer
    most: int = 4_096  # connections
    look_s: float = 1.0

    @property
    def most_of_address(self) -> int:
        """One address leaves half to the others."""
        return max(1, self.most // 2)


class Phase(IntEnum):
    """What a connection waits for."""

    IDLE = 0  # the first byte of a request
    HEAD = 1  # the rest of a header
    BODY = 2  # the rest of a body
    ENDING = 3  # refused: what still comes is thrown away
    SOCKET = 4  # a WebSocket


class Connection(Protocol):
    """A connection as it is judged here."""

    transport: asyncio.Transport
    address: str
    phase: Phase
    since: float  # when the phase began; of HEAD and BODY: when the request did
    served: bool  # had a whole request
    unread_since: float | None  # the answer is not being read since
    held: int  # bytes of bodies that wait for their answer
    flushing_since: float | None  # nothing more will be written, and something is still unread

    @property
    def answering(self) -> bool:
        """Whether a request was handed on and its answer is not complete."""

    @property
    def reading(self) -> bool:
        """False while we ourselves do not read."""

    def refuse(self, err: TouchfoldError) -> None:
        """Answer with an error, and end."""


class Connections:
    """All connections of an event loop. Not safe for threads."""

    def __init__(
        self,
        now: Callable[[], float],
        limits: Limits = Limits(),  # noqa: B008  # a tuple of constants
        *,
        shared: Callable[[str], bool] = lambda _address: False,
        room: Callable[[int], int] = lambda most: most,
    ) -> None:
        """`shared`: whether many people come from an address (a trusted proxy); `room`: connections there can be."""
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
        """Take a new connection. False where there is no room, and none that waits could make it."""
        self.join(connection)
        bound, address = self.limits.most_of_address, connection.address
        if self._of_address[address] > bound and not self._shared(address):
            return self._make_room(bound, connection, address)
        return len(self._all) <= self.limits.most or self._make_room(self.limits.most, connection, None)

    def join(self, connection: Connection) -> None:
        """Take a connection that came by another protocol."""
        self._all.add(connection)
        self._of_address[connection.address] += 1

    def leave(self, connection: Connection) -> None:
        """It ended; more than once does no more."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def _make_room(self, bound: int, but: Connection | None, address: str | None) -> bool:
        """End those that wait longest for nothing: first who never had a request, then idle ones, then bodies."""
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
        """Too much of bodies is held: refuse those that are not whole, the oldest first."""
        halves = sorted((each for each in self._all if each.phase is Phase.BODY and each.held), key=_since)
        for each in halves:
            if self.held <= self.limits.bodies_bytes * 0.9:
                return
            each.refuse(StoreUnavailable("more waits than is taken at once: send again", retry_after_s=1))

    def look(self) -> None:
        """End what is too slow. Called often; looks every `look_s`."""
        now = self.now()
        away = now - self._looked_at
        if away < self.limits.look_s:
            return
        self._looked_at = now
        self.limits = self._given._replace(most=self._room(self._given.most))
        late = away > 3 * self.limits.look_s  # the loop stood still: what was sent in time lies unread, and comes next
        for each in list(self._all):
            self._judge(each, now, late=late)
        while len(self._all) > self.limits.most and self._make_room(self.limits.most, None, None):
            pass  # there is less room than before

    def cut_off_all(self) -> None:
        """At the end of the process: what still did not end."""
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
                each.refuse(RequestTimeout(f"the request did not come within {most_s:.0f} s"))
        elif each.phase is Phase.IDLE:
            each.since = now  # idle from the end of its answer on

    def _judge_idle(self, each: Connection, now: float) -> None:
        """Nothing more is written: what lies unread must be read, and another request must come."""
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
    """End a connection and what lies unread of it: else the kernel keeps megabytes until they are read."""
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
    """Who goes first, where some must go."""
    if connection.phase is Phase.ENDING or (not connection.served and connection.phase <= Phase.HEAD):
        return 0, connection.since
    if connection.phase <= Phase.HEAD:
        return 1, connection.since
    return 2, connection.since


def raise_handle_limit() -> None:
    """As many file descriptors as the account may have; the soft limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class HandleRoom:
    """How many connections the file descriptors allow; what is open when it is made is taken already."""

    def __init__(self) -> None:
        self._taken = len(os.listdir("/proc/self/fd"))

    def __call__(self, most: int) -> int:
        """`most`, or less: the limit of a running process can be lowered."""
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return most
        free = soft - self._taken
        return max(FEWEST, min(most, free - min(RESERVED_HANDLES, free // 2)))
