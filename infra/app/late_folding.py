"""Builds what applies records late, for dead-lettered records that an upgrade has made readable."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from infra.adapters.postgres.records import PostgresRecords
from infra.app.databases import database_of
from infra.app.worker import services_of
from processors.live.compiled import Compiled, folder_of
from processors.live.dead_letters import dead_letter_key
from processors.live.late_fold import fold_late
from processors.live.services import Services
from schemas.errors import KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken
from schemas.record import CURRENT, Reader

if TYPE_CHECKING:
    from infra.app.session import Session


class LateFolding:
    """For a series of dead letters: a revision is compiled once. Single-threaded; created by `late_folding`."""

    def __init__(self, session: "Session", services: Services, reader: Reader) -> None:
        self._records = PostgresRecords(database_of(session, "touchfold record"))
        self._services = services
        self._reader = reader
        self._sharded = session.adapters.kafka is not None
        self._compiled: Compiled | None = None
        self._places: Mapping[bytes, tuple[int, int]] = {}  # by dead letter, the place of the record that was set aside

    def fold(self, letter: bytes) -> bool:
        """Apply the record this dead letter is about; False if it still cannot be read.

        Raises StoreUnavailable.
        """
        if letter not in self._places:  # the first one, or one set aside since
            self._places = {dead_letter_key(*place): place for place in self._records.quarantined()}
        place = self._places.get(letter)
        if place is None:
            return True  # applied in the meantime
        folder = folder_of(self._services, self._live(), {}, sharded=self._sharded)
        found = self._services.log.fetch([place])
        try:
            for record in found:
                fold_late(folder, record)
        except (KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken):
            return False
        return bool(found)

    def _live(self) -> Compiled:
        """Checked for each dead letter: another revision may have gone live since the last one."""
        live, services = self._services.control.live(), self._services
        if self._compiled is None or self._compiled.revision.revision != live.revision:
            self._compiled = Compiled.of(live, services.time_zone, services.currency, services.order_cap, self._reader)
        return self._compiled


@contextmanager
def late_folding(session: "Session", reader: Reader = CURRENT) -> Iterator[LateFolding]:
    """The store has its own connection, which is closed at the end."""
    services = services_of(session)
    with closing(services.store):
        yield LateFolding(session, services, reader)
