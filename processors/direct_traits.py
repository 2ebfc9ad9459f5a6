"""Opens direct traits where they lie: a state keeps the position of the event that set one, never its value."""

from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from projections.state import DIRECT, FORM, NAME, OFFSET, PARTITION, TRAITS, State, shown
from schemas.errors import ReaderTooOld, StoreUnavailable
from schemas.ports import EventLog, Sealer
from schemas.record import Record, Stored, decode


def open_direct(
    log: EventLog, sealer: Sealer, states: Mapping[bytes, State], wanted: Callable[[str], bool]
) -> dict[bytes, dict[str, Any]]:
    """Values by name for each key of `states`; a trait whose key was erased is left out.

    Raises StoreUnavailable where a newer build applied a record: without its values every decision would be wrong.
    """
    places: dict[tuple[int, int], list[tuple[bytes, str]]] = {}
    for key, state in states.items():
        for entry in shown(state[TRAITS]):
            if entry[FORM] == DIRECT and wanted(entry[NAME]):
                places.setdefault((entry[PARTITION], entry[OFFSET]), []).append((key, entry[NAME]))
    values: dict[bytes, dict[str, Any]] = {key: {} for key in states}
    if not places:
        return values
    records = log.fetch(places)
    for record, plain in zip(records, _open(sealer, records), strict=True):
        traits = {} if plain is None else msgspec.json.decode(plain).get("traits", {})
        for key, name in places[record.partition, record.offset]:
            if name in traits:
                values[key][name] = traits[name]
    return values


def _readable(record: Stored) -> Record:
    try:
        return decode(record.value)
    except ReaderTooOld as err:
        place = f"partition {record.partition} offset {record.offset}"
        text = f"{place} was applied by a newer build: {err.message}: upgrade this build"
        raise StoreUnavailable(text, retry_after_s=60) from err


def _open(sealer: Sealer, records: list[Stored]) -> list[bytes | None]:
    triples = []
    for record in records:
        touchpoint = _readable(record)
        sealed = touchpoint.sealed
        assert sealed is not None, "a direct trait's event has a sealed part"
        key = bytes.fromhex(touchpoint.id.replace("-", ""))
        triples.append((bytes.fromhex(sealed.key), a2b_base64(sealed.data), key))
    return sealer.open_many(triples)
