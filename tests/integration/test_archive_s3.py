"""The archive in an object store: the suite of the folder over it, several writers, kills, damage, and SQL."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
import pytest

from infra.adapters.archive.s3_files import S3Files
from infra.adapters.archive.store import ParquetArchive, archive_at
from infra.adapters.postgres.archive_turns import PostgresTurns
from infra.adapters.postgres.log import PostgresLog
from infra.app.archive import archive_of
from infra.app.bootstrap import session
from infra.app.log import log_of
from infra.drivers.process.archive_role import archiver_of, warn_of_lag
from infra.drivers.sql.process import run_sql
from processors.archive.archiver import Archiver
from projections.definitions.files import parse_documents
from schemas.archive import NO_DIGEST, chained, split
from schemas.definitions import to_json
from schemas.errors import ArchiveDamaged, ProgressConflict, SettingsInvalid, SqlLimit, StoreUnavailable
from schemas.event_columns import SCHEMA, event_table
from schemas.ports import EventLog
from schemas.record import Stored, encode
from tests.archive_data import apply_until, deploy, record
from tests.conftest import Databases
from tests.integration.test_archive import FixedClock, fill, of_archive, of_log
from tests.object_store import CREDENTIALS, ObjectStore, object_store  # noqa: F401  # a fixture

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., ParquetArchive]


@pytest.fixture
def log(databases: Databases) -> Iterator[PostgresLog]:
    log = PostgresLog(databases.main)
    yield log
    log.close()


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:  # noqa: F811
    return object_store.bucket()


@pytest.fixture(params=["folder", "s3"])
def open_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens clients of one archive, on each kind of place."""
    opened: list[ParquetArchive] = []
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("object_store")
        name: str = request.getfixturevalue("bucket")

    def make() -> ParquetArchive:
        if request.param == "folder":
            opened.append(ParquetArchive(tmp_path / "archive"))
        else:
            opened.append(store.archive(name, tmp_path / f"copies {len(opened)}"))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def on_s3(object_store: ObjectStore, bucket: str, tmp_path: Path) -> Iterator[Open]:  # noqa: F811
    """Opens clients of one archive in the object store."""
    opened: list[ParquetArchive] = []

    def make(**options: Any) -> ParquetArchive:
        opened.append(object_store.archive(bucket, tmp_path / f"copies {len(opened)}", **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def archiver(log: EventLog, archive: ParquetArchive, min_rows: int = 100, **options: Any) -> Archiver:
    return Archiver(log, archive, FixedClock(), log.ends, "EUR", min_rows=min_rows, **options)


def rows_of(first: int, count: int, partition: int = 0) -> Any:
    records = [Stored(partition, number, encode(record(number))) for number in range(first, first + count)]
    return event_table(records, "EUR", originals=True)


# ---------------------------------------------------------------- on a folder and on S3


def test_the_archive_holds_the_log_byte_for_byte_and_goes_on_after_a_restart(
    log: PostgresLog, open_archive: Open
) -> None:
    fill(log, 0, 600)
    first = open_archive()
    until = [end - 7 for end in log.ends()]
    assert Archiver(log, first, FixedClock(), lambda: until, "EUR", min_rows=100).flush() == 600 - 28
    assert first.next_offsets() == until
    first.close()
    second = open_archive()
    fill(log, 600, 300)
    assert archiver(log, second).flush() == 328
    reader = open_archive()
    assert of_archive(reader) == of_log(log)
    assert reader.verify() == []
    assert reader.size_bytes() == sum(entry.bytes for entry in second.files())


def test_each_entry_proves_its_file_and_follows_the_one_before(log: PostgresLog, open_archive: Open) -> None:
    fill(log, 0, 500)
    archive = open_archive()
    archiver(log, archive, min_rows=60).flush()
    entries = [entry for entry in open_archive().files() if entry.partition == 1]
    assert len(entries) > 1
    assert [entry.start for entry in entries[1:]] == [entry.next for entry in entries[:-1]]
    records = [(r.offset, split(r.value).record) for r in log.read(1, 0, 10_000)]
    assert entries[-1].digest == chained(NO_DIGEST, records).hex()


def test_an_open_reader_sees_files_that_are_added(log: PostgresLog, open_archive: Open) -> None:
    reader, archive = open_archive(), open_archive()
    assert reader.files() == []
    for round_ in range(3):
        fill(log, round_ * 200, 200)
        archiver(log, archive).flush()
        assert of_archive(reader) == of_log(log)


def test_offsets_without_records_are_covered_too(open_archive: Open) -> None:
    archive = open_archive()
    archive.recover()
    archive.add(0, 120, 1, rows_of(10, 50))
    archive.add(0, 130, 1, SCHEMA.empty_table())
    archive.add(0, 200, 1, rows_of(150, 20))
    reader = open_archive()
    assert reader.verify() == []
    assert [record.offset for record in reader.read_records(0, 55)] == [*range(55, 60), *range(150, 170)]
    with pytest.raises(ArchiveDamaged, match="do not match"):
        archive.add(0, 300, 1, rows_of(199, 2))
    with pytest.raises(ArchiveDamaged, match="do not match"):
        archive.add(0, 200, 1, SCHEMA.empty_table())


def test_more_partitions_than_were_expected_are_archived_and_read(open_archive: Open) -> None:
    archive = open_archive()
    archive.recover()
    for partition in (0, 3, 11):
        archive.add(partition, 20, 1, rows_of(0, 20, partition))
    reader = open_archive()
    assert reader.next_offsets() == [20, 0, 0, 20, *([0] * 7), 20]
    assert len(list(reader.read_records(11, 5))) == 15


# ---------------------------------------------------------------- damage


def test_altered_and_missing_objects_are_found(
    log: PostgresLog,
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
) -> None:
    fill(log, 0, 400)
    archiver(log, on_s3(), min_rows=30).flush()
    archive = on_s3()
    entry = next(each for each in archive.files() if each.partition == 1 and each.start > 0)
    file = f"archive/{entry.path}"
    good = object_store.read(bucket, file)
    rnd = random.Random(3)
    for _ in range(5):
        at = rnd.randrange(len(good))
        object_store.write(bucket, file, good[:at] + bytes([good[at] ^ 1 << rnd.randrange(8)]) + good[at + 1 :])
        assert [problem.path for problem in archive.verify()] == [entry.path]
        with pytest.raises(ArchiveDamaged):
            list(archive.read_records(1, entry.start))
    object_store.delete(bucket, file)
    assert [problem.path for problem in archive.verify()] == [entry.path]
    object_store.write(bucket, file, good)
    assert archive.verify() == []

    line = f"archive/manifest/p1/{entry.start:015d}.json"
    told = object_store.read(bucket, line)
    object_store.write(bucket, line, told.replace(b'"generation":1', b'"generation":2'))
    assert "damaged" in archive.verify()[0].reason
    object_store.delete(bucket, line)
    assert any("in no file" in problem.reason for problem in archive.verify())
    with pytest.raises(ArchiveDamaged, match="overlaps"):
        on_s3().recover()
    assert object_store.read(bucket, file) == good, "a file that lost its entry is not swept"


def test_a_lost_header_is_told_from_a_new_archive(
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
) -> None:
    assert on_s3().verify() == []
    archive = on_s3()
    archive.recover()
    archive.add(0, 10, 1, rows_of(0, 10))
    object_store.delete(bucket, "archive/manifest/archive.json")
    with pytest.raises(ArchiveDamaged, match="missing"):
        on_s3().recover()
    with pytest.raises(ArchiveDamaged, match="missing"):
        on_s3().files()


def test_an_entry_that_names_a_file_elsewhere_is_damage(
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
    tmp_path: Path,
) -> None:
    archive = on_s3()
    archive.recover()
    entry = archive.add(0, 10, 1, rows_of(0, 10))
    folder = ParquetArchive(tmp_path / "folder")
    folder.recover()
    folder.store.append(msgspec.structs.replace(entry, path="../x"))
    with pytest.raises(ArchiveDamaged, match="outside"):
        folder.files()
    other = object_store.read(bucket, "archive/manifest/p0/000000000000000.json")
    object_store.write(bucket, "archive/manifest/p0/000000000000010.json", other)
    assert "another place" in on_s3().verify()[0].reason


# ---------------------------------------------------------------- writers


def test_of_two_writers_at_one_place_the_second_is_refused_and_reads_on(on_s3: Open) -> None:
    one, other = on_s3(), on_s3()
    one.recover()
    other.recover()
    one.add(0, 50, 1, rows_of(0, 50))
    with pytest.raises(ProgressConflict):
        other.add(0, 40, 1, rows_of(0, 40))
    assert other.next_offset(0) == 0, "what was refused was not added"
    other.refresh(0)
    assert other.next_offset(0) == 50
    other.add(0, 80, 1, rows_of(50, 30))
    one.refresh(0)
    one.add(0, 90, 1, rows_of(80, 10))
    reader = on_s3()
    assert reader.verify() == []
    assert [record.offset for record in reader.read_records(0, 0)] == list(range(90))
    (orphan,) = on_s3().recover()
    assert orphan.startswith("p0/000000000000000-000000000000040")
    assert reader.verify() == []


def test_a_sweep_leaves_the_file_of_a_writer_that_has_not_listed_it_yet(on_s3: Open) -> None:
    slow, quick = on_s3(), on_s3()
    slow.recover()
    entry = slow.add(0, 10, 1, rows_of(0, 10))
    name = slow.store.name(0, 10, 20, "ab" * 32)
    slow.store.put(name, b"not listed yet")
    assert quick.recover() == []
    quick.add(0, 30, 1, rows_of(10, 20))
    assert on_s3().recover() == [name], "now another file has its place for good"
    assert on_s3().files()[0].path == entry.path


def test_an_answer_lost_on_the_way_is_no_conflict(on_s3: Open) -> None:
    one, same = on_s3(), on_s3()
    one.recover()
    same.recover()
    entry = one.add(0, 10, 1, rows_of(0, 10))
    assert same.add(0, 10, 1, rows_of(0, 10)) == entry, "the same bytes at the same place: ours, as far as anyone knows"


def test_a_store_that_ignores_conditions_is_refused(
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = on_s3()
    store = archive.store
    assert isinstance(store, S3Files)

    def ignores(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    store._client.meta.events.register("before-call.s3.PutObject", ignores)
    with pytest.raises(SettingsInvalid, match="If-None-Match"):
        archive.recover()


def test_archivers_take_turns_and_a_lost_turn_writes_nothing(
    log: PostgresLog, databases: Databases, on_s3: Open
) -> None:
    fill(log, 0, 400)
    mine, others = PostgresTurns(databases.main), PostgresTurns(databases.main)
    assert others.take(1)
    done = archiver(log, on_s3(), turns=mine).flush()
    assert done == 400 - log.ends()[1], "the partition of another was left to it"
    others.give(1)
    assert mine.take(1)
    assert not others.take(1)
    with psycopg2.connect(databases.main) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'touchfold archive turns'"
            " and pid = (select pid from pg_locks where locktype = 'advisory' and objid = 1 limit 1)"
        )
    connection.close()
    with pytest.raises(StoreUnavailable):
        mine.check()
    with pytest.raises(StoreUnavailable, match="lost"):
        mine.check()
    mine.give(1)
    assert others.take(1)
    assert not mine.take(1)
    others.close()
    assert archiver(log, on_s3(), turns=mine).flush() == log.ends()[1]
    mine.close()
    assert of_archive(on_s3()) == of_log(log)


def test_a_turn_lost_in_the_middle_ends_before_the_next_file(log: PostgresLog, on_s3: Open) -> None:
    fill(log, 0, 400)

    class Lost:
        checks = 0

        def take(self, partition: int) -> bool:
            return True

        def check(self) -> None:
            self.checks += 1
            if self.checks == 3:
                raise StoreUnavailable("lost")

        def give(self, partition: int) -> None:
            pass

    with pytest.raises(StoreUnavailable):
        archiver(log, on_s3(), min_rows=30, turns=Lost()).flush()
    assert len(on_s3().files()) == 2


def test_no_server_is_an_outage_and_bad_places_are_settings(tmp_path: Path, object_store: ObjectStore) -> None:  # noqa: F811
    away = archive_at("s3://bucket/x", copies=tmp_path, endpoint="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match="unavailable"):
        away.files()
    missing = archive_at("s3://no-such-bucket/x", copies=tmp_path, endpoint=object_store.endpoint)
    with pytest.raises(SettingsInvalid, match="NoSuchBucket"):
        missing.files()
    with pytest.raises(SettingsInvalid, match="neither"):
        archive_at("gs://bucket/x", copies=tmp_path)
    assert archive_at(str(tmp_path / "a"), copies=tmp_path).folder == tmp_path / "a"


def test_a_lag_of_more_than_half_the_retention_is_said(
    log: PostgresLog, on_s3: Open, caplog: pytest.LogCaptureFixture
) -> None:
    fill(log, 0, 50)
    archive = on_s3()
    slow = Archiver(log, archive, FixedClock(), lambda: [0, 0, 0, 0], "EUR")
    assert slow.run_once() == 0
    age_s = slow.oldest_age_s()
    assert 86_000 < age_s < 86_400, "also what is not applied yet is in danger"
    warn_of_lag(slow, age_s * 2 + 1)
    assert not caplog.records
    warn_of_lag(slow, age_s * 2 - 1)
    assert "oldest record that is not archived is 1440 minutes old" in caplog.text
    archiver(log, archive).flush()
    assert slow.oldest_age_s() == 0


# ---------------------------------------------------------------- kills

_CHILD = """
import sys
from pathlib import Path
from datetime import UTC, datetime
from infra.adapters.postgres.archive_turns import PostgresTurns
from infra.adapters.archive.store import archive_at
from infra.adapters.postgres.log import PostgresLog
from processors.archive.archiver import Archiver
from schemas.failpoints import arm

class Now:
    def now(self):
        return datetime.now(UTC)

dsn, location, endpoint, copies, point, hits = sys.argv[1:]
if point:
    arm(point, int(hits))
log = PostgresLog(dsn)
archive = archive_at(location, copies=Path(copies), endpoint=endpoint)
archiver = Archiver(log, archive, Now(), log.ends, "EUR", min_rows=40, turns=PostgresTurns(dsn))
while archiver.flush():
    pass
"""


def start_child(dsn: str, bucket: str, endpoint: str, copies: Path, point: str = "", hits: int = 1) -> Any:
    command = [sys.executable, "-c", _CHILD, dsn, f"s3://{bucket}/archive", endpoint, str(copies), point, str(hits)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT)})


@pytest.mark.kill
@pytest.mark.parametrize("point", ["archive.before_rename", "archive.after_rename", "archive.after_manifest"])
def test_a_kill_at_a_failpoint_loses_and_doubles_nothing(
    point: str,
    databases: Databases,
    log: PostgresLog,
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
    tmp_path: Path,
) -> None:
    fill(log, 0, 300)
    endpoint = object_store.endpoint
    assert start_child(databases.main, bucket, endpoint, tmp_path, point, 3).wait(120) == -signal.SIGKILL
    assert on_s3().verify() == []
    assert start_child(databases.main, bucket, endpoint, tmp_path).wait(120) == 0
    archive = on_s3()
    assert archive.verify() == []
    assert of_archive(archive) == of_log(log)
    archive.recover()
    listed = {f"archive/{entry.path}" for entry in archive.files()}
    assert {name for name in object_store.names(bucket) if name.startswith("archive/p")} == listed, "no orphan is left"


@pytest.mark.kill
def test_two_archivers_of_which_one_is_killed_archive_everything_once(
    databases: Databases,
    log: PostgresLog,
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
    tmp_path: Path,
) -> None:
    fill(log, 0, 1_200)
    one = start_child(databases.main, bucket, object_store.endpoint, tmp_path / "one", "archive.after_rename", 4)
    other = start_child(databases.main, bucket, object_store.endpoint, tmp_path / "other")
    assert one.wait(120) == -signal.SIGKILL
    assert other.wait(120) == 0
    archiver(log, on_s3()).flush()  # what the killed one's turn kept from the other
    archive = on_s3()
    assert archive.verify() == []
    assert of_archive(archive) == of_log(log)


# ---------------------------------------------------------------- SQL


@pytest.fixture
def deployed(databases: Databases, log: PostgresLog) -> PostgresLog:
    deploy(databases.main, to_json(parse_documents([])))
    fill(log, 0, 300)
    apply_until(databases.main, log.ends())
    return log


def test_sql_reads_the_archive_and_the_tail_through_local_copies(
    deployed: PostgresLog,
    databases: Databases,
    on_s3: Open,
    tmp_path: Path,
) -> None:
    archiver(deployed, on_s3(), min_rows=50).flush()
    fill(deployed, 300, 40)
    apply_until(databases.main, deployed.ends())
    archive = on_s3()
    question = "select count(*), count(distinct id), sum(revenue)::varchar from events"
    found = list(run_sql(question, dsn=databases.main, archive=archive).rows())
    total = sum(number + 0.1 for number in range(340))
    assert found == [[340, 340, f"{total:.4f}"]]
    copies = ParquetArchive(archive.local_folder())
    assert copies.verify() == [], "the copies are an archive themselves"
    assert {entry.path for entry in copies.files()} == {entry.path for entry in archive.files()}
    entry = copies.files()[0]
    good = copies.path(entry).read_bytes()
    copies.path(entry).write_bytes(good[:-300] + bytes(300))
    with pytest.raises(ArchiveDamaged):
        run_sql(question, dsn=databases.main, archive=archive)
    assert list(archive.read_records(entry.partition, 0)), "a spoilt copy is not used where the bytes are proved"
    assert not copies.path(entry).exists()


def test_copies_are_bounded_in_size_and_time_and_go_on_where_they_ended(deployed: PostgresLog, on_s3: Open) -> None:
    archiver(deployed, on_s3(), min_rows=20).flush()
    with pytest.raises(SqlLimit, match="GiB"):
        on_s3(copies_bytes=1_000).local_folder()
    archive = on_s3()
    with pytest.raises(SqlLimit, match="ask again"):
        archive.store.local(time.monotonic() - 1)
    folder = archive.local_folder()
    assert ParquetArchive(folder).files() == archive.files()


def test_what_a_machine_has_learnt_of_the_manifest_is_used_again(
    on_s3: Open,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("infra.adapters.archive.s3_files._SAVE", 5)
    archive = on_s3()
    archive.recover()
    for number in range(8):
        archive.add(0, number + 1, 1, rows_of(number, 1))
    copies = tmp_path / "same machine"
    first = object_store.archive(bucket, copies)
    assert len(first.files()) == 8
    archive.add(0, 9, 1, rows_of(8, 1))
    again = object_store.archive(bucket, copies)
    asked: list[str] = []
    store = again.store
    assert isinstance(store, S3Files)
    store._client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: asked.append(params["url_path"].rpartition("/")[2])
    )
    assert [entry.next for entry in again.files()] == list(range(1, 10))
    assert asked == ["archive.json", "000000000000008.json"]
    asked.clear()
    assert object_store.archive(bucket, copies).verify() == again.verify() == []
    assert len([name for name in asked if name.endswith(".json")]) == 10, "a proof takes nothing on trust"
    (copies / "entries.jsonl").write_bytes(b"spoilt\n")
    assert len(object_store.archive(bucket, copies).files()) == 9


# ---------------------------------------------------------------- the settings


@pytest.mark.parametrize("place", ["in the data folder", "another folder", "s3"])
def test_the_role_archives_where_the_settings_say(
    place: str,
    object_store: ObjectStore,  # noqa: F811
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = {"another folder": str(tmp_path / "other"), "s3": f"s3://{bucket}/of/ours"}.get(place)
    if other is not None:
        monkeypatch.setenv("TOUCHFOLD_ARCHIVE", other)
    monkeypatch.setenv("TOUCHFOLD_S3_ENDPOINT", object_store.endpoint)
    with session(tmp_path / "data") as here:
        log = log_of(here)
        fill(log, 0, 40)
        apply_until(here.dsn, log.ends())
        assert archiver_of(here).flush() == 40
        archive = archive_of(here)
        assert of_archive(archive) == of_log(log)
        asked = run_sql("select count(*) from events", dsn=here.dsn, archive=archive)
        assert list(asked.rows()) == [[40]]
    kept = {
        "in the data folder": (tmp_path / "data/archive/manifest.jsonl").exists(),
        "another folder": (tmp_path / "other/manifest.jsonl").exists(),
        "s3": "of/ours/manifest/archive.json" in object_store.names(bucket),
    }
    assert [name for name, there in kept.items() if there] == [place]
