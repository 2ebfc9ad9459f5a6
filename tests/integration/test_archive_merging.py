"""Small files of the archive become few: in a folder and on S3, beside readers, through kills, beside damage."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.adapters.archive.files import FolderFiles
from infra.adapters.archive.grace import Grace
from infra.adapters.archive.proofs import PROOFS, Proofs, stat_of
from infra.adapters.archive.reader import ArchiveReader
from infra.adapters.archive.s3_files import S3Files
from infra.adapters.archive.s3_manifest import Partition
from infra.adapters.archive.store import MANIFEST, ParquetArchive, dataset
from infra.adapters.machine.disk import Disk, Space, reserve_bytes
from infra.drivers.process.archive_role import _writable
from infra.drivers.process.archive_upkeep import Upkeep
from processors.archive.merge import Merger
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, DiskFull, ProgressConflict, StoreUnavailable
from schemas.event_columns import SCHEMA, event_table
from schemas.merge_plan import FAN_IN, due, level_of, waiting
from schemas.record import Stored, encode
from tests.archive_data import record
from tests.checker import archive_files as checker
from tests.object_store import CREDENTIALS, ObjectStore, object_store  # noqa: F401  # a fixture

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., ParquetArchive]


class Alone:
    """Turns where nobody else writes."""

    def take(self, partition: int) -> bool:
        return True

    def check(self) -> None:
        pass

    def give(self, partition: int) -> None:
        pass


@pytest.fixture(params=["folder", "s3"])
def open_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens clients of one archive, on each kind of place. `grace_s`: of replaced files."""
    opened: list[ParquetArchive] = []
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("object_store")
        name = store.bucket()

    def make(grace_s: float = 900.0) -> ParquetArchive:
        if request.param == "folder":
            opened.append(ParquetArchive(FolderFiles(tmp_path / "archive", grace_s)))
        else:
            opened.append(store.archive(name, tmp_path / f"copies {len(opened)}", grace_s=grace_s))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ParquetArchive]:
    archive = ParquetArchive(tmp_path / "archive")
    archive.recover()
    yield archive
    archive.close()


_RECORDS: dict[int, bytes] = {}


def stored(partition: int, offset: int) -> Stored:
    if offset not in _RECORDS:
        _RECORDS[offset] = encode(record(offset))
    return Stored(partition, offset, _RECORDS[offset])


def add(archive: ParquetArchive, files: int, rows: int = 2, partition: int = 0) -> list[Stored]:
    """So many more files of so many records; what they hold."""
    found: list[Stored] = []
    for _ in range(files):
        start = archive.next_offset(partition)
        records = [stored(partition, offset) for offset in range(start, start + rows)]
        archive.add(partition, start + rows, 1, event_table(records, "EUR", originals=True))
        found += records
    return found


def merger(archive: ParquetArchive, alarms: list[str] | None = None, **options: Any) -> Merger:
    told = [] if alarms is None else alarms
    return Merger(archive, Alone(), lambda: 0.0, told.append, **options)


def merge_all(archive: ParquetArchive, **options: Any) -> int:
    """How many merges were done until none was due."""
    worker, done = merger(archive, **options), 0
    while worker.run_once().merged:
        done += 1
    return done


def records_of(archive: ParquetArchive, partition: int = 0) -> list[Stored]:
    return list(archive.read_records(partition, 0))


# ---------------------------------------------------------------- what is due


def entry(start: int, rows: int, size: int = 10_000, **other: Any) -> ArchiveFile:
    fixed = {"partition": 0, "generation": 1, "footer_sha256": "", "sha256": "", "digest": "", "digest_before": ""}
    places = {"path": f"p0/{start}", "start": start, "next": start + rows, "rows": rows, "bytes": size}
    return ArchiveFile(first_offset=start, last_offset=start + rows - 1, **{**fixed, **places, **other})


