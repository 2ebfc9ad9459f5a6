"""The archiver over a real log and a real folder: what it writes, what it proves, and what a crash leaves."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra.adapters.archive.store import MANIFEST, ParquetArchive, dataset
from infra.adapters.postgres.log import PostgresLog
from processors.archive.archiver import Archiver
from schemas.archive import NO_DIGEST, chained, split
from schemas.errors import ArchiveDamaged, FolderLocked
from schemas.ports import EventLog
from schemas.record import Stored
from tests.archive_data import START, pending, record
from tests.conftest import Databases

ROOT = Path(__file__).resolve().parents[2]


class FixedClock:
    """A clock a test sets."""

    def __init__(self, at: datetime = START + timedelta(days=1)) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def log(databases: Databases) -> Iterator[PostgresLog]:
    log = PostgresLog(databases.main)
    yield log
    log.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ParquetArchive]:
    archive = ParquetArchive(tmp_path / "archive")
    yield archive
    archive.close()


def archiver(log: EventLog, archive: ParquetArchive, until: list[int] | None = None, min_rows: int = 100) -> Archiver:
    return Archiver(log, archive, FixedClock(), lambda: until or log.ends(), "EUR", min_rows=min_rows)


def of_log(log: EventLog, until: list[int] | None = None) -> list[Stored]:
    ends = until or log.ends()
    return [r for p in range(4) for r in log.read(p, 0, 100_000) if r.offset < ends[p]]


def of_archive(archive: ParquetArchive) -> list[Stored]:
    return [r for p in range(4) for r in archive.read_records(p, 0)]


def fill(log: EventLog, first: int, count: int) -> None:
    log.append(pending([record(number, f"c {number % 97}") for number in range(first, first + count)]))


def test_the_archive_holds_the_log_byte_for_byte_and_no_more_than_is_applied(
    log: PostgresLog, archive: ParquetArchive
) -> None:
    fill(log, 0, 1_000)
    until = [end - 7 for end in log.ends()]
    assert archiver(log, archive, until).flush() == 1_000 - 28
    assert archive.next_offsets() == until
    assert of_archive(archive) == of_log(log, until)
    assert archive.verify() == []
    assert archiver(log, archive).flush() == 28
    assert of_archive(archive) == of_log(log)


def test_each_manifest_entry_proves_its_file(log: PostgresLog, archive: ParquetArchive) -> None:
    fill(log, 0, 900)
    archiver(log, archive).flush()
    entries = [entry for entry in archive.files() if entry.partition == 1]
    assert [entry.start for entry in entries[1:]] == [entry.next for entry in entries[:-1]]
    assert entries[0].digest_before == NO_DIGEST.hex()
    records = [(r.offset, split(r.value).record) for r in log.read(1, 0, 10_000)]
    assert entries[-1].digest == chained(NO_DIGEST, records).hex(), "the digest is over the log without sealed parts"
    for entry in entries:
        file = pq.ParquetFile(archive.path(entry))
        assert file.metadata.num_rows == entry.rows
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert sum(entry.rows for entry in archive.files()) == 900


def test_reading_from_an_offset_gives_the_rest(log: PostgresLog, archive: ParquetArchive) -> None:
    fill(log, 0, 600)
    archiver(log, archive, min_rows=50).flush()
    whole = log.read(2, 0, 1_000)
    for start in (0, 1, 49, 50, 51, len(whole), len(whole) + 5):
        assert list(archive.read_records(2, start)) == whole[start:]


def test_no_file_is_written_before_it_is_large_or_old_enough(log: PostgresLog, archive: ParquetArchive) -> None:
    fill(log, 0, 40)
    clock = FixedClock(START)
    archiver = Archiver(log, archive, clock, log.ends, "EUR", min_rows=100, max_age_s=60)
    assert archiver.run_once() == 0
    assert archive.files() == []
    clock.at = START + timedelta(minutes=500)
    assert archiver.run_once() == 40
    clock.at = START
    fill(log, 40, 1_000)
    assert archiver.run_once() > 500
    assert max(entry.rows for entry in archive.files()) == 100
    assert all(end - done < 100 for end, done in zip(log.ends(), archive.next_offsets(), strict=True))


def test_a_second_writer_is_refused_and_a_reader_is_not(archive: ParquetArchive) -> None:
    archive.recover()
    second = ParquetArchive(archive.folder)
    with pytest.raises(FolderLocked):
        second.recover()
    assert second.files() == []
    archive.close()
    second.recover()
    second.close()


def test_an_archive_of_another_log_generation_is_not_continued(log: PostgresLog, archive: ParquetArchive) -> None:
    fill(log, 0, 10)
    archiver(log, archive).flush()

    class Restored(PostgresLog):
        generation = 2  # what a restore writes to meta

    restored = Restored("")
    with pytest.raises(ArchiveDamaged, match="generation"):
        Archiver(restored, archive, FixedClock(), log.ends).run_once()


# ---------------------------------------------------------------- damage


@pytest.fixture
def filled(log: PostgresLog, archive: ParquetArchive) -> ParquetArchive:
    fill(log, 0, 600)
    archiver(log, archive, min_rows=50).flush()
    archive.close()
    return ParquetArchive(archive.folder)


def test_every_flipped_bit_of_a_file_is_found(filled: ParquetArchive) -> None:
    rnd = random.Random(5)
    entry = filled.files()[3]
    path = filled.path(entry)
    good = path.read_bytes()
    for _ in range(40):
        at = rnd.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rnd.randrange(8)]) + good[at + 1 :])
        assert [problem.path for problem in filled.verify()] == [entry.path]
        with pytest.raises(ArchiveDamaged):
            list(filled.read_records(entry.partition, entry.start))
    path.write_bytes(good)
    assert filled.verify() == []


def test_a_query_over_a_flipped_file_fails_or_is_right(filled: ParquetArchive) -> None:
    rnd = random.Random(6)
    entry = filled.files()[0]
    path = filled.path(entry)
    good = path.read_bytes()
    expected = dataset(filled.folder, [entry]).to_table()
    failed = 0
    for _ in range(150):
        at = rnd.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rnd.randrange(8)]) + good[at + 1 :])
        try:
            found = dataset(filled.folder, [entry]).to_table()
        except (ArchiveDamaged, OSError, ValueError):
            failed += 1
        else:
            assert found.equals(expected), f"a flip at {at} gave a wrong answer"
    assert failed > 100


def test_missing_files_gaps_and_overlaps_are_found(filled: ParquetArchive) -> None:
    entries = filled.files()
    second = next(entry for entry in entries if entry.partition == 0 and entry.start > 0)
    filled.path(second).unlink()
    assert [problem.path for problem in filled.verify()] == [second.path]
    with pytest.raises(ArchiveDamaged, match=second.path):
        filled.check()
    manifest = filled.folder / MANIFEST
    lines = manifest.read_bytes().splitlines(keepends=True)
    index = 1 + entries.index(second)
    manifest.write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
    assert any("in no file" in problem.reason for problem in filled.verify())
    manifest.write_bytes(b"".join([*lines, lines[index]]))
    assert any("in two files" in problem.reason for problem in filled.verify())


def test_an_altered_manifest_line_is_damage_and_a_half_written_one_is_not(filled: ParquetArchive) -> None:
    manifest = filled.folder / MANIFEST
    good = manifest.read_bytes()
    entries = filled.files()
    manifest.write_bytes(good + b'0123456789abcdef {"path":"p0/')
    assert filled.files() == entries
    assert filled.verify() == []
    filled.recover()
    assert manifest.read_bytes() == good
    filled.close()
    manifest.write_bytes(good.replace(b'"rows":50', b'"rows":51', 1))
    with pytest.raises(ArchiveDamaged, match="line"):
        filled.files()
    assert [problem.path for problem in filled.verify()] == [MANIFEST]


def test_an_archiver_goes_on_when_the_damage_is_mended(log: PostgresLog, filled: ParquetArchive) -> None:
    manifest = filled.folder / MANIFEST
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"rows":50', b'"rows":51', 1))
    fill(log, 600, 200)
    further = archiver(log, filled)
    with pytest.raises(ArchiveDamaged, match="line"):
        further.flush()
    manifest.write_bytes(good)
    further.forget()
    assert further.flush() == 200
    assert of_archive(filled) == of_log(log)


def test_a_lost_manifest_sweeps_nothing(filled: ParquetArchive) -> None:
    files = sorted(filled.folder.glob("p*/*.parquet"))
    (filled.folder / MANIFEST).unlink()
    with pytest.raises(ArchiveDamaged, match="missing"):
        filled.recover()
    assert sorted(filled.folder.glob("p*/*.parquet")) == files


def test_a_manifest_cut_short_is_not_taken_for_orphans(filled: ParquetArchive, log: PostgresLog) -> None:
    manifest = filled.folder / MANIFEST
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]))
    before = of_log(log)
    filled.recover()  # the last file is an orphan now; the log still has its records
    archiver(log, filled, min_rows=50).flush()
    assert of_archive(filled) == before
    assert filled.verify() == []


# ---------------------------------------------------------------- kills

_CHILD = """
import sys
from pathlib import Path
from datetime import UTC, datetime
from infra.adapters.archive.store import ParquetArchive
from infra.adapters.postgres.log import PostgresLog
from processors.archive.archiver import Archiver
from schemas.failpoints import arm

