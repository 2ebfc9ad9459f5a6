"""The log that is whole: archive first, the log's tail after it, over PostgreSQL's log and over a real broker."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from infra.adapters.archive.archived_log import ArchivedLog
from infra.adapters.archive.manifest import MANIFEST
from infra.adapters.archive.reader import ArchiveReader
from infra.adapters.archive.store import ParquetArchive, archive_at
from infra.adapters.kafka.access import KafkaAccess
from infra.adapters.kafka.log import KafkaLog
from infra.adapters.postgres.log import PostgresLog
from processors.archive.archiver import Archiver
from schemas.errors import ArchiveDamaged, LogTruncated
from schemas.ports import EventLog
from schemas.record import Stored
from schemas.topics import EVENTS
from tests.archive_data import pending, record
from tests.conftest import Databases
from tests.integration.test_archive import FixedClock
from tests.kafka_broker import Kafka
from tests.object_store import CREDENTIALS

PARTITIONS: Final = 3
pytestmark = pytest.mark.filterwarnings("ignore:open_text is deprecated:DeprecationWarning")  # kafka-python, at import


class Topic:
    """An events topic of its own: filled through the product's log, cut short through another library."""

    def __init__(self, access: KafkaAccess) -> None:
        from kafka import KafkaAdminClient  # noqa: PLC0415  # 0.5 s that other tests need not pay
        from kafka.admin import NewTopic  # noqa: PLC0415

        self.access = access
        self.name = access.topic(EVENTS)
        self._admin = KafkaAdminClient(**access.kafka_python())
        self._admin.create_topics([NewTopic(self.name, PARTITIONS, 1)])
        self.log = self.open()

    def open(self) -> KafkaLog:
        return KafkaLog(self.access, PARTITIONS, 1)

    def delete_below(self, offsets: Mapping[int, int]) -> None:
        """What retention does."""
        from kafka import TopicPartition  # noqa: PLC0415

        self._admin.delete_records({TopicPartition(self.name, part): offset for part, offset in offsets.items()})

    def transaction(self, partition: int, values: Sequence[bytes], *, commit: bool) -> None:
        """One offset for each value and one for its marker; returns when that is there."""
        end = self.log.ends()[partition] + len(values) + 1
        producer = Producer({**self.access.confluent(), "transactional.id": f"{self.name} {partition}"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.name, value, bytes(16), partition)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
        producer.close()
        deadline = time.monotonic() + 30
        while self.log.ends()[partition] < end:
            assert time.monotonic() < deadline, "the transaction does not end"

    def close(self) -> None:
        self.log.close()
        self._admin.close()


@pytest.fixture
def topic(kafka: Kafka) -> Iterator[Topic]:
    topic = Topic(KafkaAccess(kafka.bootstrap, prefix=kafka.prefix(), insecure=True))
    yield topic
    topic.close()


@pytest.fixture(params=["postgres", "kafka"])
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    if request.param == "kafka":
        yield request.getfixturevalue("topic").log
        return
    databases: Databases = request.getfixturevalue("databases")
    log = PostgresLog(databases.main)
    yield log
    log.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ParquetArchive]:
    archive = ParquetArchive(tmp_path / "archive")
    yield archive
    archive.close()


def fill(log: EventLog, first: int, count: int) -> None:
    log.append(pending([record(number, f"c {number % 97}") for number in range(first, first + count)]))


def archive_until(log: EventLog, archive: ParquetArchive, until: list[int], min_rows: int = 60) -> None:
    Archiver(log, archive, FixedClock(), lambda: until, "EUR", min_rows=min_rows, gaps=True).flush()


def opened(log: EventLog, archive: ParquetArchive, **options: Any) -> ArchivedLog:
    return ArchivedLog(log, ArchiveReader(ParquetArchive(archive.folder), **options))


def all_of(log: EventLog, limit: int = 1_000) -> list[Stored]:
    """Everything, as a rebuild reads it."""
    found: list[Stored] = []
    for partition in range(log.partitions):
        at = 0
        while records := log.read(partition, at, limit):
            found += records
            at = records[-1].offset + 1
    return found


def truth_of(log: EventLog) -> list[Stored]:
    return all_of(log, 10_000)


# ---------------------------------------------------------------- both logs


