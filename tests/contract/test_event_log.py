"""The promises of `EventLog` (design C13), for every adapter: an adapter joins by one more factory in FACTORIES."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import psycopg2
import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.postgres.log import PARTITIONS, PostgresLog
from schemas.log_range import records_between
from schemas.ports import EventLog
from schemas.record import Pending, Stored, partition_of
from schemas.topics import EVENTS
from tests.conftest import Databases
from tests.kafka_broker import Kafka

WAIT_S = 20.0


class Delayed(Protocol):
    """An append whose offsets are taken and whose records are not visible yet."""

    def finish(self) -> list[tuple[int, int]]: ...


class Logs(Protocol):
    """One log of an adapter: more clients of it, and an append that is held back before it becomes visible."""

    def open(self) -> EventLog: ...

    def delay(self, batch: list[Pending]) -> Delayed: ...


class _HeldAppend:
    """Runs an append in a thread until it waits for the row that `_PostgresLogs.delay` holds."""

    def __init__(self, log: EventLog, batch: list[Pending], release: Callable[[], None]) -> None:
        self._found: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=lambda: self._found.extend(log.append(batch)))
        self._release = release
        self._thread.start()

    def finish(self) -> list[tuple[int, int]]:
        self._release()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the delayed append did not end"
        return self._found


class _PostgresLogs:
    """PostgreSQL: a lock on the table of one partition holds the COPY back after its offsets were reserved."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._opened: list[PostgresLog] = []

    def open(self) -> EventLog:
        self._opened.append(PostgresLog(self._dsn))
        return self._opened[-1]

    def delay(self, batch: list[Pending]) -> Delayed:
        partition = partition_of(batch[0].key, self.open().partitions)
        blocker = psycopg2.connect(self._dsn)
        blocker.cursor().execute(f"lock table event_log_{partition} in share row exclusive mode")

        def release() -> None:
            blocker.rollback()
            blocker.close()

        held = _HeldAppend(self.open(), batch, release)
        self._await_waiter()
        return held

    def _await_waiter(self) -> None:
        """Until the append waits for our lock: then its offsets are reserved."""
        watcher = psycopg2.connect(self._dsn)
        watcher.autocommit = True
        cursor = watcher.cursor()
        deadline = threading.Event()
        timer = threading.Timer(WAIT_S, deadline.set)
        timer.start()
        try:
            while not deadline.is_set():
                cursor.execute("select count(*) from pg_locks where not granted and relation is not null")
                row = cursor.fetchone()
                if row is not None and row[0]:
                    return
            pytest.fail("the append never waited")
        finally:
            timer.cancel()
            watcher.close()

    def close(self) -> None:
        for log in self._opened:
            log.close()


def _postgres(request: pytest.FixtureRequest) -> Iterator[Logs]:
    databases: Databases = request.getfixturevalue("databases")
    logs = _PostgresLogs(databases.main)
    yield logs
    logs.close()


