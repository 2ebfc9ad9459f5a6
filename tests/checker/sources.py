"""Where the checker reads the log from: the table `event_log`, or a Kafka topic through kafka-python.

Retention may have removed a topic's beginning; the archive's records are used instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from psycopg2.extensions import connection as Connection

from tests.checker.archive_files import archived

Position = tuple[int, int]  # (partition, offset)
_IDLE_MS = 2_000  # longest wait of one poll; a read ends at the end offsets of when it began


class Message(NamedTuple):
    """A record as stored in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None  # None: a tombstone


@dataclass
class LogRead:
    """A log at one instant. `gapless`: offsets have no gaps, and progress ends exactly at `heads`."""

    records: dict[Position, bytes] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)  # the offset after the last, by partition
    keys: dict[Position, bytes | None] = field(default_factory=dict)  # only of Kafka's records
    gapless: bool = True


class Source(Protocol):
    """Reads the whole log; `connection` is the one that also reads the tables, in the same transaction."""

    def read(self, connection: Connection) -> LogRead: ...


@dataclass(frozen=True)
class ReadBefore:
    """A log that was already read; the tests corrupt a copy of it."""

    log: LogRead

    def read(self, connection: Connection) -> LogRead:
        return self.log


class TableSource:
    """The log of the embedded mode."""

    def read(self, connection: Connection) -> LogRead:
        with connection.cursor() as cursor:
            cursor.execute('select partition, "offset", value from event_log')
            records = {(partition, offset): bytes(value) for partition, offset, value in cursor.fetchall()}
            cursor.execute("select partition, next_offset from log_head")
            return LogRead(records, dict(cursor.fetchall()))


@dataclass(frozen=True)
class KafkaSource:
    """The log of the cluster mode. `options`: more arguments for kafka-python's clients (TLS, SASL)."""

    bootstrap: str
    topic: str
    archive: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, connection: Connection) -> LogRead:
        """All partitions of the topic, but only committed records."""
        starts, ends = bounds(self.bootstrap, self.topic, self.options)
        found = LogRead(heads=ends, gapless=False)
        for message in messages(self.bootstrap, self.topic, self.options):
            position = message.partition, message.offset
            found.records[position] = message.value or b""
            found.keys[position] = message.key
        if self.archive is not None:
            for position, value in archived(self.archive):
                if position[1] < starts.get(position[0], 0):
                    found.records[position] = value
        return found


def bounds(bootstrap: str, topic: str, options: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, int]]:
    """By partition: the first offset left by retention, and the one after the last committed record."""
    with closing(_consumer(bootstrap, options)) as consumer:
        parts = _assign(consumer, topic)
        starts, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        return (
            {each.partition: int(at) for each, at in starts.items()},
            {each.partition: int(at) for each, at in ends.items()},
        )


def messages(bootstrap: str, topic: str, options: Mapping[str, Any] = {}) -> Iterator[Message]:  # not written
    """Every committed record of a topic, from its start to its current end, in order per partition."""
    with closing(_consumer(bootstrap, options)) as consumer:
        parts = _assign(consumer, topic)
        ends = consumer.end_offsets(parts)
        consumer.seek_to_beginning(*parts)
        open_ = {part for part in parts if ends[part] > consumer.position(part)}
        while open_:
            for part, records in consumer.poll(timeout_ms=_IDLE_MS).items():
                for each in records:
                    if each.offset < ends[part]:
                        yield Message(part.partition, each.offset, each.key, each.value)
            open_ = {part for part in open_ if consumer.position(part) < ends[part]}  # also moves past markers


def _consumer(bootstrap: str, options: Mapping[str, Any]) -> Any:
    from kafka import KafkaConsumer  # noqa: PLC0415  # 0.5 s that the embedded mode need not pay

    return KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=30_000,
        **options,
    )


def _assign(consumer: Any, topic: str) -> list[Any]:
    from kafka import TopicPartition  # noqa: PLC0415  # as above

    numbers: Iterable[int] | None = consumer.partitions_for_topic(topic)
    if not numbers:
        raise LookupError(f"there is no topic {topic}")
    parts = [TopicPartition(topic, number) for number in sorted(numbers)]
    consumer.assign(parts)
    return parts