def after_merges(entries: list[ArchiveFile]) -> tuple[list[ArchiveFile], int]:
    """As the merger does it, rows alone; and how many rows were written."""
    written = 0
    while runs := due(entries):
        run = runs[0]
        at = entries.index(run[0])
        made = entry(run[0].start, sum(e.rows for e in run), sum(e.bytes for e in run))
        written += made.rows
        entries = [*entries[:at], made, *entries[at + len(run) :]]
    return entries, written


def test_a_week_of_minutes_leaves_few_files_and_writes_each_row_four_times() -> None:
    entries: list[ArchiveFile] = []
    written = most = 0
    for minute in range(8 * 24 * 60):
        entries, more = after_merges([*entries, entry(minute * 60, 60, 60 * 400)])
        written += more
        most = max(most, len(entries))
    rows = 8 * 24 * 60 * 60
    assert sum(e.rows for e in entries) == rows
    assert most <= 36, "of a partition, full files included"
    assert written / rows < 4.5


@given(st.lists(st.integers(0, 300_000), max_size=120))
@settings(deadline=None)
def test_merging_ends_keeps_every_row_and_bounds_each_level(sizes: list[int]) -> None:
    entries, at = [], 0
    for rows in sizes:
        entries.append(entry(at, rows, rows * 100, next=at + rows + 1))
        at += rows + 1
    found, _ = after_merges(entries)
    assert sum(e.rows for e in found) == sum(sizes)
    assert waiting(found) == 0
    small = [e for e in found if e.rows <= 125_000]
    assert len(small) <= (len(found) - len(small) + 1) * (FAN_IN - 1) * (level_of(125_000) + 1)


def test_a_gap_a_bad_file_and_another_generation_are_not_merged_over() -> None:
    entries = [entry(at * 10, 10) for at in range(20)]
    assert [len(run) for run in due(entries)] == [20]
    assert [len(run) for run in due(entries, {entries[9].path})] == [9, 10]
    assert [len(run) for run in due([*entries[:9], *entries[10:]])] == [9, 10]
    newer = [msgspec.structs.replace(e, generation=2) for e in entries[12:]]
    assert [len(run) for run in due([*entries[:12], *newer])] == [12, 8]


# ---------------------------------------------------------------- merging


def test_merged_files_hold_the_same_records_and_the_chain_of_digests(open_archive: Open) -> None:
    archive = open_archive()
    archive.recover()
    truth = add(archive, 2 * FAN_IN + 3) + add(archive, 2, 50)
    before = archive.files()
    assert merge_all(archive) > 0
    assert len(archive.files()) < FAN_IN
    reader = open_archive()
    assert reader.files() == archive.files()
    assert records_of(reader) == truth
    assert reader.verify() == []
    assert archive.files()[-1].digest == before[-1].digest
    assert archive.next_offset(0) == before[-1].next
    truth += add(archive, 2)
    again = open_archive()
    assert records_of(again) == records_of(reader) == truth
    assert again.verify() == []


def test_a_writer_goes_on_after_merges_and_a_restart(open_archive: Open) -> None:
    archive = open_archive()
    archive.recover()
    truth = add(archive, FAN_IN)
    merge_all(archive)
    assert len(archive.files()) == 1
    archive.close()
    second = open_archive()
    assert second.recover() == [], "what was replaced stays for its time"
    truth += add(second, 3)
    assert records_of(open_archive()) == truth
    assert open_archive().verify() == []


def test_replaced_files_go_when_their_time_is_over_and_no_earlier(open_archive: Open, tmp_path: Path) -> None:
    archive = open_archive()
    archive.recover()
    truth = add(archive, FAN_IN)
    old = archive.files()
    merge_all(archive)
    assert merger(archive).retire() == 0
    assert all(archive.store.read(each, copies=False) for each in old), "who read the manifest before still finds them"
    archive.close()
    later = open_archive(grace_s=0.0)
    later.recover()
    assert merger(later).retire() == FAN_IN
    for each in old:
        with pytest.raises(ArchiveDamaged):
            later.store.read(each, copies=False)
    assert records_of(open_archive()) == truth
    assert open_archive().verify() == []
    assert open_archive().next_offsets()[0] == 2 * FAN_IN
    truth += add(later, FAN_IN)
    merge_all(later)
    assert records_of(open_archive()) == truth


