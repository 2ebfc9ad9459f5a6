"""The base of every part of the API: its services, and the caller with their rights."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, Query, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from infra.adapters.postgres.audit import PostgresAudit, durable
from infra.adapters.postgres.database import DataError
from infra.adapters.postgres.people import PostgresPeople
from infra.adapters.postgres.tokens import PostgresTokens
from infra.app.log_lines import described
from infra.app.reading import Reading
from infra.drivers.http.revocation import Standing, Watched
from infra.drivers.http.session_cookie import COOKIE, CSRF_HEADER, from_our_pages
from infra.drivers.sql.queue import SLOTS, SqlQueue
from schemas.errors import BadRequest, Forbidden, SqlRefused, TouchfoldError, Unauthorized
from schemas.roles import PERSONAL, RIGHTS, may

if TYPE_CHECKING:
    from infra.adapters.postgres.operations import Operations
    from infra.adapters.postgres.sources import PostgresSources
    from infra.app.retrying import Retrying
    from infra.app.session import Session
    from infra.app.staff_events import Acting
    from infra.drivers.http.health import Health
    from infra.drivers.http.throttle import Throttle
    from query.reports.overview import Reports
    from query.segments.exports import Exports

log = logging.getLogger("touchfold.api")

T = TypeVar("T")
PREFIX: Final = "/api/v1"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
THREADS: Final = 6  # for reads: a profile takes about a millisecond, so two threads keep two cores busy
SLOW_THREADS: Final = 2  # exports and checks take seconds; they must not keep a profile waiting
KNOWN_S: Final = 1.0  # how long a revoked token or the cookie of an ended session may still work
KNOWN: Final = 1_000

RunSql = Callable[[str, int], Mapping[str, Any]]
"""(statement, most rows) -> {"columns", "rows", "truncated"}; raises SqlRefused, SqlLimit."""


@dataclass(frozen=True)
class Caller:
    """Who is calling. `name`: a user's name, or `token:ID`; `secret`: the token or cookie they sent."""

    name: str
    role: str
    secret: str
    by_cookie: bool

    def may(self, right: str) -> bool:
        return may(self.role, right)