class Now:
    def now(self):
        return datetime.now(UTC)

dsn, folder, point, hits = sys.argv[1:]
if point:
    arm(point, int(hits))
log = PostgresLog(dsn)
Archiver(log, ParquetArchive(Path(folder)), Now(), log.ends, "EUR", min_rows=60).flush()
"""


def run_child(dsn: str, folder: Path, point: str = "", hits: int = 1) -> int:
    command = [sys.executable, "-c", _CHILD, dsn, str(folder), point, str(hits)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


@pytest.mark.kill
@pytest.mark.parametrize("point", ["archive.before_rename", "archive.after_rename", "archive.after_manifest"])
def test_a_kill_at_a_failpoint_loses_and_doubles_nothing(
    point: str, databases: Databases, log: PostgresLog, archive: ParquetArchive
) -> None:
    fill(log, 0, 500)
    assert run_child(databases.main, archive.folder, point, 1) == -signal.SIGKILL
    assert run_child(databases.main, archive.folder, point, 3) == -signal.SIGKILL, "again, in the recovery that follows"
    assert archive.verify() == []
    assert run_child(databases.main, archive.folder) == 0
    assert archive.verify() == []
    assert of_archive(archive) == of_log(log)
    listed = {archive.path(entry) for entry in archive.files()}
    assert set(archive.folder.glob("p*/*")) == listed, "no orphan is left"


@pytest.mark.kill
@pytest.mark.long
def test_kills_at_random_passages_lose_and_double_nothing(
    databases: Databases, log: PostgresLog, archive: ParquetArchive
) -> None:
    rnd = random.Random(11)
    points = ["archive.before_rename", "archive.after_rename", "archive.after_manifest"]
    for round_ in range(60):
        fill(log, round_ * 300, 300)
        run_child(databases.main, archive.folder, rnd.choice(points), rnd.randrange(1, 5))
        assert archive.verify() == []
    run_child(databases.main, archive.folder)
    assert of_archive(archive) == of_log(log)
