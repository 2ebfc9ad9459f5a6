"""Puts together what applies a record late: for dead letters of records that can be read after an upgrade."""

from contextlib import closing
from typing import TYPE_CHECKING

from infra.adapters.postgres_records import PostgresRecords
from infra.drivers.worker_role import services_of
from processors.dead_letters import letter_key
from processors.late_fold import fold_late
from processors.worker import Compiled, folder_of
from schemas.errors import KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken
from schemas.record import CURRENT, Reader

if TYPE_CHECKING:
    from infra.bootstrap import Session


def fold_letter(session: "Session", letter: bytes, reader: Reader = CURRENT) -> bool:
    """Apply the record whose dead letter has this id; False when it still cannot be read. Raises StoreUnavailable."""
    records = PostgresRecords(session.database("touchfold record"))
    places = [place for place in records.quarantined() if letter_key(*place) == letter]
    if not places:
        return True  # it was applied meanwhile
    services = services_of(session)
    with closing(services.store):  # a connection of its own, and there may be a letter after this one
        live = services.control.live()
        compiled = Compiled.of(live, services.time_zone, services.currency, services.order_cap, reader)
        folder = folder_of(services, compiled, {}, sharded=session.adapters.kafka is not None)
        found = services.log.fetch(places)
        try:
            for record in found:
                fold_late(folder, record)
        except (KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken):
            return False
        return bool(found)
