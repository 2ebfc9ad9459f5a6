"""The log in Kafka where brokers, producers and settings misbehave. What it promises beside: tests/contract."""

import ctypes
import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from infra.adapters.kafka import topics as kafka_topics
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.kafka.producing import AckedProducer, Placed
from infra.app.settings import load
from schemas.errors import LogTruncated, ServiceFailed, StoreUnavailable, TooLarge
from schemas.ports import EventLog
from schemas.record import Pending, Stored, decode
from schemas.topics import EVENTS
from schemas.waits import UNREADABLE, isolate
from tests.kafka_broker import Cluster, Kafka
from tests.secure_kafka import SCRAM, SecureCluster

PARTITIONS = 4
WAIT_S = 30.0


def pending(partition: int, value: bytes) -> Pending:
    return Pending(partition.to_bytes(4, "big") + bytes(12), value)


def make_events(access: KafkaAccess, replication: int = 1, config: dict[str, str] | None = None) -> None:
    admin = AdminClient(access.confluent())
    topic = NewTopic(access.topic(EVENTS), PARTITIONS, replication, config=config or {})
    admin.create_topics([topic])[access.topic(EVENTS)].result(WAIT_S)


def read_all(log: EventLog, partition: int) -> list[Stored]:
    found: list[Stored] = []
    while more := log.read(partition, found[-1].offset + 1 if found else 0, 500):
        found += more
    return found


def everything(log: EventLog) -> dict[tuple[int, int], bytes]:
    return {(r.partition, r.offset): r.value for p in range(log.partitions) for r in read_all(log, p)}


@pytest.fixture
def access(kafka: Kafka) -> KafkaAccess:
    access = KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)
    make_events(access)
    return access


@pytest.fixture
def log(access: KafkaAccess) -> Iterator[KafkaLog]:
    with closing(KafkaLog(access, PARTITIONS, 1)) as log:
        yield log


