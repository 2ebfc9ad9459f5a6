"""Whether two copies of an event differ in nothing but their times: a retry whose sender stamped it anew."""

from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from schemas.errors import KeyMissing, ReaderTooOld, RecordUnreadable, SealBroken
from schemas.ports import EventLog, Sealer
from schemas.record import CURRENT, Reader, Record, Stored, decode

Place = tuple[int, int]  # partition, offset


class Restamped:
    """Compares the records themselves, since the digests in the log cover the stamps. Only a conflict costs this."""

    def __init__(self, log: EventLog, sealer: Sealer, reader: Reader = CURRENT) -> None:
        self._log, self._sealer, self._reader = log, sealer, reader

    def of(self, pairs: Iterable[tuple[Place, Place]]) -> set[Place]:
        """The first places of the pairs whose two records say the same at different times.

        What cannot be read or opened any more differs.
        """
        pairs = list(pairs)
        places = sorted({place for pair in pairs for place in pair})
        if not places:
            return set()
        found = {(each.partition, each.offset): each for each in self._log.fetch(places)}
        read = {place: self._read(found.get(place)) for place in places}
        said = {place: None if record is None else _said(record) for place, record in read.items()}
        alike = [(a, b) for a, b in pairs if said[a] is not None and said[a] == said[b]]
        return {a for a, b in alike if self._sealed_alike(read[a], read[b])}

    def _read(self, stored: Stored | None) -> Record | None:
        try:
            return None if stored is None else decode(stored.value, self._reader)
        except (RecordUnreadable, ReaderTooOld):
            return None

    def _sealed_alike(self, *records: Record | None) -> bool:
        kept = [record for record in records if record is not None and record.sealed is not None]
        if not kept:
            return True
        opened = self._opened(kept)
        return len(kept) == 2 and None not in opened and opened[0] == opened[1]

    def _opened(self, records: Sequence[Record]) -> list[Any]:
        triples = []
        for record in records:
            assert record.sealed is not None, "only what is sealed is opened"
            key = bytes.fromhex(record.id.replace("-", ""))
            triples.append((bytes.fromhex(record.sealed.key), a2b_base64(record.sealed.data), key))
        try:
            plain = self._sealer.open_many(triples)
        except (KeyMissing, SealBroken):
            return [None]
        return [None if data is None else msgspec.json.decode(data) for data in plain]


def _said(record: Record) -> tuple[object, ...]:
    """The clear content, without times, place and remarks."""
    names = None if record.sealed is None else record.sealed.names
    tokens = [(each.kind, each.token) for each in record.ids]
    return (record.type, record.name, record.source, tokens, record.properties, record.context, record.traits, names)
