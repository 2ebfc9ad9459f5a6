"""Appends records to given partitions of one topic, acknowledged by all in-sync replicas; memory and waits are bounded.

librdkafka does the work in its own threads. This module adds one report object per append (no future per record), a
memory limit for waiting records, a deadline, and the replacement of a broken producer.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.adapters.kafka.trouble import Trouble, shared_config, unavailable
from schemas.errors import StoreUnavailable, TooLarge
from schemas.failpoints import failpoint

MAX_RECORD_BYTES: Final = 4_000_000  # below the topic's max.message.bytes, which counts the batch around it
RECORD_OVERHEAD: Final = 256  # bytes that librdkafka and our callback keep for a waiting record, besides its own
RETIRED_LIMIT: Final = 2  # broken producers with threads still running; above this, no records are accepted
_POLL_S: Final = 0.25
_LEARN_S: Final = 5.0
_log = logging.getLogger("touchfold.kafka")


class Placed(NamedTuple):
    """A record for a partition."""

    partition: int
    key: bytes
    value: bytes


class _Reports:
    """The delivery reports of one append. Called by librdkafka's poll, in the producer's one thread."""

    __slots__ = ("done", "error", "expected", "line", "offsets", "reported", "since", "size")

    def __init__(self, line: "_Line", count: int, size: int) -> None:
        self.line = line
        self.expected = count
        self.reported = 0  # written only by the reports thread
        self.size = size
        self.since = time.monotonic()
        self.offsets: dict[int, list[int]] = {}
        self.error: KafkaError | None = None
        self.done = threading.Event()

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        offset, partition = message.offset(), message.partition()
        if error is not None:
            self.error = error
        elif offset is None or offset < 0 or partition is None:  # a retry of a record that was already stored
            self.error = KafkaError(KafkaError._NO_OFFSET, "stored, but the broker does not know where any more")
        else:
            self.offsets.setdefault(partition, []).append(offset)
        self.reported += 1
        if self.reported == self.expected:
            self.line.settled(self)

    def stopped(self, given: int) -> None:
        """Only `given` records were handed over, so no more reports will come."""
        self.expected = given
        if self.reported == given:
            self.line.settled(self)

    def positions(self, records: Sequence[Placed]) -> list[tuple[int, int]]:
        """The position of each record. Within a partition, offsets rise in the order of the records."""
        ordered = {partition: iter(sorted(offsets)) for partition, offsets in self.offsets.items()}
        return [(record.partition, next(ordered[record.partition])) for record in records]


class _Line:
    """One librdkafka producer with the thread that serves its reports."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.trouble = Trouble()
        self._lock = threading.Lock()
        self._open: dict[_Reports, None] = {}  # appends waiting for reports, oldest first
        self._bytes = 0
        self._ending = threading.Event()
        self.producer = Producer({**config, "error_cb": self.trouble, "logger": _log})
        self._thread = threading.Thread(target=self._serve, name="kafka reports", daemon=True)
        self._thread.start()

    def admit(self, records: Sequence[Placed], room: int) -> _Reports | None:
        """Reports for these records, or None if they do not fit in addition to what is waiting."""
        size = sum([len(record.value) for record in records]) + len(records) * RECORD_OVERHEAD
        with self._lock:
            if self._bytes and self._bytes + size > room:
                return None
            reports = _Reports(self, len(records), size)
            self._open[reports] = None
            self._bytes += size
            return reports

    def settled(self, reports: _Reports) -> None:
        """All of its reports have come, or never will."""
        with self._lock:
            if self._open.pop(reports, self) is None:
                self._bytes -= reports.size
        reports.done.set()

    def oldest_s(self) -> float:
        """How long the oldest append has been waiting for its reports."""
        with self._lock:
            first = next(iter(self._open), None)
        return 0.0 if first is None else time.monotonic() - first.since

    def waiting_bytes(self) -> int:
        """Memory used by records without a report."""
        return self._bytes

    def retire(self, reason: str) -> threading.Thread:
        """Fail what is waiting, drop the queue, end the threads; runs in a thread, because it may hang."""
        with self._lock:
            left = list(self._open)
        for reports in left:
            reports.error = reports.error or KafkaError(KafkaError._PURGE_QUEUE, reason)
            self.settled(reports)
        thread = threading.Thread(target=self._end, name="kafka retired", daemon=True)
        thread.start()
        return thread

    def _end(self) -> None:
        self.producer.purge(blocking=False)
        self._ending.set()
        self._thread.join()
        with suppress(KafkaException):  # a fatal error is reported again
            self.producer.flush(1.0)  # the reports of purged records, which hold the memory
        del self.producer

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                self.producer.poll(_POLL_S)
            except KafkaException as err:  # fatal: `trouble` may not know, since no callback is called then
                self.trouble.fatal = self.trouble.fatal or str(err.args[0])
            except Exception:  # from a callback: later reports must still be served
                _log.exception("a delivery report could not be handled")


