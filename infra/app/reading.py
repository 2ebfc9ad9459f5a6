"""Builds the reading side from a session: what the API, the commands and the UI call. Opens nothing itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from infra.adapters.archive.reading_log import CachedLog, PerThreadLog
from infra.adapters.phones import Phones
from infra.adapters.postgres.feed_notifier import FeedNotifier
from infra.adapters.postgres.log_order import LogOrder
from infra.adapters.postgres.reads import PostgresReads
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from query.changes import Changes
from query.people.cards import Cards
from query.people.events import Events
from query.people.listing import Listing
from query.people.profiles import Profiles
from query.people.search import Search
from query.people.timeline import Timeline
from query.segments.segments import Segments
from query.views import Views
from schemas.identifiers import PhoneForm
from schemas.ports import Clock, EventLog, Sealer, Vault


@dataclass(frozen=True)
class Reading:
    """Any thread may call any of these. Call `close` when none does any more."""

    profiles: Profiles
    segments: Segments
    changes: Changes
    events: Events
    timeline: Timeline
    search: Search
    listing: Listing
    notifier: FeedNotifier
    reads: PostgresReads
    log: EventLog
    cached: CachedLog | None

    def close(self) -> None:
        self.notifier.close()
        self.reads.close()
        if self.cached is not None:
            self.cached.close()


def make_reading(
    dsn: str,
    vault: Vault,
    sealer: Sealer,
    clock: Clock,
    phone: PhoneForm,
    log: Callable[[], EventLog],
    *,
    remote: bool = False,
) -> Reading:
    """The reading side of a main database and its vault. `log`: makes a new one per thread; its maker closes them.

    `remote`: the log is not in the database, so records are cached and ordered here.
    """
    shared = PerThreadLog(log)
    cached = CachedLog(shared) if remote else None
    events: EventLog = cached or shared
    reads = PostgresReads(dsn, order=LogOrder(cached) if cached else None)
    views = Views(reads)
    cards = Cards(vault, sealer, events, clock)
    return Reading(
        profiles=Profiles(views, vault, sealer, events, clock, phone),
        segments=Segments(views, clock),
        changes=Changes(reads),
        events=Events(reads, vault, events),
        timeline=Timeline(reads, vault, sealer, events),
        search=Search(views, cards, vault, phone),
        listing=Listing(views, cards),
        notifier=FeedNotifier(dsn),
        reads=reads,
        log=events,
        cached=cached,
    )


def reading_of(session: Session) -> Reading:
    """The reading side of a session; `close` it before the session ends."""
    vault = vault_of(session)
    remote, open_log = session.adapters.kafka is not None, partial(log_of, session)
    return make_reading(
        session.dsn, vault, vault, session.clock, Phones(session.region, looking_up=True), open_log, remote=remote
    )