class Later(Generic[T]):
    """Something created on first use, by one thread only, because it opens connections or takes memory."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self.made: T | None = None

    def get(self) -> T:
        with self._lock:
            if self.made is None:
                self.made = self._make()
            return self.made


@dataclass
class Api:
    """What the routes call; `close` ends its threads and connections."""

    session: "Session"
    reading: Reading
    run_sql: RunSql
    tokens: PostgresTokens
    people: PostgresPeople
    audit: PostgresAudit
    sources: "PostgresSources"
    operations: "Operations"
    reports: "Reports"
    acting: "Later[Acting]"
    retrying: "Later[Retrying]"
    exports: "Later[Exports]"
    health: "Later[Health]"
    throttle: "Throttle | None" = None  # None: no rate limit
    _known: dict[tuple[bool, str], tuple[str, str, float]] = field(default_factory=dict)  # -> (name, role, until)
    _reads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "api"))
    _slow: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SLOW_THREADS, "api slow"))
    _sql: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SLOTS, "api sql"))
    _erasing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "api erasing"))
    sql_queue: SqlQueue = field(default_factory=SqlQueue)
    _waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)
    stopping: bool = False
    _standing: "Standing[tuple[str, bool]]" = field(init=False)

    def __post_init__(self) -> None:
        self._standing = Standing(lambda key: self.look_up(key[0], by_cookie=key[1]))

    # --- threads ---------------------------------------------------------------------------------------------------

    async def run(self, work: Callable[[], T]) -> T:
        """Run it in a thread. An internal error is logged here and reported without details."""
        return await _in(self._reads, work)

    async def run_slowly(self, work: Callable[[], T]) -> T:
        """The same, for work that may take seconds."""
        return await _in(self._slow, work)

    async def run_erasing(self, work: Callable[[], T]) -> T:
        """The same, for an erasure, which waits only for other erasures."""
        return await _in(self._erasing, work)

    async def ask_sql(
        self, caller: Caller, statement: str, limit: int, gone: Callable[[], Awaitable[bool]]
    ) -> Mapping[str, Any]:
        """The rows of a statement, once it is this person's turn.

        Raises SqlRefused, SqlLimit, TooMany, QueueFull, Unauthorized. `gone`: whether the caller has disconnected; the
        statement is not run then.
        """

        async def work() -> Mapping[str, Any]:
            if await gone():
                raise SqlRefused("the caller has disconnected")
            watched.check()
            return await _in(self._sql, partial(self.run_sql, statement, limit))

        with self.watch(caller) as watched:
            found = await self.sql_queue.run(caller.name, statement, work)
            watched.check()
            return found

    def now(self) -> datetime:
        """The door's clock, used for sessions, notes and keys."""
        return self.session.door_clock.now()

    # --- the caller ------------------------------------------------------------------------------------------------

    async def caller(self, request: Request, bearer: str | None, cookie: str | None, right: str) -> Caller:
        """The caller, if allowed. A token takes precedence over a cookie. Raises Unauthorized, Forbidden, TooMany."""
        by_cookie = bearer is None
        secret = cookie if bearer is None else bearer
        if not secret:
            if self.throttle is not None and any(name in request.headers for name in ("authorization", "cookie")):
                self.throttle.stranger(request.scope)  # requests with neither are counted earlier
            raise Unauthorized("send the header Authorization: Bearer TOKEN (`touchfold token create --role ROLE`)")
        found = await self.known(secret, by_cookie=by_cookie, scope=request.scope)
        if found is None:
            if by_cookie:
                raise Unauthorized("this session has ended: sign in again")
            raise Unauthorized("this token is unknown, was revoked or has expired")
        caller = Caller(*found, secret, by_cookie)
        if by_cookie and request.method not in SAFE and not from_our_pages(request.headers, secret):
            raise Forbidden(f"a request with a cookie must come from our own pages or have the header {CSRF_HEADER}")
        if not caller.may(right):
            raise refusal(caller.role, right)
        return caller

    async def known(self, secret: str, *, by_cookie: bool, scope: Mapping[str, Any]) -> tuple[str, str] | None:
        """(name, role) of a token or cookie; a valid one is cached for a second to save a look-up.

        Raises TooMany. A secret that was recently valid is looked up however many wrong ones came from its address.
        """
        now = time.monotonic()
        found = self._known.get((by_cookie, secret))
        who: tuple[str, str] | None
        if found is not None and found[2] > now:
            who = found[:2]
        else:
            if found is None and self.throttle is not None:
                self.throttle.check_stranger(scope)
            who = await self.run(lambda: self.look_up(secret, by_cookie=by_cookie))
            if len(self._known) >= KNOWN:
                self._known.clear()
            if who is None:
                self._known.pop((by_cookie, secret), None)
            else:
                self._known[by_cookie, secret] = (*who, now + KNOWN_S)
        if self.throttle is not None:
            if who is None:
                self.throttle.stranger(scope)
            else:
                self.throttle.caller(who[0])
        return who

    def watch(self, caller: Caller) -> Watched[tuple[str, bool]]:
        """For long requests: whether the caller may still be served. Call in the loop; call `end` on it afterwards."""
        return self._standing.watch((caller.secret, caller.by_cookie), (caller.name, caller.role))

    def look_up(self, secret: str, *, by_cookie: bool) -> tuple[str, str] | None:
        """(name, role) as the database has it now."""
        if by_cookie:
            person = self.people.who(secret, self.now())
            return None if person is None else (person.name, person.role)
        token = self.tokens.find(secret, self.now())
        return None if token is None else (f"token:{token[0]}", token[1])

    async def note(self, caller: Caller, action: str, profile_id: bytes | None = None, /, **detail: object) -> None:
        """Record who did what; durable on return, so answer only then. Raises StoreUnavailable."""
        await durable(self.audit.begin(caller.name, caller.role, action, profile_id, detail))

    # --- stopping --------------------------------------------------------------------------------------------------

    def waits(self, event: asyncio.Event) -> Callable[[], None]:
        """Have an event set at shutdown; returns a function that cancels this. Call in the loop."""
        entry = (asyncio.get_running_loop(), event)
        self._waiting.add(entry)
        return lambda: self._waiting.discard(entry)

    def stop(self) -> None:
        """End long polls and streams now. Callable from any thread; repeated calls do nothing."""
        if self.stopping:
            return
        self.stopping = True
        for loop, event in list(self._waiting):
            with suppress(RuntimeError):  # the loop has ended: nobody is waiting
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        self.stop()
        self._reads.shutdown()
        self._slow.shutdown()
        self._sql.shutdown()
        self._erasing.shutdown()
        self._standing.close()
        for late in (self.acting, self.retrying):
            if late.made is not None:
                late.made.close()
        for each in (self.audit, self.people, self.tokens, self.sources, self.operations, self.reading):
            each.close()


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    except TouchfoldError:
        raise
    except DataError as err:  # such as a number beyond bigint: can only come from the caller
        raise BadRequest("a value in the request is out of range") from err
    except Exception as err:
        log.error("internal error: %s", described(err, err.__traceback__))
        raise TouchfoldError("internal error; see the log of the HTTP process") from err


def refusal(role: str, right: str) -> Forbidden:
    """The message for a role that lacks a right."""
    roles = " or ".join(sorted(RIGHTS[right]))
    if right == PERSONAL:
        return Forbidden(
            f"the role {role} may not search for people: this needs a role that sees personal values ({roles}). GET "
            "profiles lists by segment, stage, risk and attributes, and GET profiles/profile/ID shows one of them"
        )
    return Forbidden(f"the role {role} may not do this: it needs {roles}")


# --- parameters --------------------------------------------------------------------------------------------------

Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[str | None, Query(max_length=100, description="`next` of the previous page")]
Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Depends(HTTPBearer(auto_error=False, description="a token from `touchfold token create --role ROLE`")),
]
Cookie = Annotated[
    str | None,
    Depends(
        APIKeyCookie(
            name=COOKIE,
            auto_error=False,
            description="a session of the pages. Requests other than GET then need our own Origin, or X-CSRF-Token "
            "with the `csrf_token` from GET me",
        )
    ),
]


def need(api: Api, right: str) -> Any:
    """A dependency that gives the caller, who must have this right."""

    async def caller(request: Request, credentials: Bearer, cookie: Cookie) -> Caller:
        bearer = None if credentials is None else credentials.credentials
        return await api.caller(request, bearer, cookie, right)

    caller.right = right  # type: ignore[attr-defined]  # for the description
    return Depends(caller)
