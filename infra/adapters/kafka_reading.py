"""Reading a topic by position: a few consumers, each assigned to one partition at a time. No group, no commits.

Assigning anew costs 0.4–3 ms; a consumer that stands where the next read begins has fetched ahead meanwhile. So one
that was read from stays with its partition until another partition needs it, or the end was reached.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # without `as` in their stubs

from infra.adapters.kafka_trouble import NO_TOPIC, Trouble, shared_config, unavailable
from schemas.errors import LogTruncated, StoreUnavailable
from schemas.record import Stored

OffsetSpec: Final[Any] = _OffsetSpec  # its methods have no types
READ_S: Final = 10.0  # a read without one record for so long is an outage
OFFSETS_S: Final = 5.0
_RETRY_S: Final = 0.05
_NEW_S: Final = 1.0  # until every broker knows a topic that was just made
_AT_ONCE: Final = 10_000  # messages taken from librdkafka in one call
_SEQUENTIAL: Final[Mapping[str, Any]] = {
    "fetch.message.max.bytes": 1_048_576,
    "queued.max.messages.kbytes": 4_096,  # fetched ahead, for each consumer
}
_RANDOM: Final[Mapping[str, Any]] = {  # whole batches come anyway: nothing ahead of what was asked for
    "fetch.message.max.bytes": 16_384,
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1_024,
}
_log = logging.getLogger("touchfold.kafka")
_SOON: Final = frozenset(  # what passes by itself while leaders change
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._ALL_BROKERS_DOWN,
    }
)


class Offsets:
    """Where partitions begin and end. Any thread; opens nothing before the first question."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._config = config
        self._topic = topic
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._trouble = Trouble()

    def starts(self, partitions: Sequence[int]) -> dict[int, int]:
        """The first offset that is kept, of each."""
        return self._ask(partitions, OffsetSpec.earliest())

    def ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """The last stable offset of each: behind the last record that can be read, before any open transaction."""
        return self._ask(partitions, OffsetSpec.latest())

    def count(self) -> int:
        """How many partitions the topic has."""
        client = self._client()
        try:
            found = client.list_topics(self._topic, OFFSETS_S).topics[self._topic]
        except KafkaException as err:
            client.poll(0)  # calls `_trouble` with what happened meanwhile
            raise unavailable(err.args[0], self._topic, self._trouble) from err
        if found.error is not None:
            raise unavailable(found.error, self._topic, self._trouble)
        return len(found.partitions)

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                config: dict[str, Any] = {
                    **shared_config(),
                    **self._config,
                    "socket.timeout.ms": int(OFFSETS_S * 1_000),
                    "error_cb": self._trouble,
                }
                self._admin = AdminClient(config)
            return self._admin

    def _ask(self, partitions: Sequence[int], spec: Any) -> dict[int, int]:
        """One request to each leader. Waits a little while leaders change."""
        wanted = {TopicPartition(self._topic, partition): spec for partition in partitions}
        found: dict[int, int] = {}
        began = time.monotonic()
        while True:
            client = self._client()
            waited = time.monotonic() - began
            errors = self._gather(client, wanted, max(OFFSETS_S - waited, 0.5), found)
            wanted = {where: spec for where in wanted if where.partition not in found}
            if not wanted:
                return found
            waited = time.monotonic() - began
            soon = _SOON | NO_TOPIC if waited < _NEW_S else _SOON
            hard = next((error for error in errors if error.code() not in soon), None)
            if not all(error.code() in NO_TOPIC for error in errors):
                self._forget(client)
            if hard is not None or waited > OFFSETS_S:
                client.poll(0)  # calls `_trouble` with what happened meanwhile
                raise unavailable(hard or errors[0], self._topic, self._trouble)
            time.sleep(_RETRY_S)

    @staticmethod
    def _gather(
        client: AdminClient, wanted: dict[TopicPartition, Any], left_s: float, found: dict[int, int]
    ) -> list[KafkaError]:
        """Add to `found` what is answered; the errors of the rest."""
        errors: list[KafkaError] = []
        try:
            futures = client.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=left_s)
        except KafkaException as err:
            return [err.args[0]]
        for where, future in futures.items():
            try:
                offset = future.result(left_s + 1.0).offset
            except KafkaException as err:
                errors.append(err.args[0])
            except TimeoutError:
                errors.append(KafkaError(KafkaError._TIMED_OUT))
            else:
                if offset < 0:  # librdkafka 2.16 answers so, without an error, when a broker did not answer in time
                    errors.append(KafkaError(KafkaError._TIMED_OUT))
                else:
                    found[where.partition] = offset
        return errors

    def _forget(self, client: AdminClient) -> None:
        """librdkafka 2.16 asks with the leader's epoch as it once knew it, and is refused for ever after a change."""
        with self._lock:
            if self._admin is client:
                self._admin = None