def test_a_reader_that_knows_removed_files_finds_those_that_replaced_them(open_archive: Open) -> None:
    archive = open_archive(grace_s=0.0)
    archive.recover()
    truth = add(archive, 2 * FAN_IN)
    reader = ArchiveReader(open_archive(), kept_bytes=1)
    reader.refresh()
    assert reader.read(0, 0, 10) == (truth[:2], 2)
    merge_all(archive)
    assert merger(archive).retire() > 0
    found, at = [], 0
    while reader.holds(0, at):
        more, at = reader.read(0, at, 1_000)
        found += more
    assert found == truth


def test_large_files_are_read_by_row_group(folder: ParquetArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.adapters.archive.parquet.GROUP_ROWS", 30)
    truth = add(folder, 40, 5)
    merge_all(folder)
    assert any(len(each.groups) > 3 for each in folder.files())
    reader = ArchiveReader(ParquetArchive(folder.folder), kept_bytes=50_000)
    reader.refresh()
    for start in random.Random(1).sample(range(200), 60):
        found, after = reader.read(0, start, 1_000)
        assert found == truth[start:after]
        assert len(found) <= 30
    assert reader.kept_bytes <= 100_000
    assert folder.verify() == []
    table = dataset(folder.folder, folder.files()).to_table()
    assert table.num_rows == 200


def test_files_without_rows_and_offsets_without_records_are_merged_too(open_archive: Open) -> None:
    archive = open_archive()
    archive.recover()
    for number in range(FAN_IN):
        archive.add(0, number * 10 + 10, 1, SCHEMA.empty_table())
    merge_all(archive)
    assert [(each.start, each.next, each.rows) for each in archive.files()] == [(0, 80, 0)]
    truth = add(archive, FAN_IN)
    merge_all(archive)
    assert records_of(open_archive()) == truth
    assert open_archive().verify() == []


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_file_stops_its_merge_with_an_alarm_and_others_go_on(open_archive: Open, damage: str) -> None:
    archive = open_archive()
    archive.recover()
    add(archive, 2 * FAN_IN + 1)
    spoilt = archive.files()[FAN_IN]
    {"flipped": spoil, "missing": lose}[damage](archive, spoilt)
    alarms: list[str] = []
    worker = merger(archive, alarms)
    steps = [worker.run_once() for _ in range(8)]
    assert len(alarms) == 1
    assert spoilt.path in alarms[0]
    assert sum(step.merged > 0 for step in steps) == 2, "before and behind it"
    assert spoilt in archive.files()
    assert [problem.path for problem in archive.verify()] == [spoilt.path], "it was not laundered"


def spoil(archive: ParquetArchive, which: ArchiveFile) -> None:
    data = bytearray(archive.store.read(which, copies=False))
    data[len(data) // 2] ^= 4
    if isinstance(archive.store, S3Files):
        archive.store._client.put_object(Bucket=archive.store.bucket, Key=f"archive/{which.path}", Body=bytes(data))
    else:
        archive.path(which).write_bytes(bytes(data))


def lose(archive: ParquetArchive, which: ArchiveFile) -> None:
    if isinstance(archive.store, S3Files):
        archive.store._client.delete_object(Bucket=archive.store.bucket, Key=f"archive/{which.path}")
    else:
        archive.path(which).unlink()


def test_what_was_replaced_stays_while_what_replaced_it_is_damaged(open_archive: Open) -> None:
    archive = open_archive(grace_s=0.0)
    archive.recover()
    add(archive, FAN_IN)
    old = archive.files()
    merge_all(archive)
    spoil(archive, archive.files()[0])
    alarms: list[str] = []
    merger(archive, alarms).retire()
    assert len(alarms) == 1
    assert all(archive.store.read(each, copies=False) for each in old)


def test_no_room_for_the_merged_file_merges_nothing(folder: ParquetArchive) -> None:
    add(folder, FAN_IN)

    def full(size: int) -> None:
        assert size == sum(each.bytes for each in folder.files())
        raise DiskFull("full")

    with pytest.raises(DiskFull):
        merge_all(folder, room=full)
    assert len(folder.files()) == FAN_IN


def test_a_merge_keeps_the_reserve_free_beside_what_it_writes(folder: ParquetArchive, tmp_path: Path) -> None:
    add(folder, FAN_IN)
    for each in folder.files():
        os.utime(folder.path(each), (3, 3))
    size, total = folder.size_bytes(), 2**40
    free = [reserve_bytes(total) + size - 1]
    disk = Disk(tmp_path, measure=lambda _: Space(free[0], total), monotonic=iter(range(1000)).__next__)
    upkeep = Upkeep(folder, Alone(), disk)
    upkeep.run_once()
    assert len(folder.files()) == FAN_IN
    assert upkeep._proofs is not None
    assert len(upkeep._proofs.good(folder.files())) == FAN_IN, "files are read all the same"
    free[0] += 1
    upkeep._merges_at = 0.0
    assert upkeep.run_once()
    assert len(folder.files()) == 1


def test_a_disk_that_is_full_in_the_middle_of_a_line_spoils_no_manifest(
    folder: ParquetArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = add(folder, 1)

    def full(file: IO[bytes], data: bytes) -> None:
        file.write(data[:99])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("infra.adapters.archive.files._write_all", full)
        with pytest.raises(OSError, match="No space"):
            add(folder, 1)
    truth += add(folder, 1)
    assert records_of(ParquetArchive(folder.folder)) == truth


def test_a_disk_that_cannot_be_written_to_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "archive" / ".lock").mkdir(parents=True)  # what root cannot write to either
    with pytest.raises(StoreUnavailable, match="nothing is archived"), _writable(tmp_path / "archive"):
        ParquetArchive(tmp_path / "archive").recover()


def test_replaced_files_stay_for_their_time_whatever_the_clock_does() -> None:
    wall, uptime = [1e9], [0.0]
    grace = Grace(900.0, lambda: wall[0], lambda: uptime[0])
    made, other = entry(0, 1, replaced_at=int(1e9)), entry(1, 1, replaced_at=int(1e9))
    grace.began(made)
    wall[0] += 3_600  # put forward: only who made it knows better
    assert not grace.is_over(made)
    assert grace.is_over(other)
    wall[0] -= 86_400  # put back
    assert not grace.is_over(other)
    uptime[0] += 900
    assert grace.is_over(made)
    assert grace.is_over(other), "not only a day later"


# ---------------------------------------------------------------- the manifest


def test_the_manifest_is_written_again_when_most_of_it_is_replaced(folder: ParquetArchive) -> None:
    truth: list[Stored] = []
    for _ in range(14):
        truth += add(folder, FAN_IN)
        merge_all(folder)
    lines = (folder.folder / MANIFEST).read_bytes().count(b"\n")
    assert lines < 2 * len(folder.files()) + 64 + FAN_IN, "of 112 files and 15 merges, 127 lines"
    assert records_of(ParquetArchive(folder.folder)) == truth


def test_an_older_build_refuses_a_manifest_with_replaced_entries(folder: ParquetArchive) -> None:
    add(folder, FAN_IN)
    assert b'{"touchfold_archive":1}' in (folder.folder / MANIFEST).read_bytes().split(b"\n")[0]
    merge_all(folder)
    assert b'{"touchfold_archive":2}' in (folder.folder / MANIFEST).read_bytes().split(b"\n")[0]


def test_a_manifest_that_did_not_change_is_not_read_again(
    folder: ParquetArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, FAN_IN)
    os.utime(folder.folder / MANIFEST, (1, 1))  # settled
    folder.files()
    reads: list[Path] = []
    monkeypatch.setattr("infra.adapters.archive.files.manifest_bytes", reads.append)
    for _ in range(5):
        assert len(folder.files()) == FAN_IN
    assert reads == []


def test_a_restored_older_manifest_removes_nothing_that_holds_records(folder: ParquetArchive) -> None:
    truth = add(folder, FAN_IN)
    older = (folder.folder / MANIFEST).read_bytes()
    merge_all(folder)
    folder.close()
    late = ParquetArchive(FolderFiles(folder.folder, 0.0))
    late.recover()
    merger(late).retire()
    newer = (folder.folder / MANIFEST).read_bytes()
    late.close()
    (folder.folder / MANIFEST).write_bytes(older)
    with pytest.raises(ArchiveDamaged, match="overlaps"):
        late.recover()
    (folder.folder / MANIFEST).write_bytes(newer)
    assert records_of(late) == truth


# ---------------------------------------------------------------- proofs


def test_a_file_is_hashed_once_and_again_when_it_was_touched(folder: ParquetArchive) -> None:
    add(folder, 5)
    entries = folder.files()
    later = 10.0 + max(folder.path(each).stat().st_mtime for each in entries)
    proofs = Proofs(FolderFiles(folder.folder), now=lambda: later)
    assert proofs.due(entries) == entries
    assert proofs.prove(entries) == []
    assert proofs.due(entries) == []
    known = Proofs(FolderFiles(folder.folder)).good(entries)
    assert known == {each.path: stat_of(folder.path(each)) for each in entries}
    spoil(folder, entries[2])
    os.utime(folder.path(entries[2]), (5, 5))
    assert proofs.due(entries) == [entries[2]]
    assert [problem.path for problem in proofs.prove([entries[2]])] == [entries[2].path]
    assert [problem.path for problem in proofs.problems()] == [entries[2].path]
    assert entries[2].path not in proofs.good(entries)
    assert proofs.due(entries) == []
    much_later = Proofs(FolderFiles(folder.folder), now=lambda: later + 86_400)
    assert much_later.due(entries) == entries, "what rots under the same time is found within a day"
    spoil(folder, entries[2])  # mended
    assert proofs.due(entries) == [entries[2]]
    assert proofs.prove([entries[2]]) == []
    assert proofs.problems() == []
    with (folder.folder / PROOFS).open("ab") as file:
        file.write(b"torn")
    assert Proofs(FolderFiles(folder.folder)).good(entries[:2]).keys() == {each.path for each in entries[:2]}


def test_statements_hash_no_file_that_was_proved(folder: ParquetArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    add(folder, 4)
    entries = folder.files()
    later = 10.0 + max(folder.path(each).stat().st_mtime for each in entries)
    Proofs(FolderFiles(folder.folder), now=lambda: later).prove(entries)
    hashed: list[bytes] = []

    def counted(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr("infra.adapters.archive.parquet.sha256", counted)
    reader = ParquetArchive(folder.folder)
    for _ in range(3):
        dataset(folder.folder, entries, reader.proved(reader.local(), entries)).to_table()
    assert hashed == []
    os.utime(folder.path(entries[1]), (9, 9))
    dataset(folder.folder, entries, reader.proved(reader.local(), entries)).to_table()
    assert len(hashed) == 1


def test_flips_under_an_unchanged_stat_fail_or_change_nothing(folder: ParquetArchive) -> None:
    add(folder, FAN_IN, 30)
    merge_all(folder)
    (found,) = folder.files()
    path = folder.path(found)
    os.utime(path, (7, 7))
    proofs = Proofs(FolderFiles(folder.folder))
    proofs.prove([found])
    expected = dataset(folder.folder, [found]).to_table()
    good, rnd, failed = path.read_bytes(), random.Random(9), 0
    for _ in range(60):
        at = rnd.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rnd.randrange(8)]) + good[at + 1 :])
        os.utime(path, (7, 7))
        try:
            told = dataset(folder.folder, [found], proofs.good([found])).to_table()
        except (ArchiveDamaged, OSError, ValueError):
            failed += 1
        else:
            assert told.equals(expected), f"a flip at {at} gave a wrong answer"
    assert failed > 30


def test_upkeep_merges_a_folder_of_before_and_proves_what_is_left(folder: ParquetArchive) -> None:
    truth = add(folder, 70, 1)
    for each in folder.files():
        os.utime(folder.path(each), (3, 3))
    upkeep = Upkeep(folder, Alone(), None)
    while upkeep.run_once():
        pass
    assert len(folder.files()) <= 3 * FAN_IN
    assert waiting(folder.files()) == 0
    assert records_of(ParquetArchive(folder.folder)) == truth


def test_the_independent_checker_reads_a_merged_archive(folder: ParquetArchive) -> None:
    truth = add(folder, 30)
    merge_all(folder)
    truth += add(folder, 5)
    entries = checker.manifest(folder.folder)
    assert [each["path"] for each in entries] == [each.path for each in folder.files()]
    assert dict(checker.archived(folder.folder)) == {(0, each.offset): each.value for each in truth}
    listed = {folder.path(each) for each in folder.files()}
    left = set(folder.folder.glob("p*/*.parquet")) - listed
    assert len(left) == 30
    assert all(checker.is_replaced(path, entries) for path in left)
    assert not checker.is_replaced(folder.folder / "p0" / f"{60:015d}-{70:015d}.parquet", entries)


# ---------------------------------------------------------------- beside readers


def test_readers_beside_merges_see_each_event_exactly_once(folder: ParquetArchive) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []
    least = [0]

    def read(way: Callable[[ParquetArchive], list[int]]) -> None:
        reader = ParquetArchive(folder.folder)
        try:
            while not stop.is_set():
                known = least[0]
                offsets = way(reader)
                assert offsets == list(range(len(offsets)))
                assert len(offsets) >= known
        except BaseException as err:
            failed.append(err)

    def by_sql(reader: ParquetArchive) -> list[int]:
        table = dataset(folder.folder, reader.files()).to_table(columns=["offset"]) if reader.files() else None
        return [] if table is None else sorted(cast(list[int], table.column("offset").to_pylist()))

    threads = [
        threading.Thread(target=read, args=(by_sql,)),
        threading.Thread(target=read, args=(lambda reader: [each.offset for each in records_of(reader)],)),
    ]
    for thread in threads:
        thread.start()
    worker = merger(folder)
    for _ in range(20):
        add(folder, 3, 1)
        least[0] = folder.next_offset(0)
        worker.run_once()
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failed, failed[0]


# ---------------------------------------------------------------- several writers on S3


@pytest.fixture
def on_s3(object_store: ObjectStore, tmp_path: Path) -> Callable[..., ParquetArchive]:  # noqa: F811
    name = object_store.bucket()
    number = iter(range(100))
    return lambda **options: object_store.archive(name, tmp_path / f"copies {next(number)}", **options)


def test_of_two_that_merge_the_same_the_second_is_refused_and_goes_on(on_s3: Callable[..., ParquetArchive]) -> None:
    one, other = on_s3(grace_s=0.0), on_s3(grace_s=0.0)
    one.recover()
    truth = add(one, FAN_IN)
    other.recover()
    (run,) = due(one.files())
    one.merge(run)
    with pytest.raises(ProgressConflict):
        other.merge(run[:-1])
    other.refresh(0)
    assert other.files() == one.files()
    truth += add(other, FAN_IN)
    merge_all(other)
    one.refresh(0)
    assert merger(one).retire() > 0
    reader = on_s3()
    assert records_of(reader) == truth
    assert reader.verify() == []
    assert on_s3().recover() == []


def test_a_writer_that_slept_through_a_merge_and_its_clearing_changes_nothing(
    on_s3: Callable[..., ParquetArchive],
) -> None:
    asleep, awake = on_s3(), on_s3(grace_s=0.0)
    asleep.recover()
    awake.recover()
    truth = add(awake, FAN_IN)
    merge_all(awake)
    merger(awake).retire()
    late = [stored(0, offset) for offset in range(5)]
    asleep.add(0, 5, 1, event_table(late, "EUR", originals=True))  # its place was cleared: the store takes it
    reader = on_s3()
    assert records_of(reader) == truth
    assert reader.verify() == []
    asleep.refresh(0)
    assert asleep.next_offset(0) == 2 * FAN_IN
    truth += add(asleep, 2)
    assert records_of(on_s3()) == truth
    on_s3().recover()
    merger(awake).retire()
    assert records_of(on_s3()) == truth


def test_of_overlapping_replacements_the_highest_number_holds() -> None:
    known = Partition()
    known.take([entry(at, 10) for at in range(0, 100, 10)])
    known.take([entry(0, 50, replaces=5, seq=2)])
    known.take([entry(50, 50, replaces=5, seq=3), entry(0, 100, replaces=2, seq=4), entry(0, 60, replaces=6, seq=1)])
    assert [(each.start, each.next) for each in known.live] == [(0, 100)]
    assert sorted(each.seq for each in known.superseded) == [1, 2, 3]
    assert known.replaced_until() == 100
    assert known.seq == 4


# ---------------------------------------------------------------- kills

_CHILD = """
import sys
from pathlib import Path
from infra.adapters.archive.files import FolderFiles
from infra.adapters.archive.store import ParquetArchive
from infra.adapters.archive.s3_files import S3Files
from schemas.failpoints import arm
from tests.integration.test_archive_merging import merge_all, merger

where, endpoint, copies, point, hits = sys.argv[1:]
if point:
    arm(point, int(hits))
files = S3Files(where, "archive", Path(copies), endpoint=endpoint, refresh_s=0.0, grace_s=0.0) if endpoint else (
    FolderFiles(Path(where), 0.0))
archive = ParquetArchive(files)
archive.recover()
merge_all(archive)
merger(archive).retire()
"""
POINTS = {
    "archive.merge_written": (1, 3),
    "archive.merge_put": (1, 3),
    "archive.merge_listed": (1, 3),
    "archive.retired": (1, 30),
    "archive.manifest_written": (1,),
    "archive.manifest_renamed": (1,),
}


def run_child(where: str, endpoint: str, copies: Path, point: str = "", hits: int = 1) -> int:
    command = [sys.executable, "-c", _CHILD, where, endpoint, str(copies), point, str(hits)]
    env = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


@pytest.mark.kill
@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_failpoint_of_a_merge_loses_and_doubles_nothing(
    point: str, place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if place == "s3" and "manifest" in point:
        pytest.skip("an object store has no manifest that is written whole")
    endpoint = ""
    if place == "s3":
        store: ObjectStore = request.getfixturevalue("object_store")
        where, endpoint = store.bucket(), store.endpoint

        def opened() -> ParquetArchive:
            return store.archive(where, tmp_path / "reader")
    else:
        where = str(tmp_path / "archive")

        def opened() -> ParquetArchive:
            return ParquetArchive(tmp_path / "archive")

    archive = opened()
    archive.recover()
    truth = add(archive, 5 * FAN_IN)
    archive.close()
    for hits in POINTS[point]:
        assert run_child(where, endpoint, tmp_path / "copies", point, hits) in (-signal.SIGKILL, 0)
        assert records_of(opened()) == truth
        assert opened().verify() == []
        again = opened()
        again.recover()
        truth += add(again, 2 * FAN_IN)
        again.close()
    assert run_child(where, endpoint, tmp_path / "copies") == 0
    reader = opened()
    assert records_of(reader) == truth
    assert reader.verify() == []
    assert waiting(reader.files()) == 0
    if place == "folder":
        reader.close()
        later = ParquetArchive(FolderFiles(tmp_path / "archive", 0.0))
        later.recover()
        merger(later).retire()
        listed = {later.path(each) for each in later.files()}
        assert set(later.folder.glob("p*/*")) == listed, "no orphan is left"
        later.close()