@pytest.mark.parametrize("limit", [1, 7, 60, 1_000])
def test_everything_is_read_once_across_the_border(log: EventLog, archive: ParquetArchive, limit: int) -> None:
    fill(log, 0, 300 if limit == 1 else 900)
    truth = truth_of(log)
    archive_until(log, archive, [end * 2 // 3 for end in log.ends()])
    whole = opened(log, archive)
    assert all_of(whole, limit) == truth
    assert (whole.ends(), whole.partitions, whole.generation) == (log.ends(), log.partitions, log.generation)
    for partition in range(log.partitions):
        full = whole.read(partition, 0, 10_000)
        for start in random.Random(limit).sample(range(len(full) + 3), 9):
            assert whole.read(partition, start, limit) == full[start : start + limit], "a short answer means the end"


def test_positions_on_both_sides_are_fetched_and_missing_ones_left_out(log: EventLog, archive: ParquetArchive) -> None:
    fill(log, 0, 900)
    truth = {(each.partition, each.offset): each for each in truth_of(log)}
    archive_until(log, archive, [end // 2 for end in log.ends()], min_rows=40)
    whole = opened(log, archive)
    for size in (0, 1, 5, 200, 900):
        wanted = random.Random(size).sample(sorted(truth), size)
        found = whole.fetch([*wanted, (0, 10**9), *wanted[:3]])
        assert sorted(found) == sorted(truth[place] for place in wanted)


def test_many_threads_read_one_archive(log: EventLog, archive: ParquetArchive, open_log: Any) -> None:
    fill(log, 0, 1_500)
    truth = truth_of(log)
    archive_until(log, archive, [end * 4 // 5 for end in log.ends()])
    reader = ArchiveReader(ParquetArchive(archive.folder), kept_bytes=100_000)  # two or three files
    failed: list[BaseException] = []

    def work(number: int) -> None:
        own = open_log()
        rnd = random.Random(number)
        try:
            whole = ArchivedLog(own, reader)
            assert all_of(whole, rnd.choice([13, 100, 500])) == truth
            wanted = rnd.sample(truth, 40)
            assert sorted(whole.fetch([(each.partition, each.offset) for each in wanted])) == sorted(wanted)
        except BaseException as err:
            failed.append(err)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed[0]
    assert reader.kept_bytes <= 100_000 + 60_000, "what is decoded is bounded"


@pytest.fixture
def open_log(request: pytest.FixtureRequest, log: EventLog) -> Any:
    """Opens a log of a thread's own."""
    if isinstance(log, PostgresLog):
        dsn = request.getfixturevalue("databases").main
        return lambda: PostgresLog(dsn)
    return request.getfixturevalue("topic").open


def test_an_archive_of_another_log_generation_is_not_read(log: EventLog, archive: ParquetArchive) -> None:
    fill(log, 0, 100)
    archive_until(log, archive, log.ends())
    reader = ArchiveReader(ParquetArchive(archive.folder))
    reader.expect(2)
    with pytest.raises(ArchiveDamaged, match="generation 1"):
        reader.look()


def test_an_archive_that_is_away_does_not_disturb_who_reads_the_tail(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log, 0, 90)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    away = archive_at("s3://bucket/x", copies=tmp_path, endpoint="http://127.0.0.1:9")
    assert all_of(ArchivedLog(log, ArchiveReader(lambda: away))) == truth_of(log)


def damage_manifest(archive: ParquetArchive) -> None:
    path = archive.folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"1", b"7"))


def damage_a_file(archive: ParquetArchive) -> None:
    path = archive.path(archive.files()[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def lose_a_file(archive: ParquetArchive) -> None:
    archive.path(archive.files()[0]).unlink()


def lose_a_line(archive: ParquetArchive) -> None:
    path = archive.folder / MANIFEST
    header, _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([header, *rest]))


DAMAGES = pytest.mark.parametrize("damage", [damage_manifest, damage_a_file, lose_a_file, lose_a_line])


@DAMAGES
def test_a_damaged_archive_does_not_disturb_where_the_log_is_whole(
    log: EventLog, archive: ParquetArchive, damage: Callable[[ParquetArchive], None], caplog: pytest.LogCaptureFixture
) -> None:
    fill(log, 0, 600)
    archive_until(log, archive, [end * 2 // 3 for end in log.ends()])
    truth = truth_of(log)
    damage(archive)
    whole = opened(log, archive)
    for limit in (50, 2_000):
        assert all_of(whole, limit) == truth
    assert sorted(whole.fetch([(each.partition, each.offset) for each in truth])) == sorted(truth)
    assert any(line.name == "touchfold.archive" and line.levelname == "ERROR" for line in caplog.records)


@DAMAGES
def test_what_neither_a_damaged_archive_nor_the_log_gives_is_an_error_and_never_a_gap(
    topic: Topic, archive: ParquetArchive, damage: Callable[[ParquetArchive], None]
) -> None:
    fill(topic.log, 0, 600)
    ends = topic.log.ends()
    archive_until(topic.log, archive, [end * 2 // 3 for end in ends])
    truth = truth_of(topic.log)
    partition = archive.files()[0].partition
    topic.delete_below({partition: ends[partition] // 2})
    damage(archive)
    log = topic.open()
    with pytest.raises(ArchiveDamaged):
        opened(log, archive).read(partition, 0, 10)
    for offsets in ([3], range(ends[partition])):
        with pytest.raises(ArchiveDamaged):
            opened(log, archive).fetch([(partition, offset) for offset in offsets])
    others = [each for each in truth if each.partition != partition]
    assert sorted(opened(log, archive).fetch([(each.partition, each.offset) for each in others])) == sorted(others)
    log.close()


def test_an_append_goes_to_the_log(log: EventLog, archive: ParquetArchive) -> None:
    whole = opened(log, archive)
    ((partition, offset),) = whole.append(pending([record(1)]))
    assert [each.offset for each in log.read(partition, 0, 10)] == [offset]


# ---------------------------------------------------------------- what retention removed


def test_what_retention_removed_is_read_from_the_archive(topic: Topic, archive: ParquetArchive) -> None:
    fill(topic.log, 0, 1_200)
    truth = truth_of(topic.log)
    ends = topic.log.ends()
    archive_until(topic.log, archive, [end * 2 // 3 for end in ends])
    topic.delete_below({partition: end // 2 for partition, end in enumerate(ends)})
    log = topic.open()
    with pytest.raises(LogTruncated):
        log.read(0, 0, 10)
    whole = opened(log, archive)
    for limit in (9, 100, 2_000):
        assert all_of(whole, limit) == truth
    assert whole.starts() == [0] * PARTITIONS
    for size in (1, 20, 1_200):
        wanted = random.Random(size).sample(truth, size)
        assert sorted(whole.fetch([(each.partition, each.offset) for each in wanted])) == sorted(wanted)
    log.close()


def test_a_hole_between_archive_and_log_is_an_error_and_never_a_gap(topic: Topic, archive: ParquetArchive) -> None:
    fill(topic.log, 0, 600)
    ends = topic.log.ends()
    archive_until(topic.log, archive, [end // 3 for end in ends])
    topic.delete_below({1: ends[1] // 2})
    log = topic.open()
    whole = opened(log, archive)
    border = ends[1] // 3
    assert [each.offset for each in whole.read(1, 0, border)] == list(range(border))
    for start in (border, border + 1, ends[1] // 2 - 1):
        with pytest.raises(LogTruncated) as caught:
            whole.read(1, start, 10)
        assert f"{start}" in caught.value.message
        assert f"{ends[1] // 2}" in caught.value.message
    with pytest.raises(LogTruncated):
        whole.read(1, 0, border + 1)
    assert whole.read(1, ends[1] // 2, 1)[0].offset == ends[1] // 2
    assert whole.read(0, 0, 10_000) == topic.log.read(0, 0, 10_000), "the other partitions have none"
    log.close()


def test_an_open_reader_sees_the_archive_grow_when_retention_overtakes_it(
    topic: Topic, archive: ParquetArchive
) -> None:
    fill(topic.log, 0, 900)
    truth = truth_of(topic.log)
    ends = topic.log.ends()
    log = topic.open()
    whole = opened(log, archive)
    assert whole.read(0, 0, 5) == [each for each in truth if each.partition == 0][:5]
    for part in (3, 2, 1):
        until = [end // part for end in ends]
        archive_until(topic.log, archive, until)
        topic.delete_below(dict(enumerate(until)))
        assert all_of(whole, 50) == truth
    assert whole.fetch([(0, 0), (2, ends[2] - 1)]) != []
    log.close()


def test_transactions_leave_gaps_that_neither_archiver_nor_reader_stumbles_over(
    topic: Topic, archive: ParquetArchive
) -> None:
    values = [each.value for each in pending([record(number) for number in range(60)])]
    for number in range(6):
        topic.transaction(1, values[number * 10 : number * 10 + 10], commit=number % 3 != 1)
    ends = topic.log.ends()
    assert ends[1] == 66, "markers take offsets"
    truth = truth_of(topic.log)
    assert [each.value for each in truth] == values[:10] + values[20:40] + values[50:]
    until = [end // 2 for end in ends]
    archive_until(topic.log, archive, until, min_rows=7)
    archive_until(topic.log, archive, ends, min_rows=7)
    assert archive.next_offsets()[:PARTITIONS] == ends, "also what follows the last record"
    assert archive.verify() == []
    entries = [entry for entry in archive.files() if entry.partition == 1]
    assert all(one.next == other.start for one, other in pairwise(entries))
    topic.delete_below(dict(enumerate(ends)))
    log = topic.open()
    whole = opened(log, archive)
    for limit in (1, 4, 100):
        assert all_of(whole, limit) == truth
    assert whole.read(1, ends[1], 10) == []
    assert sorted(whole.fetch([(1, offset) for offset in range(ends[1])])) == truth
    fill(topic.log, 100, 200)
    assert len(all_of(whole)) == len(truth) + 200
    log.close()


def test_aborted_records_alone_are_covered_by_a_file_without_rows(topic: Topic, archive: ParquetArchive) -> None:
    fill(topic.log, 0, 60)
    archive_until(topic.log, archive, topic.log.ends())
    topic.transaction(0, [each.value for each in pending([record(100 + n) for n in range(5)])], commit=False)
    ends = topic.log.ends()
    clock = FixedClock()
    archiver = Archiver(topic.log, archive, clock, lambda: ends, "EUR", gaps=True)
    assert archiver.run_once() == 0, "not at once: records may follow"
    clock.at = clock.at.replace(year=clock.at.year + 1)
    assert archiver.run_once() == 6
    assert [entry.rows for entry in archive.files() if entry.partition == 0][-1] == 0
    assert archive.verify() == []
    topic.delete_below(dict(enumerate(ends)))
    log = topic.open()
    assert len(all_of(opened(log, archive))) == 60
    log.close()
