"""The platform's view of all customers, for `touchfold demo-score`: owners, stages, and since when they hold."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

from infra.adapters.phones import Phones
from infra.adapters.postgres import standings
from infra.adapters.postgres.reads import PostgresReads
from infra.app.databases import database_of
from infra.app.log import log_of
from infra.app.session import Session
from infra.app.vault import vault_of
from projections.fold.event import FoldEvent
from query.views import View, Views
from schemas.identifiers import normalise
from schemas.record import to_us

_DAY_US: Final = 86_400_000_000
_CHUNK: Final = 10_000
Flag = Callable[[str, str], bool]  # of (stage, risk)


class Scoring:
    """One look at a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._database = database_of(session, "touchfold demo-score")
        self._phones = Phones(session.region)
        with closing(PostgresReads(session.dsn)) as reads:
            self._view = Views(reads).current()

    def normal(self, kind: str, value: str) -> str:
        """An identifier in the form in which the door stores it."""
        return normalise(kind, value, phone=self._phones) or value

    def owners(self) -> dict[tuple[str, str], bytes]:
        """The profile of every identifier that is not shared, by (kind, value)."""
        rows = standings.owners(self._database)
        opened = vault_of(self._session).open(rows)
        return {(each.kind, each.value): rows[token] for token, each in opened.items()}

    def standings(self) -> dict[bytes, tuple[str, str]]:
        """Stage and risk of every profile."""
        return standings.standings(self._database, self._view.revision)

    def held_since(self, profiles: Collection[bytes], flag: Flag) -> Iterator[tuple[bytes, int | None]]:
        """For some profiles: since when (µs) the flag has held without a break; None if it does not hold."""
        now_us = to_us(self._session.clock.now())
        for profile, events in self._events(profiles).items():
            yield profile, held_since(self._view, events, now_us, flag)

    def _events(self, profiles: Collection[bytes]) -> Mapping[bytes, list[FoldEvent]]:
        """Their applied events, decoded; sealed parts stay sealed, as the retail pack needs none."""
        where = standings.places_of(self._database, set(profiles))
        found: dict[bytes, list[FoldEvent]] = {}
        log, places = log_of(self._session), sorted(where)
        for start in range(0, len(places), _CHUNK):
            for record in log.fetch(places[start : start + _CHUNK]):
                event = self._view.fold.decode(record.value)
                found.setdefault(where[record.partition, record.offset], []).append(event)
        return found


def held_since(view: View, events: Sequence[FoldEvent], now_us: int, flag: Flag) -> int | None:
    """Decides once a day as events come in; since when the flag has held without a break."""
    fold, evaluator = view.fold, view.evaluator
    waiting = sorted(events, key=lambda event: (event.occurred_us, event.order))
    state, place, since = fold.new_state(), 0, None
    at_us = waiting[0].occurred_us
    while True:
        at_us = min(at_us + _DAY_US, now_us)
        while place < len(waiting) and waiting[place].occurred_us <= at_us:
            fold.apply(waiting[place], state, None)
            place += 1
        decision = evaluator.decide(state, at_us, None)
        if not flag(decision.stage, decision.risk):
            since = None
        elif since is None:
            since = at_us
        if at_us >= now_us:
            return since
