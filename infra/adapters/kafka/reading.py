"""Reads a topic by position: a few consumers, each assigned to one partition at a time. No group, no commits.

Reassigning costs 0.4–3 ms, while a consumer already at the next position has prefetched. So after a read a consumer
stays with its partition until another partition needs it, or the end is reached.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.adapters.kafka.offsets import Offsets
from infra.adapters.kafka.trouble import Trouble, shared_config, unavailable
from schemas.errors import LogTruncated, StoreUnavailable
from schemas.record import Stored

READ_S: Final = 10.0  # no record for this long means an outage
_RANDOM_READERS: Final = 4
_IDLE_S: Final = 5.0  # a reader with a full queue checks for room 200 times a second: 0.4 % of a core
_ALONE: Final = 4  # up to this many places are visited one after the other
_AT_ONCE: Final = 10_000  # messages taken from librdkafka in one call
_SEQUENTIAL: Final[Mapping[str, Any]] = {
    "fetch.message.max.bytes": 1_048_576,
    "queued.max.messages.kbytes": 4_096,  # prefetched per consumer
}
_RANDOM: Final[Mapping[str, Any]] = {  # whole batches come anyway, so nothing is prefetched
    "fetch.message.max.bytes": 16_384,
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1_024,
}
_log = logging.getLogger("touchfold.kafka")


class _Reader:
    """A consumer at a position of one partition. One thread at a time."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self.partition: int | None = None
        self.next = -1
        self.used_at = 0.0
        self._trouble = Trouble()
        self._topic = topic
        self._consumer = Consumer({**config, "error_cb": self._trouble, "logger": _log})

    def stands_at(self, partition: int, start: int) -> bool:
        return self.partition == partition and self.next == start

    def go_to(self, partition: int, start: int) -> None:
        """The next record read is the first at or after `start`."""
        if not self.stands_at(partition, start):
            self._consumer.assign([TopicPartition(self._topic, partition, start)])
            self.partition, self.next = partition, start

    def leave(self) -> None:
        """Stop prefetching."""
        self._consumer.unassign()
        self.partition, self.next = None, -1

    def take(self, most: int, end: int) -> list[Stored]:
        """From 1 to `most` records below `end`; [] if there are none, which moves the position to `end`.

        Raises StoreUnavailable, or _OutOfRange if the log does not have the position.
        """
        partition = self.partition
        assert partition is not None, "it was sent somewhere"
        deadline = time.monotonic() + READ_S
        found: list[Stored] = []
        while self.next < end and not found:
            first = self._consumer.poll(max(deadline - time.monotonic(), 0.01))
            if first is None:
                if time.monotonic() > deadline:
                    because = self._trouble.because()
                    raise StoreUnavailable(f"Kafka gave no records within {READ_S:g} s{because}", retry_after_s=1)
                continue
            rest = self._consumer.consume(min(most - 1, _AT_ONCE), 0) if most > 1 else []
            for message in (first, *rest):
                error = message.error()
                if error is not None:
                    self._met(error, message.offset(), end)
                    continue
                offset = message.offset()
                assert offset is not None, "records that were read have one"
                found.append(Stored(partition, offset, message.value() or b""))
                self.next = offset + 1
        return found

    def _met(self, error: KafkaError, place: int | None, end: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if place is not None and place >= end:  # otherwise it was reached when the partition was shorter
                self.next = max(self.next, place)
        elif code in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise _OutOfRange
        else:
            raise unavailable(error, self._topic, self._trouble)

    def close(self) -> None:
        self._consumer.close()


_Run = tuple[int, list[int], int]  # partition, offsets, the partition's end


class _OutOfRange(Exception):
    """The log does not have the offset: it is before its start or beyond its end."""


class _Pool:
    """At most `most` consumers; callers wait for a free one."""

    def __init__(self, config: Mapping[str, Any], topic: str, most: int) -> None:
        self._config = config
        self._topic = topic
        self._most = most
        self._free: list[_Reader] = []  # least recently used first
        self._count = 0
        self._changed = threading.Condition()
        self._sweeper: threading.Timer | None = None
        self._closed = False

    @contextmanager
    def at(self, partition: int, start: int) -> Iterator[_Reader]:
        """A reader at the position. After an error it is not used again."""
        reader = self._take(partition, start)
        try:
            reader.go_to(partition, start)
            yield reader
        except BaseException:
            self._drop(reader)
            raise
        reader.used_at = time.monotonic()
        with self._changed:
            if not self._closed:
                self._free.append(reader)
                self._changed.notify()
                self._sweep_later()
                return
        self._drop(reader)

    def _sweep_later(self) -> None:
        """Call with the lock held: schedule a sweep of idle readers that are still at a position."""
        if self._sweeper is None and any(reader.partition is not None for reader in self._free):
            self._sweeper = threading.Timer(_IDLE_S, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        before = time.monotonic() - _IDLE_S
        with self._changed:
            self._sweeper = None
            for reader in self._free:
                if reader.partition is not None and reader.used_at < before:
                    reader.leave()
            self._sweep_later()

    def close(self) -> None:
        """Close the free ones; those in use are closed when they are returned."""
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
            if self._sweeper is not None:
                self._sweeper.cancel()
        for reader in free:
            self._drop(reader)

    def _take(self, partition: int, start: int) -> _Reader:
        deadline = time.monotonic() + READ_S
        with self._changed:
            while True:
                if self._closed:
                    raise StoreUnavailable("the log was closed")
                found = self._choose(partition, start)
                if found is not None:
                    self._free.remove(found)
                    return found
                if self._count < self._most:
                    self._count += 1
                    break
                if not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    raise StoreUnavailable("too many concurrent reads of Kafka's log", retry_after_s=1)
        try:
            return _Reader(self._config, self._topic)
        except BaseException as err:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            if isinstance(err, KafkaException):
                raise unavailable(err.args[0], self._topic, Trouble()) from err
            raise

    def _choose(self, partition: int, start: int) -> _Reader | None:
        """A reader already there, else one without a position, else (at the maximum number) the least recently used."""
        for reader in self._free:
            if reader.stands_at(partition, start):
                return reader
        for reader in self._free:
            if reader.partition is None:
                return reader
        return self._free[0] if self._free and self._count >= self._most else None

    def _drop(self, reader: _Reader) -> None:
        reader.close()
        with self._changed:
            self._count -= 1
            self._changed.notify()


class TopicReader:
    """Records of a topic's partitions by position, up to the last stable offset. Any thread."""

    def __init__(self, config: Mapping[str, Any], topic: str, offsets: Offsets, readers: int = 12) -> None:
        shared = {**shared_config(), **_consumer_config(topic), **config}
        self._offsets = offsets
        self._sequential = _Pool({**shared, **_SEQUENTIAL}, topic, readers)
        self._random = _Pool({**shared, **_RANDOM}, topic, _RANDOM_READERS)
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}  # as last seen; they never fall
        self._gaps: dict[int, tuple[int, int]] = {}  # partition: nothing to read from … up to …

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        """At most `limit` records from `start` on; [] at the end. Raises LogTruncated before the log's start."""
        start = self._behind_gap(partition, start)
        end = self._ends.get(partition, 0)
        if start >= end:
            end = self._ask_end(partition)
        if start >= end or limit < 1:
            return []
        try:
            with self._sequential.at(partition, start) as reader:
                found: list[Stored] = []
                while len(found) < limit and reader.next < end:
                    found += reader.take(limit - len(found), end)
                self._note_gap(partition, found[-1].offset + 1 if found else start, reader.next)
                if reader.next >= end:
                    reader.leave()
                return found
        except _OutOfRange:
            with self._lock:
                self._ends.pop(partition, None)
            self._check_start(partition, start)
            return []

    def fetch(self, wanted: Mapping[int, Collection[int]], near: int = 64) -> list[Stored]:
        """The records that exist at these offsets, in any order.

        near: read on instead of seeking to an offset this close. A seek takes about a millisecond, mostly waiting, so
        several readers share a large number of them.
        """
        if not wanted:
            return []
        ends = self._offsets.ends(sorted(wanted))
        runs = [
            (partition, run, ends[partition])
            for partition, offsets in wanted.items()
            for run in _runs(sorted({offset for offset in offsets if 0 <= offset < ends[partition]}), near)
        ]
        if len(runs) <= _ALONE:
            return [record for run in runs for record in self._run(*run)]
        parts = self._workers().map(lambda part: [r for run in part for r in self._run(*run)], _dealt(runs))
        return [record for part in parts for record in part]

    def _run(self, partition: int, run: Sequence[int], end: int) -> list[Stored]:
        """The records at ascending offsets that are close together; none before the log's start."""
        asked = set(run)
        found: list[Stored] = []
        try:
            with self._random.at(partition, run[0]) as reader:
                while reader.next <= run[-1]:
                    found += [each for each in reader.take(run[-1] + 1 - reader.next, end) if each.offset in asked]
                reader.leave()
        except _OutOfRange:
            start = self._offsets.starts([partition])[partition]
            later = [offset for offset in run if offset >= start]
            return self._run(partition, later, end) if run[0] < start and later else []
        return found

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_RANDOM_READERS, "kafka fetch")
            return self._threads

    def close(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        self._sequential.close()
        self._random.close()

    def _ask_end(self, partition: int) -> int:
        end = self._offsets.ends([partition])[partition]
        with self._lock:
            self._ends[partition] = end
        return end

    def _behind_gap(self, partition: int, start: int) -> int:
        first, behind = self._gaps.get(partition, (0, -1))
        return behind if first <= start < behind else start

    def _note_gap(self, partition: int, first: int, behind: int) -> None:
        if behind > first:
            self._gaps[partition] = (first, behind)

    def _check_start(self, partition: int, start: int) -> None:
        log_start = self._offsets.starts([partition])[partition]
        if start < log_start:
            raise LogTruncated(f"partition {partition} of the log begins at {log_start}: {start} has been removed")


def _dealt(runs: Sequence[_Run]) -> list[Sequence[_Run]]:
    """The runs, divided among the readers."""
    return [runs[first::_RANDOM_READERS] for first in range(_RANDOM_READERS)]


def _runs(wanted: Sequence[int], near: int) -> Iterator[list[int]]:
    """Ascending offsets, split where two are further apart than `near`."""
    run: list[int] = []
    for offset in wanted:
        if run and offset - run[-1] > near:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run


def _consumer_config(topic: str) -> dict[str, Any]:
    return {
        "group.id": f"{topic.rpartition('.')[0]}-log",  # required by the client, which only looks up its coordinator
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,  # delay of a read that ends in aborted records: rare, and then remembered
        "fetch.queue.backoff.ms": 5,  # 1,000 by default: after a full queue, a reader would pause for a second
        "fetch.error.backoff.ms": 50,
        "check.crcs": True,
    }
