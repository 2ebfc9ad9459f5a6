"""Opens direct traits in the log: a state keeps the position of the event that set one, never its value."""

from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from projections.fold.state import DIRECT, FORM, NAME, OFFSET, PARTITION, TRAITS, State, shown
from schemas.errors import ReaderTooOld, StoreUnavailable
from schemas.paths import nested_trait
from schemas.ports import EventLog, Sealer
from schemas.record import Record, Stored, decode


def open_personal(
    log: EventLog, sealer: Sealer, states: Mapping[bytes, State], wanted: Callable[[str], bool]
) -> dict[bytes, dict[str, Any]]:
    """Values by name for each key of `states`; a trait whose key was erased is left out.

    Raises StoreUnavailable if a newer build applied a record: decisions without its values would be wrong.
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
    for record, traits in zip(records, _traits(sealer, records), strict=True):
        for key, name in places[record.partition, record.offset]:
            value = nested_trait(traits, name)
            if name in traits or value is not None:
                values[key][name] = value
    return values


def _readable(record: Stored) -> Record:
    try:
        return decode(record.value)
    except ReaderTooOld as err:
        place = f"partition {record.partition} offset {record.offset}"
        text = f"{place} was applied by a newer build: {err.message}: upgrade this build"
        raise StoreUnavailable(text, retry_after_s=60) from err


def _traits(sealer: Sealer, records: list[Stored]) -> list[dict[str, Any]]:
    """The traits each record sets: opened sealed ones, and those that were clear when it arrived."""
    touchpoints = [_readable(record) for record in records]
    triples = []
    for touchpoint in touchpoints:
        if touchpoint.sealed is not None:
            key = bytes.fromhex(touchpoint.id.replace("-", ""))
            triples.append((bytes.fromhex(touchpoint.sealed.key), a2b_base64(touchpoint.sealed.data), key))
    opened = iter(sealer.open_many(triples) if triples else ())
    found: list[dict[str, Any]] = []
    for touchpoint in touchpoints:
        plain = None if touchpoint.sealed is None else next(opened)
        sealed = {} if plain is None else msgspec.json.decode(plain).get("traits", {})
        found.append({**touchpoint.traits, **sealed})
    return found
