"""Orders a profile's events by time when they are outside PostgreSQL: places from SQL, times from the log."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Final

import msgspec

from schemas.ports import EventLog
from schemas.record import to_us
from schemas.stamps import order_of

CHUNK: Final = 2_000  # records in memory at a time
HEADS: Final = 100_000  # some 30 MB: two profiles of 50,000 events, so that their later pages read nothing again
Place = tuple[int, int]  # (partition, offset)
Head = tuple[int, int, int, str]  # (occurred_us, received_us, n, type)


class _Head(msgspec.Struct):
    occurred_at: datetime
    received_at: datetime
    type: str
    n: int = 0

    @property
    def known(self) -> Head:
        return to_us(self.occurred_at), to_us(self.received_at), self.n, sys.intern(self.type)


_DECODER: Final = msgspec.json.Decoder(_Head)


class LogOrder:
    """Puts places in the order of their events. Any thread, if `log` allows it.

    Cost: each record not yet known is read from the log once; only its times, place and type are kept.
    """

    def __init__(self, log: EventLog, limit: int = HEADS) -> None:
        self._log = log
        self._limit = limit
        self._lock = threading.Lock()
        self._known: OrderedDict[Place, Head] = OrderedDict()

    def newest(
        self,
        events: Iterable[tuple[int, int, bytes]],
        before: tuple[int, bytes] | None,
        limit: int,
        types: frozenset[str] | None,
    ) -> list[Place]:
        """As `Reads.newest`, for (partition, offset, event key)."""
        keys = {(partition, offset): key for partition, offset, key in events}
        stamped = (
            ((at_us, order_of(received_us, n, keys[place])), place)
            for place, (at_us, received_us, n, type_) in self._heads(sorted(keys))
            if types is None or type_ in types
        )
        return [place for _, place in nlargest(limit, (each for each in stamped if before is None or each[0] < before))]

    def _heads(self, places: Sequence[Place]) -> Iterator[tuple[Place, Head]]:
        with self._lock:
            known = {place: head for place in places if (head := self._known.get(place)) is not None}
            for place in known:
                self._known.move_to_end(place)
        yield from known.items()
        missing = [place for place in places if place not in known]
        for at in range(0, len(missing), CHUNK):
            heads = [
                ((each.partition, each.offset), _DECODER.decode(each.value).known)
                for each in self._log.fetch(missing[at : at + CHUNK])
            ]
            self._keep(heads)
            yield from heads

    def _keep(self, heads: Sequence[tuple[Place, Head]]) -> None:
        with self._lock:
            self._known.update(heads)
            while len(self._known) > self._limit:
                self._known.popitem(last=False)
