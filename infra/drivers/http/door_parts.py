"""Parts of the door: its limits, waiting requests, and the queue of each of its threads."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

from ingest.accept.calls import Accepted
from ingest.requests.routes import HttpRequest, Job, Reply
from schemas.errors import BadRequest, StoreUnavailable, TouchfoldError

Take = Callable[[str, float, float, float], float]
"""(bucket, its rate, its size, amount) -> seconds to wait; 0.0: the amount was taken."""


class Limits(NamedTuple):
    """Back-pressure. The queue is bounded, and so is memory: about 6 times `waiting_bytes` at worst."""

    waiting_bytes: int = 32_000_000
    waiting_requests: int = 2_000
    group_events: int = 5_000  # per commit; from 100 rows on, COPY costs 10 µs a row
    group_bytes: int = 4_000_000  # of bodies accepted together
    deadline_s: float = 10.0  # from the complete body to the answer
    body_s: float = 20.0  # for the complete body to arrive


class Counters(NamedTuple):
    """Since the start, for /metrics."""

    requests: int
    accepted: int
    dead_letters: int
    suppressed: int
    refused: int  # requests answered 4xx
    unavailable: int  # requests answered 503


class Busy(StoreUnavailable):
    """Too many requests are waiting already."""

    code = "busy"


class TooSlow(BadRequest):
    """The body did not arrive in time."""

    code = "body_too_slow"
    status = 408


class InternalError(TouchfoldError):
    """An internal error, logged with its traceback; the sender may try again."""

    code = "internal"
    status = 500


@dataclass(slots=True)
class Waiting:
    """A request between its body and its answer."""

    request: HttpRequest | None  # None once decoded: the body is not kept
    origin: str | None
    future: "asyncio.Future[Reply]"
    loop: asyncio.AbstractEventLoop
    size: int
    job: Job | None = None
    accepted: Accepted | None = None
    reply: Reply | None = None


class Queue:
    """The queue of one thread, which takes everything in one go. SimpleQueue costs a tenth of a Condition."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Waiting | None] = SimpleQueue()  # None: closed
        self._closed = False

    def put(self, *items: Waiting) -> None:
        for item in items:
            self._items.put(item)

    def take(self) -> list[Waiting] | None:
        """Everything waiting, or None once closed and empty."""
        taken: list[Waiting] = []
        while True:
            try:
                item = self._items.get(block=not taken and not self._closed)
            except Empty:
                return taken or None
            if item is None:
                self._closed = True
            else:
                taken.append(item)

    def close(self) -> None:
        self._items.put(None)


def run(work: Callable[[list[Waiting]], None], queue: Queue) -> None:
    while (taken := queue.take()) is not None:
        work(taken)
