"""The door over HTTP: raw ASGI in front, two threads behind it, one commit for all waiting requests.

The event loop reads bodies and answers. The accept thread decodes, queries the vault once for all waiting requests and
seals. The commit thread writes everything that is ready with one COPY. A 200 is sent only after that commit; if the
commit fails, every request of the group gets a 503.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, MutableSequence, Sequence
from datetime import datetime
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Final

from starlette.types import Receive, Scope, Send

from infra.app.log import log_of
from infra.drivers.http.browser_edge import BrowserEdge
from infra.drivers.http.browser_files import FOLDER, BrowserFiles
from infra.drivers.http.door_parts import (
    Busy,
    Counters,
    InternalError,
    Limits,
    Queue,
    Take,
    TooSlow,
    Waiting,
    run,
)
from ingest.accept.accept import Acceptor
from ingest.accept.canonical import MAX_BODY_BYTES
from ingest.requests.bodies import call_of
from ingest.requests.browser import open_page, page_of
from ingest.requests.routes import HttpRequest, Reply, answer, error_reply, nothing_here, open_request, preflight
from schemas.dead_letters import DeadLetter, DeadLetterStore
from schemas.errors import KeyMissing, StoreUnavailable, TooLarge, TooMany, TouchfoldError
from schemas.failpoints import failpoint
from schemas.placeholders import Blocked
from schemas.ports import EventLog
from schemas.record import FLAGS, Pending
from schemas.sources import Source, Sources

if TYPE_CHECKING:
    from infra.adapters.machine.meter import Meter
    from infra.adapters.machine.shared_buckets import SharedBuckets
    from infra.app.session import Session


_READ: Final = {
    name.encode(): name
    for name in (
        *("access-control-request-headers", "authorization", "content-encoding", "content-length", "origin"),
        *("sentat", "x-write-key"),
    )
}
"""The request headers that are used."""
_log = logging.getLogger("touchfold.door")


class Door:
    """An ASGI application. `check_disk` raises DiskFull and must be cheap: it is called for each request.

    `counts`: where `Counters` are kept, possibly in shared memory; `refused` is called with the status of each refusal.
    `take` enforces the rates of sources, like `SharedBuckets.take`. `files`: the script for browsers.

    `log` and `letters` are used only by the commit thread, `acceptor` and `sources` only by the accept thread. The
    threads start with the first request and end with `close`.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        sources: Sources,
        log: EventLog,
        letters: DeadLetterStore,
        now: Callable[[], datetime],
        *,
        check_disk: Callable[[], None] = lambda: None,
        limits: Limits = Limits(),  # noqa: B008  # a tuple of constants
        counts: MutableSequence[int] | None = None,
        refused: Callable[[int], None] = lambda _status: None,
        take: Take = lambda _name, _rate, _burst, _cost: 0.0,
        files: BrowserFiles | None = None,
    ) -> None:
        self._acceptor = acceptor
        self._sources = sources
        self._log = log
        self._letters = letters
        self._now = now
        self._check_disk = check_disk
        self._limits = limits
        self._take = take
        self._to_accept = Queue()
        self._to_commit = Queue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._waiting_bytes = 0
        self._waiting_requests = 0
        self._counts = [0] * (len(Counters._fields) + len(FLAGS)) if counts is None else counts
        self._refused = refused
        self._browser = BrowserEdge(files or BrowserFiles(), self._count)

    @property
    def counters(self) -> Counters:
        return Counters(*self._counts[: len(Counters._fields)])

    def close(self) -> None:
        """Answer the waiting requests and end the threads."""
        self._to_accept.close()
        for thread in self._threads:
            thread.join(self._limits.deadline_s)
            self._to_commit.close()
        self._threads.clear()

    # ---------------------------------------------------------------- in the event loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {_READ[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _READ}
        method: str = scope["method"]
        if method == "OPTIONS":
            await _send(send, preflight(headers))
            return
        origin = headers.get("origin")
        try:
            if method == "POST":
                reply = await self._handle(scope, headers, receive)
            else:
                reply = await self._browser.answer(scope, self._submit_page)
        except TouchfoldError as err:
            reply = error_reply(err, origin)
            self._count(reply.status)
        except _Gone:
            return
        await _send(send, reply)

    async def _submit_page(self, request: HttpRequest) -> Reply:
        self._check_room(len(request.body))
        if request.method == "POST":  # a pixel
            self._check_disk()
        return await self._submit(request)

    async def _handle(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Reply:
        path: str = scope["path"]
        if call_of(path) is None:
            raise nothing_here("POST")
        length = headers.get("content-length", "")
        self._check_room(int(length) if length.isdecimal() else 0)
        self._check_disk()
        body = await self._body(receive)
        self._check_room(len(body))
        return await self._submit(HttpRequest("POST", path, scope["query_string"].decode("latin-1"), headers, body))

    def _check_room(self, size: int) -> None:
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
        limits = self._limits
        if self._waiting_requests >= limits.waiting_requests or self._waiting_bytes + size > limits.waiting_bytes:
            raise Busy("too many requests are waiting: send again", retry_after_s=1)

    async def _body(self, receive: Receive) -> bytes:
        """The complete body, within the time limit. Bytes received so far count as waiting, to bound slow senders."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    part: bytes = message.get("body", b"")
                    if not message.get("more_body", False) and not parts:
                        return part
                    parts.append(part)
                    size += len(part)
                    self._waiting_bytes += len(part)
                    if size > MAX_BODY_BYTES:
                        raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
                    self._check_room(0)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as err:
            raise TooSlow(f"the body did not arrive within {self._limits.body_s:.0f} s") from err
        finally:
            self._waiting_bytes -= size

    async def _submit(self, request: HttpRequest) -> Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        size = len(request.body)
        self._waiting_bytes += size
        self._waiting_requests += 1
        self._start()
        origin = request.headers.get("origin")
        self._to_accept.put(Waiting(request, origin, future, loop, size))
        timer = loop.call_later(self._limits.deadline_s, self._expire, future, origin)
        try:
            return await future
        finally:
            timer.cancel()

    def _expire(self, future: "asyncio.Future[Reply]", origin: str | None) -> None:
        """Too late: the sender may send again. What is still stored after this is stored twice but counts once."""
        if not future.done():
            self._count(503)
            late = StoreUnavailable(f"not stored within {self._limits.deadline_s:.0f} s: send again", retry_after_s=2)
            future.set_result(error_reply(late, origin))

    def _count(self, status: int) -> None:
        """Answer a request, in the loop. One that timed out has already been answered by `_expire`."""
        self._counts[0] += 1
        if status >= 400:
            self._counts[5 if status == 503 else 4] += 1
            self._refused(status)

    def _deliver(self, group: Sequence[Waiting]) -> None:
        """In the loop: deliver the replies of a group, with one wake-up for all of them."""
        for waiting in group:
            self._waiting_bytes -= waiting.size
            self._waiting_requests -= 1
            reply = waiting.reply
            assert reply is not None, "an answered request has its reply"
            if not waiting.future.done():
                self._count(reply.status)
                waiting.future.set_result(reply)

    # ---------------------------------------------------------------- threads

    def _start(self) -> None:
        if self._threads:
            return
        with self._starting:
            if not self._threads:
                work = ((self._accept_group, self._to_accept), (self._commit_group, self._to_commit))
                self._threads = [
                    threading.Thread(target=run, args=each, name=f"door {each[0].__name__}", daemon=True)
                    for each in work
                ]
                for thread in self._threads:
                    thread.start()

    def _accept_group(self, waiting: list[Waiting]) -> None:
        """Process the waiting requests, in groups of about `group_bytes`."""
        part: list[Waiting] = []
        size = 0
        for each in waiting:
            part.append(each)
            size += each.size
            if size >= self._limits.group_bytes:
                self._accept(part)
                part, size = [], 0
        if part:
            self._accept(part)

    def _accept(self, group: list[Waiting]) -> None:
        received_at = self._now()
        jobs: list[Waiting] = []
        for waiting in group:
            self._guard([waiting], partial(self._open, waiting, received_at))
            if waiting.job is not None:
                jobs.append(waiting)
        if jobs and not self._guard(jobs, partial(self._accept_all, jobs), again=len(jobs) > 1):
            for waiting in jobs:  # one of them makes acceptance fail: find it, and accept the others
                if waiting.reply is None:
                    self._guard([waiting], partial(self._accept_all, [waiting]))
        self._to_commit.put(*group)

    def _open(self, waiting: Waiting, received_at: datetime) -> None:
        request = waiting.request
        assert request is not None, "a request is opened once"
        page = None if request.method == "POST" else page_of(request.path)
        opened = (
            open_request(request, self._sources, received_at)
            if page is None
            else open_page(request, page, self._sources)
        )
        waiting.request = None
        if isinstance(opened, Reply):
            waiting.reply = opened
        else:
            self._check_rate(opened.source, len(opened.call.items))
            waiting.job = opened

    def _check_rate(self, source: Source, events: int) -> None:
        """Raises TooMany. A request larger than the bucket passes if the bucket is full."""
        if source.events_per_s is None:
            return
        wait_s = self._take(f"source {source.name}", source.events_per_s, source.bucket, events)
        if wait_s:
            said = f"more than the {source.events_per_s:g} events a second this source may send"
            raise TooMany(said, retry_after_s=ceil(wait_s))

    def _accept_all(self, jobs: list[Waiting]) -> None:
        calls = [waiting.job.call for waiting in jobs if waiting.job is not None]
        for waiting, accepted in zip(jobs, self._acceptor.accept_many(calls), strict=True):
            waiting.accepted = accepted

    def _commit_group(self, waiting: list[Waiting]) -> None:
        """Commit what is waiting, in groups of about `group_events`."""
        part: list[Waiting] = []
        events = 0
        for each in waiting:
            part.append(each)
            events += 0 if each.accepted is None else len(each.accepted.pending)
            if events >= self._limits.group_events:
                self._commit(part)
                part, events = [], 0
        if part:
            self._commit(part)

    def _commit(self, group: list[Waiting]) -> None:
        ready = [waiting for waiting in group if waiting.accepted is not None and waiting.reply is None]
        if ready:
            self._guard(ready, partial(self._store, ready))
        by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        for waiting in group:
            by_loop.setdefault(waiting.loop, []).append(waiting)
        for loop, own in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._deliver, own)
            except RuntimeError:  # the loop is closed: nobody is waiting for these answers any more
                _log.info("the server stopped before sending %d answers; their events are stored", len(own))

    def _store(self, ready: list[Waiting]) -> None:
        pending: list[Pending] = []
        dead: list[DeadLetter] = []
        suppressed: list[bytes] = []
        flagged: list[str] = []
        blocked: list[Blocked] = []
        for waiting in ready:
            assert waiting.accepted is not None, "only accepted requests are stored"
            pending += waiting.accepted.pending
            dead += waiting.accepted.dead
            suppressed += waiting.accepted.suppressed
            flagged += waiting.accepted.flagged
            blocked += waiting.accepted.blocked
        failpoint("door.before_append")
        self._check_disk()  # check again: up to 32 MB may have queued meanwhile
        if dead or suppressed:  # first: if the append fails, the retry finds them there and adds none
            self._letters.insert(dead, suppressed, self._now())
        if pending:
            self._log.append(pending)
        failpoint("door.after_append")
        if blocked:
            self._letters.count_blocked(blocked, self._now())
        self._counts[1] += len(pending)
        self._counts[2] += len(dead)
        self._counts[3] += len(suppressed)
        for flag in flagged:
            self._counts[len(Counters._fields) + FLAGS.index(flag)] += 1
        for waiting in ready:
            assert waiting.job is not None, "an accepted result belongs to a job"
            assert waiting.accepted is not None, "only accepted requests are stored"
            waiting.reply = answer(waiting.job, waiting.accepted)

    def _guard(self, group: list[Waiting], work: Callable[[], None], *, again: bool = False) -> bool:
        """Run a step; its error becomes the reply to each of the group. False: it failed and may be tried `again`."""
        try:
            work()
            return True
        except TouchfoldError as err:
            failed: TouchfoldError = err
            if isinstance(err, KeyMissing):  # erased between look-up and sealing: the retry finds it gone
                failed = StoreUnavailable("an identifier was just erased: send again", retry_after_s=1)
        except Exception:
            _log.exception("the door failed on a request")
            if again:
                return False
            failed = InternalError("internal error; see the log", retry_after_s=5)
        for waiting in group:
            waiting.reply = error_reply(failed, waiting.origin)
        return True


class _Gone(Exception):  # the sender left before its body was complete: nobody to answer
    pass


async def _send(send: Send, reply: Reply) -> None:
    length = (b"content-length", b"%d" % len(reply.body))
    headers = reply.headers if reply.status in (204, 304) else (*reply.headers, length)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def build_door(session: "Session", meter: "Meter", buckets: "SharedBuckets") -> Door:
    """The door for a session's vault, log and databases. Holds the vault's lease from now on."""
    from infra.adapters.machine.meter import EDGES  # noqa: PLC0415
    from infra.adapters.postgres.dead_letters import PostgresDeadLetters  # noqa: PLC0415
    from infra.adapters.postgres.sources import PostgresSources  # noqa: PLC0415
    from infra.app.accepting import acceptor_of  # noqa: PLC0415  # phonenumbers takes 0.1 s to import

    return Door(
        acceptor_of(session),
        PostgresSources(session.dsn, unknown=session.unknown_clear),
        log_of(session),
        PostgresDeadLetters(session.dsn),
        session.door_clock.now,
        check_disk=session.disk.check,
        counts=meter.door,
        refused=partial(meter.refuse, EDGES.index("door")),
        take=buckets.take,
        files=BrowserFiles(session.settings.analytics_js or FOLDER),
    )