class _Reader:
    """A consumer at a place of one partition. One thread at a time."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self.partition: int | None = None
        self.next = -1
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
        """Fetch nothing ahead any more."""
        self._consumer.unassign()
        self.partition, self.next = None, -1

    def take(self, most: int, end: int) -> list[Stored]:
        """From 1 to `most` records below `end`; [] when there is none, which moves the place to `end`.

        Raises StoreUnavailable, or _OutOfRange when the log does not have the place.
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
                    self._met(error, end)
                    continue
                offset = message.offset()
                assert offset is not None, "records that were read have one"
                found.append(Stored(partition, offset, message.value() or b""))
                self.next = offset + 1
        return found

    def _met(self, error: KafkaError, end: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self.next = max(self.next, end)
        elif code in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise _OutOfRange
        else:
            raise unavailable(error, self._topic, self._trouble)

    def close(self) -> None:
        self._consumer.close()


class _OutOfRange(Exception):
    """The log does not have the offset: below its start, or beyond its end."""


class _Pool:
    """At most `most` consumers; who finds none free waits."""

    def __init__(self, config: Mapping[str, Any], topic: str, most: int) -> None:
        self._config = config
        self._topic = topic
        self._most = most
        self._free: list[_Reader] = []  # least recently used first
        self._count = 0
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def at(self, partition: int, start: int) -> Iterator[_Reader]:
        """A reader at the place. One that met an error is not used again."""
        reader = self._take(partition, start)
        try:
            reader.go_to(partition, start)
            yield reader
        except BaseException:
            self._drop(reader)
            raise
        with self._changed:
            if not self._closed:
                self._free.append(reader)
                self._changed.notify()
                return
        self._drop(reader)

    def close(self) -> None:
        """Close what is free; what is in use is closed by who gives it back."""
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
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
                    raise StoreUnavailable("too many read Kafka's log at once", retry_after_s=1)
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
        """One that stands there, else one that stands nowhere, else the least used once no more may be made."""
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
    """Records of a topic's partitions by place, up to the last stable offset. Any thread."""

    def __init__(self, config: Mapping[str, Any], topic: str, offsets: Offsets, readers: int = 12) -> None:
        shared = {**shared_config(), **_consumer_config(), **config}
        self._offsets = offsets
        self._sequential = _Pool({**shared, **_SEQUENTIAL}, topic, readers)
        self._random = _Pool({**shared, **_RANDOM}, topic, 4)
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}  # as last seen; they only rise
        self._gaps: dict[int, tuple[int, int]] = {}  # partition: nothing to read from … up to …

    def read(self, partition: int, start: int, limit: int) -> list[Stored]:
        """At most `limit` from `start` on; [] at the end. Raises LogTruncated below the log's start."""
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

    def fetch(self, partition: int, offsets: Sequence[int], near: int = 64) -> list[Stored]:
        """Those of these offsets that are there. `near`: read on instead of going to an offset that is so close."""
        end = self._ask_end(partition)
        wanted = sorted({offset for offset in offsets if 0 <= offset < end})
        found: list[Stored] = []
        while wanted:
            try:
                for run in _runs(wanted, near):
                    found += self._run(partition, run, end)
                return found
            except _OutOfRange:
                start = self._offsets.starts([partition])[partition]
                after = found[-1].offset + 1 if found else 0
                wanted = [offset for offset in wanted if offset >= max(start, after)]
        return found

    def _run(self, partition: int, run: Sequence[int], end: int) -> list[Stored]:
        last, asked = run[-1], set(run)
        found: list[Stored] = []
        with self._random.at(partition, run[0]) as reader:
            while reader.next <= last:
                found += [each for each in reader.take(last + 1 - reader.next, end) if each.offset in asked]
            reader.leave()
        return found

    def close(self) -> None:
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
            raise LogTruncated(f"partition {partition} of the log begins at {log_start}: {start} is not kept any more")


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


def _consumer_config() -> dict[str, Any]:
    return {
        "group.id": "touchfold-log",  # the client demands one; no request ever carries it
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,  # how long a read takes that ends in aborted records: rare, and then known
        "fetch.queue.backoff.ms": 5,  # 1,000 by default: a reader of a full queue would then wait for a second
        "fetch.error.backoff.ms": 50,
        "check.crcs": True,
    }
