"""`ArchiveStore` in a folder: Parquet (zstd) files and one append-only manifest with a checksum on every line.

    archive/manifest.jsonl      <16 hex of SHA-256> <JSON of ArchiveFile>\\n
    archive/p0/<start>-<next>.parquet

A file is written aside, synced, renamed, its folder synced; only then its manifest line is appended and synced. What
the manifest does not list was never archived: the log still has it.
"""

import ctypes
import fcntl
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from schemas.archive import NO_DIGEST, ArchiveFile, chained
from schemas.errors import ArchiveDamaged, FolderLocked, Problem
from schemas.event_columns import SCHEMA, originals
from schemas.failpoints import failpoint
from schemas.record import Stored

MANIFEST: Final = "manifest.jsonl"
_FOOTER_GUESS: Final = 16_384  # bytes; a footer of ours has about 6 kB
_HEADER: Final = b'{"touchfold_archive":1}'
_ENTRY: Final = msgspec.json.Decoder(ArchiveFile)


class ParquetArchive:
    """One writer (after `recover`), any number of readers, which see whole files only."""

    def __init__(self, folder: Path, partitions: int = 4) -> None:
        self.folder = folder
        self._partitions = partitions
        self._lock: int | None = None
        self._files: list[ArchiveFile] | None = None  # the writer's own copy: nobody else appends

    # ------------------------------------------------------------ reading

    def files(self) -> list[ArchiveFile]:
        if self._files is not None:
            return list(self._files)
        return read_manifest(self.folder)[0]

    def next_offsets(self) -> list[int]:
        return next_offsets_of(self.files(), self._partitions)

    def path(self, entry: ArchiveFile) -> Path:
        return self.folder / entry.path

    def read_records(self, partition: int, start: int) -> Iterator[Stored]:
        for entry in self.files():
            if entry.partition == partition and entry.next > start:
                rows = self._proved(entry)
                yield from (record for record in originals(rows) if record.offset >= start)

    def _proved(self, entry: ArchiveFile) -> pa.Table:
        """A file's rows, after its SHA-256."""
        try:
            data = self.path(entry).read_bytes()
        except OSError as err:
            raise ArchiveDamaged(f"{entry.path}: {err.strerror}") from err
        if sha256(data).hexdigest() != entry.sha256:
            raise ArchiveDamaged(f"{entry.path} differs from its manifest: restore it from a backup")
        return pq.read_table(pa.BufferReader(data), schema=SCHEMA)

    # ------------------------------------------------------------ verifying

    def verify(self) -> list[Problem]:
        """Everything that is wrong: missing or altered files, gaps, overlaps, digests that do not chain. For `doctor`.

        Reads every file.
        """
        try:
            entries, _ = read_manifest(self.folder)  # a half-written last line is no damage: the writer drops it
        except ArchiveDamaged as err:
            return [Problem(MANIFEST, err.message)]
        problems = []
        ends: dict[int, ArchiveFile] = {}
        for entry in entries:
            before = ends.get(entry.partition)
            problems += [Problem(entry.path, reason) for reason in _misplaced(before, entry)]
            problems += [Problem(entry.path, reason) for reason in self._faults(entry)]
            ends[entry.partition] = entry
        return problems

    def check(self) -> None:
        """Raises ArchiveDamaged with every problem of `verify`."""
        problems = self.verify()
        if problems:
            first = problems[0]
            raise ArchiveDamaged(f"{len(problems)} problems in the archive; {first.path}: {first.reason}", problems)

    def _faults(self, entry: ArchiveFile) -> Iterator[str]:
        try:
            rows = self._proved(entry)
        except ArchiveDamaged as err:
            yield err.message
            return
        offsets, records = _columns(rows)
        if len(offsets) != entry.rows or offsets[:1] != [entry.first_offset] or offsets[-1:] != [entry.last_offset]:
            yield "its rows are not the ones its manifest entry counts"
        if any(b <= a for a, b in pairwise(offsets)):
            yield "its offsets do not rise"
        digest = chained(bytes.fromhex(entry.digest_before), zip(offsets, records, strict=True))
        if digest.hex() != entry.digest:
            yield "the digest over its records differs from its manifest entry"

    # ------------------------------------------------------------ writing

    def recover(self) -> list[str]:
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        entries, torn = read_manifest(self.folder)
        manifest = self.folder / MANIFEST
        if not manifest.exists() or (torn and not entries and manifest.stat().st_size == torn):
            self._start_manifest()
        elif torn:
            with manifest.open("r+b") as file:
                file.truncate(manifest.stat().st_size - torn)
                os.fsync(file.fileno())
        self._files = entries
        return self._sweep(entries)

    def add(self, partition: int, next_offset: int, generation: int, rows: pa.Table) -> ArchiveFile:
        if self._files is None:
            raise ArchiveDamaged("the archive is open for reading only: call recover() first")
        before = next((entry for entry in reversed(self._files) if entry.partition == partition), None)
        start = before.next if before else 0
        offsets, records = _columns(rows)
        if not offsets or offsets[0] < start or offsets[-1] >= next_offset:
            raise ArchiveDamaged(
                f"these records are not the ones of partition {partition} from {start} to {next_offset}"
            )
        data = _parquet(rows)
        digest_before = before.digest if before else NO_DIGEST.hex()
        entry = ArchiveFile(
            path=f"p{partition}/{start:015d}-{next_offset:015d}.parquet",
            partition=partition,
            generation=generation,
            start=start,
            next=next_offset,
            first_offset=offsets[0],
            last_offset=offsets[-1],
            rows=len(offsets),
            bytes=len(data),
            sha256=sha256(data).hexdigest(),
            footer_sha256=sha256(footer_of(data)).hexdigest(),
            digest_before=digest_before,
            digest=chained(bytes.fromhex(digest_before), zip(offsets, records, strict=True)).hex(),
        )
        self._write_file(entry, data)
        self._append(msgspec.json.encode(entry))
        self._files.append(entry)
        failpoint("archive.after_manifest")
        return entry

    def close(self) -> None:
        """Give the writer's lock up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._files = None

    def _write_file(self, entry: ArchiveFile, data: bytes) -> None:
        path = self.path(entry)
        if not path.parent.exists():
            path.parent.mkdir()
            _sync_folder(self.folder)
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        failpoint("archive.before_rename")
        aside.rename(path)
        _sync_folder(path.parent)
        failpoint("archive.after_rename")

    def _append(self, line: bytes) -> None:
        with (self.folder / MANIFEST).open("ab") as file:
            file.write(_check(line) + b" " + line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _start_manifest(self) -> None:
        """The first line is there before any file, so that a lost manifest is told from a new archive."""
        aside = self.folder / "manifest.tmp"
        with aside.open("wb") as file:
            file.write(_check(_HEADER) + b" " + _HEADER + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.folder / MANIFEST)
        _sync_folder(self.folder)

    def _sweep(self, entries: list[ArchiveFile]) -> list[str]:
        """Remove what a crash left between two durable steps. Never a file below what the manifest covers."""
        listed = {entry.path for entry in entries}
        ends = {entry.partition: entry.next for entry in entries}
        swept = []
        for path in sorted(self.folder.glob("p*/*")):
            name = path.relative_to(self.folder).as_posix()
            if name in listed:
                continue
            if path.suffix == ".parquet" and _start_of(path) < ends.get(int(path.parent.name[1:]), 0):
                raise ArchiveDamaged(f"{name} overlaps what the manifest lists: move it away or restore the manifest")
            path.unlink()
            swept.append(name)
        return swept

    def _take_lock(self) -> int:
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(handle)
            raise FolderLocked(f"another process writes the archive in {self.folder}") from err
        return handle


def read_manifest(folder: Path) -> tuple[list[ArchiveFile], int]:
    """The entries, and how many bytes of a half-written last line follow them. Raises ArchiveDamaged.

    A line without its end is a torn write, which the writer drops; a whole line that is wrong is damage.
    """
    manifest = folder / MANIFEST
    try:
        data = manifest.read_bytes()
    except FileNotFoundError:
        if any(folder.glob("p*/*.parquet")):
            raise ArchiveDamaged(f"{manifest} is missing, its files are there: restore it from a backup") from None
        return [], 0
    lines = data.split(b"\n")
    torn = len(lines.pop())
    entries = []
    for number, line in enumerate(lines, start=1):
        check, _, body = line.partition(b" ")
        if check != _check(body):
            raise ArchiveDamaged(f"{manifest}: line {number} is damaged: restore the manifest from a backup")
        if number > 1:
            entries.append(_ENTRY.decode(body))
        elif body != _HEADER:
            raise ArchiveDamaged(f"{manifest} is not an archive manifest this build reads")
    return entries, torn


def next_offsets_of(entries: Iterable[ArchiveFile], partitions: int = 4) -> list[int]:
    """By partition: the first offset that no entry covers."""
    ends = [0] * partitions
    for entry in entries:
        ends[entry.partition] = entry.next
    return ends


def dataset(folder: Path, entries: Sequence[ArchiveFile]) -> ds.FileSystemDataset:
    """The files as one Arrow dataset, opened here and now: reading it later opens nothing.

    Sizes and footers are proved now, each page's CRC as it is read. Raises ArchiveDamaged.
    """
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    fragments = [parquet.make_fragment(cast(IO[bytes], _opened(folder, entry))) for entry in entries]
    return ds.FileSystemDataset(fragments, SCHEMA, parquet)


def _opened(folder: Path, entry: ArchiveFile) -> pa.NativeFile:
    try:
        file = pa.OSFile(str(folder / entry.path), "rb")
    except OSError as err:
        raise ArchiveDamaged(f"{entry.path}: {os.strerror(err.errno or 0)}") from err
    tail = b""
    if file.size() == entry.bytes:
        file.seek(max(0, entry.bytes - _FOOTER_GUESS))
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if _FOOTER_GUESS < length <= entry.bytes:
            file.seek(entry.bytes - length)
            tail = file.read()
    if not tail or sha256(footer_of(tail)).hexdigest() != entry.footer_sha256:
        raise ArchiveDamaged(f"{entry.path} differs from its manifest: restore it from a backup")
    file.seek(0)
    return file


def footer_of(data: bytes | memoryview) -> bytes:
    """The Parquet footer with its length and magic, from a file or its end. Raises ArchiveDamaged."""
    if len(data) < 12 or bytes(data[-4:]) != b"PAR1":
        raise ArchiveDamaged("not a Parquet file")
    length = int.from_bytes(data[-8:-4], "little") + 8
    return bytes(data[-length:])


def _columns(rows: pa.Table) -> tuple[list[int], list[bytes]]:
    """Offsets and `record` bytes."""
    return cast(list[int], rows.column("offset").to_pylist()), cast(list[bytes], rows.column("record").to_pylist())


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", compression_level=3, write_page_checksum=True, row_group_size=20_000)
    return bytes(sink.getvalue())


def _misplaced(before: ArchiveFile | None, entry: ArchiveFile) -> Iterator[str]:
    end, digest = (before.next, before.digest) if before else (0, NO_DIGEST.hex())
    if entry.start > end:
        yield f"offsets [{end}, {entry.start}) are in no file"
    if entry.start < end:
        yield f"offsets from {entry.start} to {end} are in two files"
    if entry.digest_before != digest:
        yield "its digest does not follow the file before it"


def _check(line: bytes) -> bytes:
    return sha256(line).hexdigest()[:16].encode()


def _start_of(path: Path) -> int:
    digits = path.name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def give_back_memory() -> None:
    """After files were written: what the writers no longer use goes back to the system (a file takes 150 MB)."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
