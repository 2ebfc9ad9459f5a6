"""A profile's events, newest first, read from the log itself: only the last records if these suffice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any, Final

import msgspec

from query.answers import iso
from query.cursors import event_cursor, event_place
from query.people.opened import joined, open_records, open_tokens, tokens_in, with_values
from schemas.identifiers import ORDER_KIND
from schemas.ports import EventLog, OpenIdentifier, Sealer, Vault
from schemas.reads import Reads
from schemas.record import Identifier, Record, Stored, decode, to_us
from schemas.stamps import order_of

SHORT: Final = 1_000  # events that the database can sort within 10 ms
DEPTH: Final = 256  # newest records of each partition, looked at first
WAIT: Final = timedelta(hours=1)  # no request takes longer from its receipt to its commit
Answer = dict[str, Any]
Stamp = tuple[int, bytes]  # (occurred_us, `schemas.stamps.order_of`)


class _Head(msgspec.Struct):
    """What is needed to order an event; decoding no more than this takes half a microsecond."""

    id: str
    occurred_at: datetime
    received_at: datetime
    type: str
    n: int = 0

    @property
    def stamp(self) -> Stamp:
        key = bytes.fromhex(self.id.replace("-", ""))
        return to_us(self.occurred_at), order_of(to_us(self.received_at), self.n, key)


_HEAD: Final = msgspec.json.Decoder(_Head)


@dataclass(frozen=True)
class Timeline:
    """Reads timelines; any thread may call."""

    reads: Reads
    vault: Vault
    sealer: Sealer
    log: EventLog

    def page(
        self, profile_id: bytes, cursor: str | None, limit: int, *, personal: bool, types: frozenset[str] | None = None
    ) -> Answer:
        """{"items", "next"}: applied events of the profile's identifier sets by occurred_at, newest first.

        With `personal`, sealed values are opened and put in place; otherwise only clear ones show. `types`: only these.
        """
        newest = self._newest(profile_id, event_place(cursor), limit + 1, types)
        page = newest[:limit]
        items = self._open(page) if personal else [clear_answer(decode(stored.value)) for stored in page]
        more = len(newest) > limit
        return {"items": items, "next": event_cursor(*_HEAD.decode(page[-1].value).stamp) if more else None}

    def _newest(
        self, profile_id: bytes, before: Stamp | None, limit: int, types: frozenset[str] | None
    ) -> list[Stored]:
        count, last = self.reads.last_positions(profile_id, DEPTH + 1)  # one extra shows that there are earlier ones
        found = self._recent(last, before, limit, types) if count > SHORT else None
        if found is None:
            stored = self.log.fetch(self.reads.newest(profile_id, before, limit, types))
            found = sorted(stored, key=lambda each: _HEAD.decode(each.value).stamp, reverse=True)
        return found

    def _recent(
        self, positions: Iterable[tuple[int, int]], before: Stamp | None, limit: int, types: frozenset[str] | None
    ) -> list[Stored] | None:
        """The page, from the last records of each partition; None if an earlier record might belong on it, too.

        Nothing occurs after it was received, and whatever lies before a record was committed earlier, so it was
        received at most WAIT after it. So everything that occurred later than that is among the records looked at.
        """
        offsets: dict[int, list[int]] = {}
        for partition, offset in positions:
            offsets.setdefault(partition, []).append(offset)
        looked = {partition: nlargest(DEPTH, own) for partition, own in offsets.items()}
        stored = self.log.fetch([(partition, offset) for partition, own in looked.items() for offset in own])
        heads = [(_HEAD.decode(each.value), each) for each in stored]
        since = 0
        for partition, own in looked.items():
            if len(own) < len(offsets[partition]):
                least = min(head.received_at for head, each in heads if each.partition == partition)
                since = max(since, to_us(least + WAIT))
        sure = [
            (head.stamp, each)
            for head, each in heads
            if (types is None or head.type in types) and to_us(head.occurred_at) > since
        ]
        page = nlargest(limit, [pair for pair in sure if before is None or pair[0] < before])
        return [each for _, each in page] if len(page) == limit else None

    def _open(self, page: Sequence[Stored]) -> list[Answer]:
        pairs = open_records(self.sealer, page)
        tokens = {bytes.fromhex(each.token) for record, _ in pairs for each in record.ids}
        opened = open_tokens(self.vault, tokens.union(*(tokens_in(sealed) for _, sealed in pairs)))
        return [_with_personal(record, sealed, opened) for record, sealed in pairs]


def who(record: Record) -> list[Identifier]:
    """The identifiers of somebody, without what stands for an order whose event names nobody."""
    return [each for each in record.ids if each.kind != ORDER_KIND]


def clear_answer(record: Record) -> Answer:
    """The parts of an event that are not personal."""
    return {
        "id": record.id,
        "message_id": record.message_id,
        "type": record.type,
        "name": record.name,
        "source": record.source,
        "occurred_at": iso(record.occurred_at),
        "received_at": iso(record.received_at),
        "identifiers": [{"kind": each.kind, "value": None} for each in who(record)],
        "properties": record.properties,
        "context": record.context,
        "traits": record.traits,
        "sealed_names": record.sealed.names if record.sealed else [],
        "flags": record.flags,
    }


def _with_personal(record: Record, sealed: Mapping[str, Any], opened: Mapping[bytes, OpenIdentifier]) -> Answer:
    answer = clear_answer(record)
    for part in ("properties", "context", "traits"):
        if part in sealed:
            answer[part] = joined(answer[part], with_values(sealed[part], opened))
    found = [opened.get(bytes.fromhex(each.token)) for each in who(record)]
    answer["identifiers"] = [{"kind": each.kind, "value": each.shown} for each in found if each is not None]
    return answer
