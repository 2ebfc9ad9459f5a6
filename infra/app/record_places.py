"""One log record by its place, for the command and the API: shown without personal data, or set aside."""

from typing import TYPE_CHECKING, Any, Final

from infra.adapters.postgres.records import Place, PostgresRecords
from infra.app.databases import database_of
from infra.app.log import log_of
from schemas.errors import Disposition, NotFound, SetAsideRefused, TouchfoldError
from schemas.record import CURRENT, Reader, Stored, decode, from_us, received_us, version_of
from schemas.store_rows import Verdict
from schemas.waits import Wait

if TYPE_CHECKING:
    from infra.app.session import Session

_VERDICTS: Final = {each.value: each.name.lower() for each in Verdict}


def stored_at(session: "Session", partition: int, offset: int) -> Stored:
    """Raises NotFound."""
    log = log_of(session)
    if not 0 <= partition < log.partitions:
        raise NotFound(f"there is no partition {partition}: the log has {log.partitions}, numbered from 0")
    found = log.fetch([(partition, offset)])
    if not found:
        raise NotFound(f"partition {partition} has no record at offset {offset}; it ends at {log.ends()[partition]}")
    return found[0]


def shown(session: "Session", partition: int, offset: int, reader: Reader = CURRENT) -> dict[str, Any]:
    """What is known about a record, without its content: the JSON of contracts. Raises NotFound."""
    record = stored_at(session, partition, offset)
    place = PostgresRecords(database_of(session, "touchfold record")).place(partition, offset)
    error = _error(record, reader)
    received = received_us(record.value)
    return {
        "partition": partition,
        "offset": offset,
        "bytes": len(record.value),
        "version": version_of(record.value) or None,
        "reads": reader.version,
        "received_at": None if received is None else _iso(received),
        "state": _state(place, offset),
        "code": error.code if error else place.wait.code if place.wait else None,
        "reason": error.message if error else place.wait.reason if place.wait else None,
        **(_clear(record, reader) if error is None else {}),
    }


def set_aside(session: "Session", partition: int, offset: int, who: str, reader: Reader = CURRENT) -> Wait:
    """Let the partition skip a record that is blocking it. Raises NotFound, SetAsideRefused."""
    record = stored_at(session, partition, offset)
    records = PostgresRecords(database_of(session, "touchfold record"))
    place = records.place(partition, offset)
    where = f"partition {partition} offset {offset}"
    if place.set_aside or place.verdict is not None:
        raise SetAsideRefused(f"{where} has already been set aside or was not applied: see touchfold record show")
    if place.next_offset is not None and offset < place.next_offset:
        raise SetAsideRefused(f"{where} has already been applied: to forget a person, use touchfold erase")
    error = _error(record, reader)
    if error is not None and error.disposition is Disposition.WAIT:
        wait = place.wait or Wait(partition, offset, error.code, error.message)
    elif place.wait is not None:
        wait = place.wait
    elif error is not None:
        raise SetAsideRefused(f"{where} will be set aside automatically when its turn comes: {error.message}")
    else:
        raise SetAsideRefused(f"{where} can be read: it will be applied when its turn comes")
    records.set_aside(wait, who, session.door_clock.now())
    return wait


def _state(place: Place, offset: int) -> str:
    if place.verdict is not None:
        return _VERDICTS.get(place.verdict, "not_applied")
    if place.next_offset is not None and offset < place.next_offset:
        return "applied"
    if place.set_aside:
        return "set_aside"
    return "waiting" if place.wait is not None else "pending"


def _error(record: Stored, reader: Reader) -> TouchfoldError | None:
    try:
        decode(record.value, reader)
    except TouchfoldError as err:
        return err
    return None


def _clear(record: Stored, reader: Reader) -> dict[str, Any]:
    found = decode(record.value, reader)
    return {"id": found.id, "type": found.type, "source": found.source}


def _iso(at_us: int) -> str:
    return from_us(at_us).isoformat().replace("+00:00", "Z")
