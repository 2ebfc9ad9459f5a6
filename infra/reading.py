"""The reading side put together on a session: what the API, the commands and the UI call. Opens nothing itself."""

from dataclasses import dataclass

from infra.adapters.phones import Phones
from infra.adapters.postgres_reads import FeedBell, PerThreadLog, PostgresReads
from infra.bootstrap import Session
from query.cards import Cards
from query.changes import Changes
from query.events import Events
from query.profiles import Profiles
from query.search import Search
from query.segments import Segments
from query.timeline import Timeline
from query.views import Views
from schemas.identifiers import PhoneForm
from schemas.ports import Clock, Sealer, Vault


@dataclass(frozen=True)
class Reading:
    """Any thread may call any of these. `close` when none does any more."""

    profiles: Profiles
    segments: Segments
    changes: Changes
    events: Events
    timeline: Timeline
    search: Search
    bell: FeedBell
    reads: PostgresReads
    log: PerThreadLog

    def close(self) -> None:
        self.bell.close()
        self.reads.close()
        self.log.close()


def make_reading(dsn: str, vault: Vault, sealer: Sealer, clock: Clock, phone: PhoneForm) -> Reading:
    """The reading side of a main database and its vault."""
    reads, log = PostgresReads(dsn), PerThreadLog(dsn)
    views = Views(reads)
    return Reading(
        profiles=Profiles(views, vault, sealer, log, clock, phone),
        segments=Segments(views, clock),
        changes=Changes(reads),
        events=Events(reads, vault, log),
        timeline=Timeline(reads, vault, sealer, log),
        search=Search(views, Cards(vault, sealer, log, clock), vault, phone),
        bell=FeedBell(dsn),
        reads=reads,
        log=log,
    )


def reading_of(session: Session) -> Reading:
    """The reading side of a session; `close` it before the session ends."""
    vault = session.vault()
    return make_reading(session.dsn, vault, vault, session.clock, Phones(session.region))