def own_brokers() -> None:
    if os.environ.get("TOUCHFOLD_TEST_KAFKA"):
        pytest.skip("starts, stops and kills brokers of its own: unset TOUCHFOLD_TEST_KAFKA")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that a test may stop."""
    own_brokers()
    cluster = Cluster(tmp_path_factory.mktemp("one"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def standing(cluster: Cluster) -> Iterator[None]:
    """The broker stopped by SIGSTOP: connections stay open, nothing is answered."""
    node = cluster.nodes[0]
    assert node.process is not None, "it runs"
    cluster.pause(node)
    try:
        deadline = time.monotonic() + WAIT_S
        while Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
            assert time.monotonic() < deadline, "it does not stop"
        yield
    finally:
        cluster.go_on(node)


# --- what is in the log ------------------------------------------------------------------------------------------


def test_a_log_of_unknown_size_asks_the_brokers_and_begins_and_ends_where_they_say(access: KafkaAccess) -> None:
    with closing(KafkaLog(access)) as log:
        log.warm_up()
        assert (log.partitions, log.generation) == (PARTITIONS, 1)
        log.append([pending(2, b"x")])
        assert log.ends() == [0, 0, 1, 0]
        assert log.starts() == [0, 0, 0, 0]


def test_aborted_records_are_not_read_and_what_lies_behind_them_is(access: KafkaAccess, log: KafkaLog) -> None:
    [before] = log.append([pending(1, b"before")])
    with_transactions = Producer({**access.confluent(), "transactional.id": access.prefix})
    with_transactions.init_transactions(WAIT_S)
    with_transactions.begin_transaction()
    for number in range(50):
        with_transactions.produce(access.topic(EVENTS), f"aborted {number}".encode(), bytes(16), 1)
    with_transactions.flush(WAIT_S)
    with_transactions.abort_transaction(WAIT_S)
    [after] = log.append([pending(1, b"after")])
    deadline = time.monotonic() + WAIT_S
    while len(found := read_all(log, 1)) < 2:
        assert time.monotonic() < deadline, found
    assert found == [Stored(*before, b"before"), Stored(*after, b"after")]
    gap = range(before[1] + 1, after[1])
    assert len(gap) >= 50
    assert log.fetch([(1, offset) for offset in gap]) == []
    assert log.read(1, gap[7], 10) == [Stored(*after, b"after")]


def test_a_tombstone_is_a_record_of_nothing_at_its_place(access: KafkaAccess, log: KafkaLog) -> None:
    """Whoever writes one by hand: it is set aside as what nobody can read, and nothing behind it is lost."""
    [before] = log.append([pending(1, b"before")])
    producer = Producer(access.confluent())
    producer.produce(access.topic(EVENTS), None, bytes(16), 1)
    assert producer.flush(WAIT_S) == 0
    [after] = log.append([pending(1, b"after")])
    place = (1, before[1] + 1)
    assert after == (1, before[1] + 2)
    assert read_all(log, 1) == [Stored(*before, b"before"), Stored(*place, b""), Stored(*after, b"after")]
    assert log.fetch([place, after]) == [Stored(*place, b""), Stored(*after, b"after")]
    (bad,) = isolate(read_all(log, 1)[1:2], lambda record: decode(record.value)).bad
    assert (bad.record.offset, bad.rule) == (place[1], UNREADABLE)


def test_an_end_of_aborted_records_is_an_end(access: KafkaAccess, log: KafkaLog) -> None:
    [first] = log.append([pending(0, b"first")])
    with_transactions = Producer({**access.confluent(), "transactional.id": access.prefix})
    with_transactions.init_transactions(WAIT_S)
    with_transactions.begin_transaction()
    with_transactions.produce(access.topic(EVENTS), b"aborted", bytes(16), 0)
    with_transactions.flush(WAIT_S)
    with_transactions.abort_transaction(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while log.ends()[0] < 3:  # the record, and the mark behind it
        assert time.monotonic() < deadline, log.ends()
    assert log.read(0, 0, 10) == [Stored(*first, b"first")]
    assert log.read(0, 1, 10) == log.read(0, 2, 10) == log.read(0, 3, 10) == []
    [second] = log.append([pending(0, b"second")])
    assert log.read(0, 1, 10) == [Stored(*second, b"second")]


def test_a_reader_that_met_an_end_long_ago_skips_nothing_of_what_came_behind_it(log: KafkaLog) -> None:
    log.append([pending(0, str(number).encode()) for number in range(20)])
    begun = log.read(0, 0, 5)  # the consumer fetches on, to the end, and notes it
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        log.ends()
    log.append([pending(0, str(number).encode()) for number in range(20, 40)])
    assert len(log.read(0, 35, 10)) == 5  # another consumer; the end is known to be further now
    rest = log.read(0, 5, 15)
    rest += log.read(0, 20, 1)
    rest += log.read(0, 21, 100)
    assert [int(record.value) for record in begun + rest] == list(range(40))


def test_reading_below_the_logs_start_names_it(access: KafkaAccess, log: KafkaLog) -> None:
    positions = log.append([pending(3, str(number).encode()) for number in range(20)])
    assert len(log.read(3, 0, 5)) == 5
    admin = AdminClient(access.confluent())
    wanted = TopicPartition(access.topic(EVENTS), 3, 12)
    admin.delete_records([wanted])[wanted].result(WAIT_S)
    assert log.starts() == [0, 0, 0, 12]
    with closing(KafkaLog(access)) as new:
        with pytest.raises(LogTruncated, match=r"partition 3 .* begins at 12: 4 has been removed"):
            new.read(3, 4, 10)
        assert [record.offset for record in new.read(3, 12, 100)] == list(range(12, 20))
        assert sorted(record.offset for record in new.fetch(positions)) == list(range(12, 20))
        assert new.fetch([(3, 2), (3, 5)]) == []


def test_a_record_that_no_topic_takes_is_refused_before_anything_is_appended(log: KafkaLog) -> None:
    with pytest.raises(TooLarge):
        log.append([pending(0, b"small"), pending(0, bytes(4_000_001))])
    assert log.ends() == [0] * PARTITIONS


def test_a_missing_topic_says_what_to_run(kafka: Kafka) -> None:
    nowhere = KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)
    with closing(KafkaLog(nowhere, PARTITIONS, 1, ack_s=2.0)) as log:
        for call in (lambda: log.read(0, 0, 1), log.ends, lambda: KafkaLog(nowhere).partitions):
            with pytest.raises(StoreUnavailable, match="touchfold topics apply"):
                call()
        with pytest.raises(StoreUnavailable):
            log.append([pending(0, b"x")])


# --- many threads ------------------------------------------------------------------------------------------------


def test_partitions_that_a_first_answer_lacked_are_asked_for_anew(kafka: Kafka) -> None:
    """As a broker that just started may leave some out: the client kept that answer, and a worker stood still."""
    access = KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True)
    topic, admin = access.topic(EVENTS), AdminClient(access.confluent())
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(WAIT_S)
    with closing(KafkaLog(access, PARTITIONS, 1)) as log:
        with pytest.raises(StoreUnavailable, match="lacks partitions"):
            log.ends()
        admin.create_partitions([NewPartitions(topic, PARTITIONS)])[topic].result(WAIT_S)
        assert log.ends() == [0] * PARTITIONS
        assert log.fetch([(0, 0), (3, 0)]) == []
        log.append([pending(3, b"found")])
        assert [each.value for each in read_all(log, 3)] == [b"found"]


def test_eight_threads_append_each_in_its_order_while_others_read_and_fetch(log: KafkaLog) -> None:
    rounds = 40
    failures: list[BaseException] = []
    found: dict[tuple[int, int], bytes] = {}

    def write(writer: int) -> None:
        for number in range(rounds):
            batch = [pending(p, f"{writer}:{number}".encode()) for p in range(PARTITIONS)]
            for position, record in zip(log.append(batch), batch, strict=True):
                found[position] = record.value

    def read() -> None:
        for partition in range(PARTITIONS):
            seen = log.read(partition, 0, 100)
            assert [r.offset for r in seen] == sorted(r.offset for r in seen)
            assert sorted(log.fetch([(r.partition, r.offset) for r in seen[::7]])) == sorted(seen[::7])

    def guarded(call: Any, *arguments: int) -> None:
        try:
            call(*arguments)
        except BaseException as err:
            failures.append(err)
            raise

    threads = [threading.Thread(target=guarded, args=(write, number)) for number in range(8)]
    threads += [threading.Thread(target=guarded, args=(read,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert everything(log) == found
    for partition in range(PARTITIONS):
        order = [value.value.decode().split(":") for value in read_all(log, partition)]
        for writer in range(8):
            mine = [int(number) for name, number in order if int(name) == writer]
            assert mine == list(range(rounds))


# --- a producer that breaks --------------------------------------------------------------------------------------


def make_fatal(producer: Producer) -> None:
    """Raise a fatal error in librdkafka by the hook that it has for tests."""
    [path] = glob.glob(str(Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs" / "librdkafka-*.so*"))
    library = ctypes.CDLL(path)
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)  # its first field behind the header
    code = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert library.rd_kafka_test_fatal_error(handle.value, code, b"planted") == KafkaError.NO_ERROR


def test_a_producer_with_a_fatal_error_is_replaced_by_itself(log: KafkaLog, caplog: pytest.LogCaptureFixture) -> None:
    [first] = log.append([pending(0, b"first")])
    line = log._producer._line
    assert line is not None, "it appended"
    make_fatal(line.producer)
    deadline = time.monotonic() + WAIT_S
    while True:  # at most one append meets it
        try:
            [second] = log.append([pending(0, b"second")])
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it was not replaced"
    assert everything(log) == {first: b"first", second: b"second"}
    assert "planted" in caplog.text


def test_a_producer_that_gives_no_reports_is_replaced(one: Cluster, kafka: Kafka) -> None:
    access = KafkaAccess(one.bootstrap, prefix=kafka.prefix(), insecure=True)
    make_events(access)
    # told to wait for minutes, librdkafka gives no report while the broker stands: as one that hangs
    hanging = {**access.confluent(), "delivery.timeout.ms": 600_000, "request.timeout.ms": 300_000}
    hanging["socket.timeout.ms"] = 300_000
    record = [Placed(0, bytes(16), b"x")]
    with closing(AckedProducer(hanging, access.topic(EVENTS), 0.4, 2**20)) as producer:
        appended(producer, record)  # the first takes 0.5 s, until the brokers have given the producer an id
        first = producer._line
        with standing(one):
            deadline = time.monotonic() + WAIT_S
            while producer._line is first:
                assert time.monotonic() < deadline, "it was not replaced"
                with pytest.raises(StoreUnavailable):
                    producer.append(record)
        appended(producer, record)


def appended(producer: AckedProducer, records: list[Placed]) -> list[tuple[int, int]]:
    """Append until the brokers are back."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return producer.append(records)
        except StoreUnavailable:
            assert time.monotonic() < deadline, "it does not recover"