class _HeldTransaction:
    """Records of a producer whose transaction is open: stored and acknowledged, and not visible."""

    def __init__(self, access: KafkaAccess, batch: list[Pending], log: EventLog) -> None:
        self._found: list[tuple[int, int]] = []
        self._log = log
        self._producer = Producer({**access.confluent(), "transactional.id": f"{access.prefix}-held"})
        self._producer.init_transactions(WAIT_S)
        self._producer.begin_transaction()
        for key_, value in batch:
            partition = partition_of(key_, PARTITIONS)
            self._producer.produce(access.topic(EVENTS), value, key_, partition, on_delivery=self._delivered)
        assert self._producer.flush(WAIT_S) == 0, "the records were not acknowledged"

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        assert error is None, error
        assert partition is not None, "it was given"
        assert offset is not None, "it was stored"
        self._found.append((partition, offset))

    def finish(self) -> list[tuple[int, int]]:
        """Commit. The brokers answer before they have marked the partitions: wait for what the marks make visible."""
        self._producer.commit_transaction(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while len(self._log.fetch(self._found)) < len(self._found):
            assert time.monotonic() < deadline, "the committed records do not become visible"
        return self._found


class _KafkaLogs:
    """Kafka: an open transaction of another producer holds back what is read behind it (last stable offset)."""

    def __init__(self, access: KafkaAccess) -> None:
        self._access = access
        self._opened: list[KafkaLog] = []

    def open(self) -> EventLog:
        self._opened.append(KafkaLog(self._access, PARTITIONS, 1))
        return self._opened[-1]

    def delay(self, batch: list[Pending]) -> Delayed:
        return _HeldTransaction(self._access, batch, self.open())

    def close(self) -> None:
        for log in self._opened:
            log.close()


def _kafka(request: pytest.FixtureRequest) -> Iterator[Logs]:
    broker: Kafka = request.getfixturevalue("kafka")
    access = KafkaAccess(broker.bootstrap, prefix=broker.prefix(), insecure=True)
    admin = AdminClient(access.confluent())
    admin.create_topics([NewTopic(access.topic(EVENTS), PARTITIONS, 1)])[access.topic(EVENTS)].result(WAIT_S)
    logs = _KafkaLogs(access)
    yield logs
    logs.close()


FACTORIES: dict[str, Callable[[pytest.FixtureRequest], Iterator[Logs]]] = {"postgres": _postgres, "kafka": _kafka}


@pytest.fixture(params=list(FACTORIES))
def logs(request: pytest.FixtureRequest) -> Iterator[Logs]:
    yield from FACTORIES[request.param](request)


@pytest.fixture
def log(logs: Logs) -> EventLog:
    return logs.open()


def key(partition: int, number: int = 0) -> bytes:
    """A route key that goes to a partition of four."""
    return (partition + 4 * number).to_bytes(4, "big") + bytes(12)


def batch(partition: int, *values: str) -> list[Pending]:
    return [Pending(key(partition), value.encode()) for value in values]


def read_all(log: EventLog, partition: int, limit: int = 1_000) -> list[Stored]:
    return log.read(partition, 0, limit)


def values(records: list[Stored]) -> list[str]:
    return [record.value.decode() for record in records]


def test_a_new_log_is_empty_and_ends_at_its_start(log: EventLog) -> None:
    assert log.ends() == [0] * log.partitions
    assert all(read_all(log, partition) == [] for partition in range(log.partitions))
    assert log.append([]) == []


def test_append_answers_the_position_of_each_record_in_the_order_given(log: EventLog) -> None:
    pendings = [Pending(key(number % 4, number), str(number).encode()) for number in range(40)]
    positions = log.append(pendings)
    assert [partition for partition, _ in positions] == [partition_of(p.key, log.partitions) for p in pendings]
    found = {(r.partition, r.offset): r.value for p in range(log.partitions) for r in read_all(log, p)}
    assert [found[position] for position in positions] == [p.value for p in pendings]


def test_offsets_rise_inside_a_partition_across_appends(log: EventLog) -> None:
    first = log.append(batch(1, "a", "b"))
    second = log.append(batch(1, "c"))
    offsets = [offset for _, offset in first + second]
    assert offsets == sorted(set(offsets))
    assert values(read_all(log, 1)) == ["a", "b", "c"]


def test_reading_from_an_offset_neither_repeats_nor_loses(log: EventLog) -> None:
    log.append(batch(2, *[str(number) for number in range(25)]))
    got: list[Stored] = []
    start = 0
    while records := log.read(2, start, 4):
        assert len(records) <= 4
        got += records
        start = records[-1].offset + 1
    assert values(got) == [str(number) for number in range(25)]
    assert log.read(2, start, 4) == []
    assert log.read(2, got[10].offset, 1) == [got[10]], "the start itself belongs to the answer"


def test_values_come_back_byte_for_byte(log: EventLog) -> None:
    odd = [b"", b"\x00\xff\\x41'\"\n", "ü€😀".encode(), bytes(range(256)) * 200]
    log.append([Pending(key(0), value) for value in odd])
    assert [record.value for record in read_all(log, 0)] == odd


def test_a_repeat_is_a_second_record(log: EventLog) -> None:
    log.append(batch(0, "same"))
    log.append(batch(0, "same"))
    assert values(read_all(log, 0)) == ["same", "same"]


def test_fetch_gives_the_named_positions_and_leaves_out_what_is_missing(log: EventLog) -> None:
    positions = log.append([*batch(0, "a", "b", "c"), *batch(3, "d")])
    wanted = [positions[3], positions[1], (0, 10_000), (2, 0)]
    found = {(record.partition, record.offset): record.value for record in log.fetch(wanted)}
    assert found == {positions[3]: b"d", positions[1]: b"b"}
    assert log.fetch([]) == []


def test_ends_are_after_the_last_visible_record(log: EventLog) -> None:
    positions = log.append([*batch(0, "a", "b"), *batch(2, "c")])
    ends = log.ends()
    assert ends[0] == positions[1][1] + 1
    assert ends[2] == positions[2][1] + 1
    assert (ends[1], ends[3]) == (0, 0)


def test_what_append_returned_is_there_for_a_new_client(logs: Logs, log: EventLog) -> None:
    positions = log.append(batch(1, "kept"))
    assert [record.value for record in logs.open().fetch(positions)] == [b"kept"]


def test_a_reader_never_passes_an_offset_that_is_still_to_become_visible(logs: Logs, log: EventLog) -> None:
    log.append(batch(1, "before"))
    held = logs.delay(batch(1, "slow"))
    second = logs.open()
    overtaking = threading.Thread(target=lambda: second.append(batch(1, "fast")))
    overtaking.start()
    try:
        start, seen = 0, []
        for _ in range(20):
            records = log.read(1, start, 10)
            seen += values(records)
            start = records[-1].offset + 1 if records else start
        assert seen == ["before"], "nothing beyond an append in flight is visible"
        assert log.ends()[1] == start
    finally:
        held.finish()
        overtaking.join(WAIT_S)
    rest = values(log.read(1, start, 10))
    assert sorted(rest) == ["fast", "slow"], "a reader that went on from its offset loses nothing"


def test_a_delayed_append_of_one_partition_holds_up_no_other(logs: Logs, log: EventLog) -> None:
    held = logs.delay(batch(1, "slow"))
    try:
        log.append(batch(2, "fast"))
        assert values(read_all(log, 2)) == ["fast"]
    finally:
        held.finish()
    assert values(read_all(log, 1)) == ["slow"]


@pytest.mark.parametrize("writers", [2, 4])
def test_readers_beside_writers_see_every_record_once_and_in_order(logs: Logs, writers: int) -> None:
    per_writer, reader = 60, logs.open()
    failures: list[BaseException] = []

    def write(writer: int, log: EventLog) -> None:
        try:
            for number in range(per_writer):
                both = [Pending(key(p, writer), f"{writer}:{number}".encode()) for p in (0, 3)]
                log.append(both if number % 2 else both[::-1])  # in either order: two writers never deadlock
        except BaseException as err:
            failures.append(err)
            raise

    threads = [threading.Thread(target=write, args=(writer, logs.open())) for writer in range(writers)]
    for thread in threads:
        thread.start()
    seen: dict[int, list[str]] = {0: [], 3: []}
    starts = {0: 0, 3: 0}
    while True:
        alive = any(thread.is_alive() for thread in threads)
        for partition in seen:
            records = reader.read(partition, starts[partition], 7)
            while records:
                seen[partition] += values(records)
                starts[partition] = records[-1].offset + 1
                records = reader.read(partition, starts[partition], 7)
        if not alive:
            break
    for thread in threads:
        thread.join()
    assert failures == []
    for got in seen.values():
        assert len(got) == len(set(got)) == writers * per_writer
        for writer in range(writers):
            mine = [int(value.split(":")[1]) for value in got if value.startswith(f"{writer}:")]
            assert mine == list(range(per_writer)), "one writer's records keep their order"


def test_a_failed_append_leaves_nothing_visible(logs: Logs, log: EventLog) -> None:
    bad: Any = [Pending(key(1), b"good"), Pending(key(1), None)]  # type: ignore[arg-type]  # what no door sends
    with pytest.raises((TypeError, AttributeError)):
        log.append([*bad, Pending(key(1), 5)])  # type: ignore[arg-type]  # not bytes: fails before the commit
    assert read_all(log, 1) == []
    log.append(batch(1, "next"))
    assert values(read_all(logs.open(), 1)) == ["next"]


def test_a_read_of_postgresql_is_bounded_in_bytes_and_large_records_are_read_all_the_same(
    databases: Databases,
) -> None:
    log = PostgresLog(databases.main)
    key = bytes(16)
    large = [Pending(key, bytes([65 + n]) * 12_000_000) for n in range(5)]
    log.append(large)
    partition = partition_of(key, PARTITIONS)
    first = log.read(partition, 0, 1_000)
    assert [len(each.value) for each in first] == [12_000_000] * 3, "the third begins within 32 MiB"
    assert [each.offset for part in records_between(log, partition, 0, 5, 1_000) for each in part] == [0, 1, 2, 3, 4]
    assert len(log.read(partition, 0, 1)) == 1
    log.close()
