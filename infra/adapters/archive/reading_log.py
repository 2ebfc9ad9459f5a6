"""Event logs as the reading side needs them: thread-safe, with cached records, and ends within a deadline."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from schemas.errors import StoreUnavailable
from schemas.ports import EventLog
from schemas.record import Pending, Stored

CACHE_BYTES: Final = 32 * 2**20
KEPT_AT_ONCE: Final = 2_000  # records of one fetch; a larger one reads a whole history and would evict everything else
SLICES: Final = 4
SLICED: Final = 24  # from this many places on, a fetch is sliced
ENDS_S: Final = 1.5  # /health answers within 2 s
NEAR: Final = 10_000  # offsets after the last applied one that are checked immediately
_ENTRY_BYTES: Final = 250  # a key and its place in the mapping

Place = tuple[int, int]


def ends_of(log: EventLog) -> list[int]:
    """Its ends. If that fails, tries once more: the connection may predate a restart."""
    try:
        return log.ends()
    except StoreUnavailable:
        return log.ends()


def accepted_ends(log: EventLog) -> list[int]:
    """Where accepted records end, whether readable yet or not: the high watermarks, if the log has transactions."""
    ends: Callable[[], list[int]] = getattr(log, "high_ends", log.ends)
    return ends()


class PerThreadLog:
    """Thread-safe `EventLog`: each thread has its own log from `make`, and the caller closes these logs."""

    def __init__(self, make: Callable[[], EventLog]) -> None:
        self._make = make
        self._local = threading.local()

    def _log(self) -> EventLog:
        found: EventLog | None = getattr(self._local, "log", None)
        if found is None:
            found = self._local.log = self._make()
        return found

    @property
    def partitions(self) -> int:
        return self._log().partitions

    @property
    def generation(self) -> int:
        return self._log().generation

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        return self._log().append(batch)

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        return self._log().read(partition, start, limit)

    def fetch(self, positions: Iterable[Place]) -> list[Stored]:
        return self._log().fetch(positions)

    def ends(self) -> list[int]:
        return ends_of(self._log())


class LogBefore:
    """An `EventLog` in front of another one, to which it delegates what it does not do itself."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    @property
    def partitions(self) -> int:
        return self._log.partitions

    @property
    def generation(self) -> int:
        return self._log.generation

    def append(self, batch: Sequence[Pending]) -> list[tuple[int, int]]:
        return self._log.append(batch)

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        return self._log.read(partition, start, limit)

    def ends(self) -> list[int]:
        return self._log.ends()

    def high_ends(self) -> list[int]:
        return accepted_ends(self._log)


