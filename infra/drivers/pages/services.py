"""What the pages work with: the read side, people, audit, and a small thread pool for everything that blocks."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar

from infra.adapters.machine.meter import Meter
from infra.adapters.postgres.audit import PostgresAudit, durable
from infra.adapters.postgres.operations import Operations
from infra.adapters.postgres.people import HASHERS, Person, PostgresPeople
from infra.adapters.postgres.sources import PostgresSources
from infra.adapters.postgres.tokens import PostgresTokens
from infra.app.archive import archive_of
from infra.app.auditing import audit_of
from infra.app.operations import operations_of
from infra.app.reading import Reading, reading_of
from infra.app.session import Session
from infra.app.staff_events import Acting
from infra.drivers.http.health import Health
from infra.drivers.http.revocation import Standing, Watched
from infra.drivers.pages.person_exports import PersonExports
from query.reports.overview import Reports
from schemas.errors import TooMany
from schemas.roles import may

log = logging.getLogger("touchfold.ui")

T = TypeVar("T")
THREADS: Final = 6
WAITING_PASSWORDS: Final = 20  # each check takes 0.1 s of both cores


@dataclass(frozen=True)
class Viewer:
    """The person looking at a page."""

    name: str
    role: str
    secret: str  # of the session

    def may(self, right: str) -> bool:
        return may(self.role, right)


@dataclass
class Services:
    """Created once; `close` ends its threads and connections."""

    session: Session
    reading: Reading
    people: PostgresPeople
    audit: PostgresAudit
    tokens: PostgresTokens
    sources: PostgresSources
    operations: Operations
    meter: Meter  # the doors' metrics; only read here
    reports: Reports
    acting: Acting
    run_sql: Callable[[str, int], Mapping[str, Any]]
    health: Health
    exports: PersonExports = field(default_factory=PersonExports)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "ui"))
    _passwords: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(HASHERS, "passwords"))
    _passwords_waiting: int = 0
    standing: Standing[str] = field(init=False)
    _watchers: set[asyncio.Event] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        self.standing = Standing(self._stands_for)

    @classmethod
    def of(cls, session: Session) -> "Services":
        from infra.drivers.http.api.application import sql_runner  # noqa: PLC0415

        reading = reading_of(session)
        archive = archive_of(session)
        run_sql = sql_runner(session.dsn, archive, session.clock, session.adapters.kafka)
        return cls(
            session=session,
            reading=reading,
            people=PostgresPeople(session.dsn),
            audit=audit_of(session),
            tokens=PostgresTokens(session.dsn),
            sources=PostgresSources(session.dsn, unknown=session.unknown_clear),
            operations=operations_of(session, archive),
            meter=Meter(session.data / "meters"),
            reports=Reports(reading.segments.views, session.clock),
            acting=Acting(session),
            run_sql=run_sql,
            health=Health(session),
        )

    @cached_property
    def currency(self) -> str:
        return self.session.currency

    @cached_property
    def time_zone(self) -> str:
        return self.session.time_zone

    async def run(self, work: Callable[[], T]) -> T:
        """The result of a function that blocks on a database, run in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def note(self, viewer: Viewer, action: str, profile_id: bytes | None = None, /, **detail: object) -> None:
        """Audit what somebody sees or did; durable on return. Raises StoreUnavailable: then show nothing."""
        await durable(self.audit.begin(viewer.name, viewer.role, action, profile_id, detail))

    async def run_password(self, work: Callable[[], T]) -> T:
        """The same, for password checks: in separate threads, so that guessing attempts do not hold up pages.

        Raises TooMany if too many are waiting.
        """
        if self._passwords_waiting >= WAITING_PASSWORDS:
            raise TooMany("too many people are signing in right now: try again", retry_after_s=2)
        self._passwords_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._passwords, work)
        finally:
            self._passwords_waiting -= 1

    async def who(self, secret: str) -> Viewer | None:
        """Whose session this is."""
        now = self.session.door_clock.now()
        person: Person | None = await self.run(lambda: self.people.who(secret, now))
        return None if person is None else Viewer(person.name, person.role, secret)

    def _stands_for(self, secret: str) -> Viewer | None:
        """As `who`, for a page that is still open: it does not count as activity."""
        person = self.people.who(secret, self.session.door_clock.now(), used=False)
        return None if person is None else Viewer(person.name, person.role, secret)

    def watch_session(self, viewer: Viewer) -> Watched[str]:
        """Whether a viewer may still see an open page: not once their session ends or their role changes."""
        return self.standing.watch(viewer.secret, viewer)

    async def still(self, viewer: Viewer, right: str) -> bool:
        """Whether a viewer may do something now; their session may have ended since the page was opened."""
        found = await self.who(viewer.secret)
        return found is not None and found.may(right)

    def watch(self) -> asyncio.Event:
        """An event that is set whenever the change feed grows; give it back to `unwatch`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self.reading.notifier.subscribe(self._grew)
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    def _grew(self) -> None:
        assert self._loop is not None, "subscribed with a loop"
        with suppress(RuntimeError):  # the loop has ended: nobody is looking
            self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        for event in self._watchers:
            event.set()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._passwords.shutdown(cancel_futures=True)
        self.standing.close()
        self.acting.close()
        self.audit.close()
        self.meter.close()
        for each in (self.people, self.tokens, self.sources, self.operations, self.reading):
            each.close()