# --- brokers that are away ---------------------------------------------------------------------------------------


def test_without_acknowledgement_appends_fail_in_time_in_bounded_memory_and_recover(one: Cluster, kafka: Kafka) -> None:
    access = KafkaAccess(one.bootstrap, prefix=kafka.prefix(), insecure=True)
    make_events(access)
    value = bytes(10_000)
    answered: dict[tuple[int, int], bytes] = {}
    with closing(KafkaLog(access, PARTITIONS, 1, ack_s=1.5, buffer_mib=1)) as log:
        answered |= dict(zip(log.append([pending(0, b"before")]), [b"before"], strict=True))
        with standing(one):
            failures: list[tuple[float, StoreUnavailable]] = []

            def send(number: int) -> None:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable) as caught:
                    log.append([pending(number % 4, value)] * 8)
                failures.append((time.monotonic() - began, caught.value))

            threads = [threading.Thread(target=send, args=(number,)) for number in range(40)]  # 3 MB into 1
            for thread in threads:
                thread.start()
            assert log.waiting_bytes() <= 2**20
            for thread in threads:
                thread.join()
            assert len(failures) == 40
            assert all(error.retry_after_s for _, error in failures)
            assert max(took for took, _ in failures) < 1.5 + 2.0  # two shared cores
            refused = [error for _, error in failures if "fast enough" in error.message]
            assert refused, "what does not fit is refused at once"
            deadline = time.monotonic() + WAIT_S
            while log.waiting_bytes():  # what was answered with an error is dropped, not kept for later
                assert time.monotonic() < deadline, "records wait on"
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                answered |= dict(zip(log.append([pending(1, b"after")]), [b"after"], strict=True))
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline, "it does not recover"
        assert everything(log).items() >= answered.items()