class AckedProducer:
    """Any thread may append. Opens nothing before the first append.

    ack_s: how long an append waits. After that its records are dropped from the queue instead of being sent once the
    brokers are back: what was reported as failed should not appear minutes later, and the queue stays bounded.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, ack_s: float, room_bytes: int) -> None:
        self._config = {**producer_config(ack_s, room_bytes), **config}
        self._topic = topic
        self._ack_s = ack_s
        self._room = room_bytes
        self._patience_s = 1.5 * ack_s + 5.0  # librdkafka gives up after ack_s + 1 s; longer means it is stuck
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._retired: list[threading.Thread] = []
        self._closed = False

    def append(self, records: Sequence[Placed]) -> list[tuple[int, int]]:
        """The (partition, offset) of each. More than half the room is sent in parts, one after the other.

        Raises StoreUnavailable: none, some or all of them may be in the log. TooLarge: none is.
        """
        _check(records)
        deadline = time.monotonic() + self._ack_s
        positions: list[tuple[int, int]] = []
        for part in _parts(records, self._room // 2):
            positions += self._append(part, deadline)
        return positions

    def open(self) -> None:
        """Start connecting: the brokers take half a second to give a producer its id. Does not wait."""
        self._current()

    def learn_partitions(self) -> None:
        """Call when the topic has gained partitions: librdkafka refuses records for a partition it does not know."""
        line = self._line
        if line is not None:
            try:
                line.producer.list_topics(self._topic, _LEARN_S)
            except KafkaException as err:
                raise unavailable(err.args[0], self._topic, line.trouble) from err

    def waiting_bytes(self) -> int:
        """Memory used by all records without a report."""
        line = self._line
        return line.waiting_bytes() if line else 0

    def close(self) -> None:
        """Waiting appends fail. Idempotent."""
        with self._lock:
            self._closed = True
            line, self._line = self._line, None
            if line is not None:
                self._retired.append(line.retire("the log was closed"))
            retired = list(self._retired)
        for thread in retired:
            thread.join(2.0)

    def _append(self, records: Sequence[Placed], deadline: float) -> list[tuple[int, int]]:
        line = self._current()
        reports = line.admit(records, self._room)
        if reports is None:
            raise StoreUnavailable(f"Kafka does not take records fast enough{line.trouble.because()}", retry_after_s=2)
        self._produce(line, reports, records)
        failpoint("log.before_commit")
        if not reports.done.wait(max(deadline - time.monotonic(), 0.001)):
            raise StoreUnavailable(
                f"Kafka did not acknowledge within {self._ack_s:g} s{line.trouble.because()}", retry_after_s=2
            )
        error = reports.error
        if error is not None:
            if line.trouble.fatal or error.fatal():
                self._replace(line, line.trouble.fatal or error.str())
            raise unavailable(error, self._topic, line.trouble)
        return reports.positions(records)

    def _produce(self, line: _Line, reports: _Reports, records: Sequence[Placed]) -> None:
        """Pass the records to librdkafka. What it refuses gets its report here."""
        produce, topic = line.producer.produce, self._topic
        given = 0
        try:
            for partition, key, value in records:
                produce(topic, value, key, partition, reports)
                given += 1
        except (BufferError, KafkaException) as err:
            known = err.args[0] if isinstance(err, KafkaException) else KafkaError(KafkaError._QUEUE_FULL)
            reports.error = known
            reports.stopped(given)
            if line.trouble.fatal or known.fatal() or known.code() == KafkaError._FATAL:
                self._replace(line, known.str())
            raise unavailable(known, topic, line.trouble) from err

    def _current(self) -> _Line:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the log was closed")
            line = self._line
        if line is not None and line.trouble.fatal is None and line.oldest_s() <= self._patience_s:
            return line
        if line is not None:
            self._replace(line, line.trouble.fatal or f"no delivery report for {self._patience_s:.0f} s")
        with self._lock:
            self._retired = [thread for thread in self._retired if thread.is_alive()]
            if len(self._retired) > RETIRED_LIMIT:
                raise StoreUnavailable("Kafka's client keeps hanging: restart the process", retry_after_s=5)
            if self._line is None:
                self._line = _Line(self._config)
            return self._line

    def _replace(self, line: _Line, reason: str) -> None:
        with self._lock:
            if self._line is not line:
                return
            self._line = None
            self._retired.append(line.retire(reason))
        _log.error("replacing the Kafka producer: %s", reason)


def producer_config(ack_s: float, room_bytes: int) -> dict[str, Any]:
    """librdkafka's settings. No linger: the door sends whole batches, and a single record takes 0.4 ms instead of 5.

    lz4 costs 2 µs per record of 690 bytes in batches of 1,000; zstd at level 1 costs 3 (none: 0).
    """
    ack_ms = max(int(ack_s * 1_000), 100)
    return shared_config() | {
        "acks": "all",
        "enable.idempotence": True,  # in order, once per producer: five requests in flight, retried indefinitely …
        "delivery.timeout.ms": ack_ms,  # … within this time
        "request.timeout.ms": ack_ms,
        "socket.timeout.ms": max(ack_ms, 1_000),
        "socket.connection.setup.timeout.ms": min(max(ack_ms, 1_000), 5_000),
        "socket.nagle.disable": True,
        "retry.backoff.ms": 50,
        "linger.ms": 0,
        "compression.type": "lz4",
        "message.max.bytes": MAX_RECORD_BYTES + 1_000,
        # Our own bound (`room`) refuses whole batches; these limits are a second line of defence.
        "queue.buffering.max.kbytes": max(2 * room_bytes // 1_024, 16_384),
        "queue.buffering.max.messages": 10_000_000,
    }


def _check(records: Sequence[Placed]) -> None:
    """Checked before anything is handed over: a batch is sent completely or not at all."""
    for _, key, value in records:
        if not isinstance(value, bytes) or not isinstance(key, bytes):
            raise TypeError(f"key and value are bytes, not {type(key).__name__} and {type(value).__name__}")
        if len(value) > MAX_RECORD_BYTES:
            raise TooLarge(f"a record of {len(value)} bytes: Kafka's topic accepts up to {MAX_RECORD_BYTES}")


def _parts(records: Sequence[Placed], most_bytes: int) -> Iterator[Sequence[Placed]]:
    """Slices of at most `most_bytes`, or of one record."""
    first = size = 0
    for index, record in enumerate(records):
        one = len(record.value) + RECORD_OVERHEAD
        if size + one > most_bytes and index > first:
            yield records[first:index]
            first, size = index, 0
        size += one
    if first < len(records):
        yield records[first:]