class CachedLog(LogBefore):
    """An `EventLog` that caches the records fetched last. Any thread, if `log` allows it.

    Records never change, and personal data in them is sealed: after an erasure the cached bytes are as unreadable as
    those in the log. `limit_bytes`: of records, including the overhead of caching them.
    """

    def __init__(self, log: EventLog, limit_bytes: int = CACHE_BYTES) -> None:
        super().__init__(log)
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Place, bytes] = OrderedDict()
        self._pool = ThreadPoolExecutor(SLICES, "log fetch")
        self.bytes = 0

    def fetch(self, positions: Iterable[Place]) -> list[Stored]:
        """See the port."""
        found: list[Stored] = []
        missing: list[Place] = []
        with self._lock:
            for place in dict.fromkeys(positions):
                value = self._kept.get(place)
                if value is None:
                    missing.append(place)
                else:
                    self._kept.move_to_end(place)
                    found.append(Stored(*place, value))
        if missing:
            fetched = self._fetch(missing)
            if len(missing) <= KEPT_AT_ONCE:
                self._keep(fetched)
            found += fetched
        return found

    def close(self) -> None:
        """End its threads; the underlying log stays open."""
        self._pool.shutdown()

    def _fetch(self, places: list[Place]) -> list[Stored]:
        """Fetch many places in parallel slices: in a remote log each may cost a round trip."""
        if len(places) < SLICED:
            return self._log.fetch(places)
        places.sort()
        size = -(-len(places) // SLICES)
        slices = [places[at : at + size] for at in range(0, len(places), size)]
        return [record for part in self._pool.map(self._log.fetch, slices) for record in part]

    def _keep(self, records: Sequence[Stored]) -> None:
        with self._lock:
            for record in records:
                place = (record.partition, record.offset)
                if place not in self._kept:
                    self._kept[place] = record.value
                    self.bytes += len(record.value) + _ENTRY_BYTES
            while self.bytes > self._limit:
                self.bytes -= len(self._kept.popitem(last=False)[1]) + _ENTRY_BYTES


class Tails:
    """Ends of a log whose partitions may end in offsets without records: transaction markers, aborted records.

    These are never applied, so they are not lag. What another producer's open transaction holds back is lag, since it
    also holds back our acknowledged records. One thread at a time.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._last: Sequence[Place] = ()  # (applied, end) of each partition at the last call
        self._known: dict[int, tuple[Place, bool]] = {}  # partition: (applied, end), whether no record is between
        self.held: dict[int, Place] = {}  # partition: (first, end) held back by an open transaction at the last `cut`

    def cut(self, ends: Sequence[int], applied: Sequence[int]) -> list[int]:
        """These ends; or the applied offset, if there is no record between it and the end.

        A large distance is checked only if it has not changed since the last call: otherwise records are being applied.
        """
        found = list(ends)
        self.held = {}
        places = list(zip(applied, ends, strict=False))
        for partition, (at, end) in enumerate(places):
            if at < end and self._is_bare(partition, (at, end)):
                found[partition] = at
        self._last = places
        return found

    def _is_bare(self, partition: int, place: Place) -> bool:
        place_known, bare = self._known.get(partition, (None, False))
        if place_known == place:
            return bare
        at, end = place
        still = partition < len(self._last) and self._last[partition] == place
        if end - at > NEAR and not still:
            return False
        found = self._log.read(partition, at, 1)
        if not found:
            stable = self._log.ends()[partition]
            if stable < end:
                self.held[partition] = (stable, end)
                return False
        bare = not found or found[0].offset >= end
        self._known[partition] = (place, bare)
        return bare


class TimelyEnds:
    """`EventLog.ends` with a deadline, for callers that must answer even if the brokers are unavailable. Any thread.

    One daemon thread asks, so that the process can exit without waiting for it; concurrent callers share its answer.
    """

    def __init__(self, make: Callable[[], EventLog], deadline_s: float = ENDS_S) -> None:
        self._make = make
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._log: EventLog | None = None
        self._tails: Tails | None = None
        self._asked: Future[list[int]] | None = None

    def ends(self, applied: Sequence[int] = ()) -> list[int]:
        """The ends of accepted records, cut by `Tails` if beyond what is applied; no older than the deadline.

        Raises StoreUnavailable if there is no answer in time.
        """
        with self._lock:
            asked = self._asked
            if asked is None or asked.done():
                asked = self._asked = Future()
                threading.Thread(target=self._ask, args=(asked, applied), name="ends of the log", daemon=True).start()
        try:
            return asked.result(self._deadline_s)
        except TimeoutError:
            raise StoreUnavailable(f"the log did not answer within {self._deadline_s:g} s", retry_after_s=1) from None

    @property
    def held(self) -> dict[int, Place]:
        """As of the last answer: by partition, (first, end) held back by another producer's open transaction."""
        return {} if self._tails is None else dict(self._tails.held)

    def _ask(self, asked: "Future[list[int]]", applied: Sequence[int]) -> None:
        try:
            if self._log is None or self._tails is None:
                self._log = self._make()
                self._tails = Tails(self._log)
            asked.set_result(self._tails.cut(accepted_ends(self._log), applied))
        except BaseException as err:  # raised in the threads waiting for the answer
            asked.set_exception(err)