def test_reads_fail_while_the_broker_is_away_and_recover(one: Cluster, kafka: Kafka) -> None:
    access = KafkaAccess(one.bootstrap, prefix=kafka.prefix(), insecure=True)
    make_events(access)
    with closing(KafkaLog(access, PARTITIONS, 1)) as log:
        positions = log.append([pending(0, b"kept")])
        with standing(one), ThreadPoolExecutor() as pool:
            calls: list[Callable[[], object]] = [lambda: log.read(0, 0, 1), log.ends, lambda: log.fetch(positions)]
            for asked in [pool.submit(call) for call in calls]:
                with pytest.raises(StoreUnavailable):
                    asked.result()
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                assert log.read(0, 0, 5) == log.fetch(positions) == [Stored(0, 0, b"kept")]
                return
            except StoreUnavailable:
                assert time.monotonic() < deadline, "it does not recover"


def test_nothing_acknowledged_is_lost_when_a_leader_is_killed(tmp_path: Path) -> None:
    own_brokers()
    cluster = Cluster(tmp_path / "three", nodes=3)
    try:
        cluster.start()
        access = KafkaAccess(cluster.bootstrap, prefix="three", insecure=True)
        make_events(access, 3, {"min.insync.replicas": "2"})
        acknowledged: dict[tuple[int, int], bytes] = {}
        stop = threading.Event()
        with closing(KafkaLog(access, PARTITIONS, 1, ack_s=5.0)) as log:

            def write(writer: int) -> None:
                number = 0
                while not stop.is_set():
                    batch = [pending(p, f"{writer}:{number}:{p}".encode()) for p in range(PARTITIONS)]
                    try:
                        acknowledged.update(zip(log.append(batch), [each.value for each in batch], strict=True))
                        number += 1
                    except StoreUnavailable:
                        continue  # the same again, as the door's senders do

            threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
            for thread in threads:
                thread.start()
            await_more(acknowledged, 200)
            cluster.kill(cluster.nodes[0])  # it leads some of the partitions
            await_more(acknowledged, 400)
            stop.set()
            for thread in threads:
                thread.join()
            found = everything(log)
        assert found.items() >= acknowledged.items()
        for partition in range(PARTITIONS):
            for writer in range(2):
                kept = [
                    v for k, v in sorted(found.items()) if k[0] == partition and v.startswith(f"{writer}:".encode())
                ]
                numbers = [int(value.split(b":")[1]) for value in dict.fromkeys(kept)]
                assert numbers == sorted(numbers), "a repeat is a second record; the first ones are in order"
    finally:
        cluster.stop()


