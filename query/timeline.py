"""A profile's events, newest first, read from the log itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import Any, Final

import msgspec

from query.answers import iso
from query.cursors import event_cursor, event_place
from query.opened import joined, open_records, open_tokens, tokens_in, with_values
from schemas.ports import EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import Reads
from schemas.record import Record, Stored, decode, to_us

CHUNK: Final = 2_000  # records held at once: about 2 MB
Answer = dict[str, Any]
Stamp = tuple[int, bytes]  # (occurred_us, event key)


class _Head(msgspec.Struct):
    """What orders an event; decoding no more takes half a microsecond."""

    id: str
    occurred_at: datetime
    type: str

    @property
    def stamp(self) -> Stamp:
        return to_us(self.occurred_at), bytes.fromhex(self.id.replace("-", ""))


_HEAD: Final = msgspec.json.Decoder(_Head)


@dataclass(frozen=True)
class Timeline:
    """Reads timelines; any thread may call. A page reads every event of the profile."""

    reads: Reads
    vault: Vault
    sealer: Sealer
    log: EventLog

    def page(
        self, profile_id: bytes, cursor: str | None, limit: int, *, personal: bool, types: frozenset[str] | None = None
    ) -> Answer:
        """{"items", "next"}: applied events of the profile's signatures by occurred_at, newest first.

        With `personal` what was sealed is opened and in its place; else only what is clear is there. `types`: these.
        """
        newest = self._newest(profile_id, event_place(cursor), limit + 1, types)
        page = newest[:limit]
        items = self._open(page) if personal else [_clear(decode(stored.value)) for stored in page]
        more = len(newest) > limit
        return {"items": items, "next": event_cursor(*_HEAD.decode(page[-1].value).stamp) if more else None}

    def _newest(
        self, profile_id: bytes, before: Stamp | None, limit: int, types: frozenset[str] | None
    ) -> list[Stored]:
        positions = sorted(self.reads.positions(profile_id))
        best: list[tuple[Stamp, Stored]] = []
        for start in range(0, len(positions), CHUNK):
            for stored in self.log.fetch(positions[start : start + CHUNK]):
                head = _HEAD.decode(stored.value)
                stamp = head.stamp
                if (before is None or stamp < before) and (types is None or head.type in types):
                    best.append((stamp, stored))
            best = nlargest(limit, best)
        return [stored for _, stored in best]

    def _open(self, page: Sequence[Stored]) -> list[Answer]:
        pairs = open_records(self.sealer, page)
        tokens = {bytes.fromhex(each.token) for record, _ in pairs for each in record.ids}
        opened = open_tokens(self.vault, tokens.union(*(tokens_in(sealed) for _, sealed in pairs)))
        return [_with_personal(record, sealed, opened) for record, sealed in pairs]


def _clear(record: Record) -> Answer:
    """What of an event is not personal."""
    return {
        "id": record.id,
        "message_id": record.message_id,
        "type": record.type,
        "name": record.name,
        "source": record.source,
        "occurred_at": iso(record.occurred_at),
        "received_at": iso(record.received_at),
        "identifiers": [{"kind": each.kind, "value": None} for each in record.ids],
        "properties": record.properties,
        "context": record.context,
        "traits": record.traits,
        "sealed_names": record.sealed.names if record.sealed else [],
    }


def _with_personal(record: Record, sealed: Mapping[str, Any], opened: Mapping[bytes, OpenIdentifier]) -> Answer:
    answer = _clear(record)
    for part in ("properties", "context", "traits"):
        if part in sealed:
            answer[part] = joined(answer[part], with_values(sealed[part], opened))
    found = [opened.get(bytes.fromhex(each.token)) for each in record.ids]
    answer["identifiers"] = [{"kind": each.kind, "value": each.value} for each in found if each is not None]
    return answer