def await_more(acknowledged: dict[tuple[int, int], bytes], count: int) -> None:
    wanted, deadline = len(acknowledged) + count, time.monotonic() + WAIT_S
    while len(acknowledged) < wanted:
        assert time.monotonic() < deadline, f"{len(acknowledged)} of {wanted}"
        time.sleep(0.02)


# --- TLS and passwords -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCluster]:
    own_brokers()
    cluster = SecureCluster(tmp_path_factory.mktemp("secure"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize("sasl", ["PLAIN", SCRAM])
def test_the_log_works_over_tls_with_certificate_and_password(secure: SecureCluster, sasl: str) -> None:
    access = secure.access(sasl.lower(), sasl)
    kafka_topics.apply(access, load({"TOUCHFOLD_KAFKA_REPLICATION": "1", "TOUCHFOLD_KAFKA_PARTITIONS": "4"}))
    with closing(KafkaLog(access)) as log:
        positions = log.append([pending(p, b"sealed") for p in range(4)])
        assert [record.value for record in log.fetch(positions)] == [b"sealed"] * 4
        assert log.read(2, 0, 10) == [Stored(2, 0, b"sealed")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong"}, "TOUCHFOLD_KAFKA_USERNAME"),
        ({"tls_ca": "of a stranger"}, "TOUCHFOLD_KAFKA_TLS_CA"),
        ({"tls_cert": None, "tls_key": None}, "_TLS_CERT"),
        ({"sasl": None, "username": None, "password": None}, "TOUCHFOLD_KAFKA_BOOTSTRAP.* TLS and SASL"),
    ],
)
def test_what_is_wrong_with_the_access_is_said(secure: SecureCluster, change: dict[str, Any], reason: str) -> None:
    stranger = secure.stranger("bad")
    wrong = stranger if "tls_ca" in change else replace(secure.access("bad"), **change)
    with pytest.raises((ServiceFailed, StoreUnavailable), match=reason):
        kafka_topics.describe(wrong, wrong.topic(EVENTS))
    with closing(KafkaLog(wrong, PARTITIONS, 1, ack_s=2.0)) as log, pytest.raises(StoreUnavailable, match=reason):
        log.append([pending(0, b"x")])
