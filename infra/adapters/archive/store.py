"""`ArchiveStore` of Parquet (zstd) files, in a folder or in an object store (`archive_at`).

Common to both: the files themselves, the chain of digests over them, verifying, reading. Where bytes and manifest are
stored, and how a second writer is detected, is up to `ArchiveFiles` (files, s3_files).
"""

import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from infra.adapters.archive.files import ArchiveFiles, FolderFiles
from infra.adapters.archive.manifest import MANIFEST, read_manifest
from infra.adapters.archive.parquet import (
    Groups,
    Made,
    columns_of,
    damaged,
    dataset,
    footer_of,
    groups_of,
    merge_into,
    parquet_of,
)
from infra.adapters.archive.proofs import Proofs, Stat
from infra.adapters.archive.s3_url import s3_place
from schemas.archive import NO_DIGEST, ArchiveFile, chained
from schemas.errors import ArchiveDamaged, Problem, SettingsInvalid
from schemas.event_columns import SCHEMA, originals
from schemas.failpoints import failpoint
from schemas.record import Stored

__all__ = [
    "MANIFEST",
    "ParquetArchive",
    "archive_at",
    "dataset",
    "give_back_memory",
    "next_offsets_of",
    "read_manifest",
]

_LOCAL_S: Final = 60.0


def archive_at(
    location: str | Path,
    *,
    copies: Path,
    endpoint: str | None = None,
    partitions: int = 4,
    copies_bytes: int | None = None,
) -> "ParquetArchive":
    """The archive in a folder or at s3://bucket/prefix. Opens nothing. Raises SettingsInvalid.

    `copies`: folder for local copies of an object store's files; `copies_bytes`: their maximum total size (20 GiB).
    """
    if isinstance(location, Path) or "://" not in location:
        return ParquetArchive(Path(location), partitions)
    found = s3_place(location)
    if found is None:
        raise SettingsInvalid(f"the archive {location} is neither a folder nor s3://bucket/prefix")
    from infra.adapters.archive.copies import MOST_BYTES  # noqa: PLC0415
    from infra.adapters.archive.s3_files import S3Files  # noqa: PLC0415  # boto3 takes 0.2 s that a folder need not pay

    place = sha256(f"{endpoint or ''} {location.rstrip('/')}".encode()).hexdigest()[:12]
    files = S3Files(*found, copies / place, endpoint=endpoint, copies_bytes=copies_bytes or MOST_BYTES)
    return ParquetArchive(files, partitions)


class ParquetArchive:
    """Any number of readers, which only see complete files; writers after `recover`.

    `partitions`: minimum length of `next_offsets`; files of further partitions are read as well.
    """

    def __init__(self, place: Path | ArchiveFiles, partitions: int = 4) -> None:
        self.store: ArchiveFiles = FolderFiles(place) if isinstance(place, Path) else place
        self._partitions = partitions
        self._proofs: Proofs | None = None
        self._last: dict[int, ArchiveFile] | None = None  # the writer's: the last entry of each partition

    @property
    def folder(self) -> Path:
        """The folder of an archive in a folder."""
        assert isinstance(self.store, FolderFiles), "an archive in an object store has no folder"
        return self.store.folder

    # ------------------------------------------------------------ reading

    def files(self) -> list[ArchiveFile]:
        return self.store.entries()

    def next_offsets(self) -> list[int]:
        """The first offset of each partition that no entry covers."""
        return next_offsets_of(self.files(), self._partitions)

    def size_bytes(self) -> int:
        """Total size of all files."""
        return sum(entry.bytes for entry in self.files())

    def local_folder(self, deadline_s: float = _LOCAL_S) -> Path:
        """A folder with the manifest and all its files, for readers of local files: this one, or up-to-date copies.

        Raises SqlLimit if the files are too many or not here in time (ask again), DiskFull, StoreUnavailable.
        """
        return self.local(deadline_s).folder

    def local(self, deadline_s: float = _LOCAL_S) -> FolderFiles:
        """The same, with its manifest as far as read."""
        return self.store.local(time.monotonic() + deadline_s)

    def proofs(self) -> Proofs | None:
        """The proofs of an archive in a folder; None for an object store, which checks its own bytes."""
        return self._proofs_of(self.store) if isinstance(self.store, FolderFiles) else None

    def proved(self, files: FolderFiles, entries: Sequence[ArchiveFile]) -> dict[str, Stat]:
        """The state of local files (from `local`) when they were verified, by path."""
        return self._proofs_of(files).good(entries)

    def _proofs_of(self, files: FolderFiles) -> Proofs:
        if self._proofs is None:
            self._proofs = Proofs(files)
        return self._proofs

    def path(self, entry: ArchiveFile) -> Path:
        return self.folder / entry.path

    def read_records(self, partition: int, start: int) -> Iterator[Stored]:
        for entry in self.files():
            if entry.partition == partition and entry.next > start:
                rows = self.rows(entry)
                yield from (record for record in originals(rows) if record.offset >= start)

    def rows(self, entry: ArchiveFile, columns: Sequence[str] | None = None, *, copies: bool = True) -> pa.Table:
        """A file's rows, after checking its SHA-256. `copies`: a local copy will do. Raises ArchiveDamaged."""
        data = self._proved(entry, copies=copies)
        return pq.read_table(
            pa.BufferReader(data), schema=SCHEMA, columns=None if columns is None else list(columns), use_threads=False
        )

    def groups(self, entry: ArchiveFile) -> Groups:
        """A file's row groups, after checking its SHA-256; readable even once it is replaced. Raises ArchiveDamaged."""
        return Groups(entry, self.store.open(entry))

    def _proved(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        data = self.store.read(entry, copies=copies)
        if sha256(data).hexdigest() != entry.sha256:
            raise damaged(entry)
        return data

    # ------------------------------------------------------------ verifying

    def verify(self, tell: Callable[[int, int], None] = lambda _read, _files: None) -> list[Problem]:
        """Everything that is wrong: missing or altered files, gaps, overlaps, digests that do not chain.

        Reads every file; `tell` gets (files read, total). Files that a merge replaces meanwhile are fine.
        """
        try:
            entries = self.store.every_entry()
        except ArchiveDamaged as err:
            return [Problem(MANIFEST, err.message)]
        problems = []
        ends: dict[int, ArchiveFile] = {}
        for number, entry in enumerate(entries, 1):
            before = ends.get(entry.partition)
            problems += [Problem(entry.path, reason) for reason in _misplaced(before, entry)]
            problems += [Problem(entry.path, reason) for reason in self._faults(entry)]
            ends[entry.partition] = entry
            tell(number, len(entries))
        if not problems:
            return []
        listed = {entry.path for entry in self.store.every_entry()}
        return [problem for problem in problems if problem.path in listed]

    def check(self) -> None:
        """Raises ArchiveDamaged with every problem that `verify` finds."""
        problems = self.verify()
        if problems:
            first = problems[0]
            raise ArchiveDamaged(f"{len(problems)} problems in the archive; {first.path}: {first.reason}", problems)

    def _faults(self, entry: ArchiveFile) -> Iterator[str]:
        try:
            rows = self.rows(entry, copies=False)
        except ArchiveDamaged as err:
            yield err.message
            return
        offsets, records = columns_of(rows)
        bounds = (offsets[0], offsets[-1]) if offsets else (entry.start, entry.start - 1)
        if len(offsets) != entry.rows or bounds != (entry.first_offset, entry.last_offset):
            yield "its rows are not the ones its manifest entry counts"
        if any(b <= a for a, b in pairwise(offsets)):
            yield "its offsets are not ascending"
        digest = chained(bytes.fromhex(entry.digest_before), zip(offsets, records, strict=True))
        if digest.hex() != entry.digest:
            yield "the digest of its records does not match its manifest entry"

    # ------------------------------------------------------------ writing

    def recover(self) -> list[str]:
        entries, swept = self.store.recover()
        self._last = {entry.partition: entry for entry in entries}
        return swept

    def next_offset(self, partition: int) -> int:
        last = self._writing().get(partition)
        return last.next if last else 0

    def refresh(self, partition: int) -> None:
        last = self._writing()
        for entry in self.store.newer(partition)[-1:]:
            last[partition] = entry

    def add(self, partition: int, next_offset: int, generation: int, rows: pa.Table, clear: str = "") -> ArchiveFile:
        before = self._writing().get(partition)
        start = before.next if before else 0
        offsets, records = columns_of(rows)
        if next_offset <= start or (offsets and (offsets[0] < start or offsets[-1] >= next_offset)):
            raise ArchiveDamaged(f"these records do not match partition {partition} from {start} to {next_offset}")
        data = parquet_of(rows)
        digest = sha256(data).hexdigest()
        digest_before = before.digest if before else NO_DIGEST.hex()
        entry = ArchiveFile(
            path=self.store.name(partition, start, next_offset, digest),
            partition=partition,
            generation=generation,
            start=start,
            next=next_offset,
            first_offset=offsets[0] if offsets else start,
            last_offset=offsets[-1] if offsets else start - 1,
            rows=len(offsets),
            bytes=len(data),
            sha256=digest,
            footer_sha256=sha256(footer_of(data)).hexdigest(),
            digest_before=digest_before,
            digest=chained(bytes.fromhex(digest_before), zip(offsets, records, strict=True)).hex(),
            groups=groups_of(rows),
            clear=clear,
        )
        self.store.put(entry.path, data)
        self.store.append(entry)
        self._writing()[partition] = entry
        failpoint("archive.after_manifest")
        return entry

    # ------------------------------------------------------------ merging

    def known(self) -> list[ArchiveFile]:
        """See MergingStore."""
        self._writing()
        return self.store.known()

    def rewrite(
        self,
        entry: ArchiveFile,
        clear: str,
        remake: Callable[[pa.Table], pa.Table],
        check: Callable[[], None] = lambda: None,
    ) -> ArchiveFile:
        """See MergingStore."""
        changed = False

        def remade(table: pa.Table) -> pa.Table:
            nonlocal changed
            made = remake(table)
            changed = changed or not made.equals(table)
            return made

        made_at = self.store.scratch()
        try:
            made = merge_into(made_at, [entry], lambda each: self.store.read(each, copies=False), remade)
            new = msgspec.structs.replace(self._replacement([entry], made), clear=clear)
            if not changed:
                kept = {name: getattr(entry, name) for name in ("path", "bytes", "sha256", "footer_sha256", "groups")}
                new = msgspec.structs.replace(new, **kept)
            failpoint("archive.rewrite_written")
            if changed:
                self.store.put_file(new.path, made_at)
        finally:
            made_at.unlink(missing_ok=True)
        failpoint("archive.rewrite_put")
        self._list(new, entry, check)
        failpoint("archive.rewrite_listed")
        return new

    def _list(self, new: ArchiveFile, last: ArchiveFile, check: Callable[[], None]) -> None:
        """List a replacement of a run that ended with `last`."""
        check()
        self.store.replace(new)
        if self._writing()[new.partition].path == last.path:
            self._writing()[new.partition] = new

    def merge(self, run: Sequence[ArchiveFile], check: Callable[[], None] = lambda: None) -> ArchiveFile:
        """See MergingStore."""
        self._writing()
        first, last = run[0], run[-1]
        if len(run) < 2 or any(
            one.next != other.start or one.digest != other.digest_before for one, other in pairwise(run)
        ):
            text = f"{first.path} and the files after it are not contiguous"
            raise ArchiveDamaged(text, [Problem(first.path, text)])
        made_at = self.store.scratch()
        try:
            made = merge_into(made_at, run, lambda entry: self.store.read(entry, copies=False))
            entry = self._replacement(run, made)
            failpoint("archive.merge_written")
            self.store.put_file(entry.path, made_at)
        finally:
            made_at.unlink(missing_ok=True)
        failpoint("archive.merge_put")
        self._list(entry, last, check)
        failpoint("archive.merge_listed")
        return entry

    def _replacement(self, run: Sequence[ArchiveFile], made: Made) -> ArchiveFile:
        """The entry of a merged file. Raises ArchiveDamaged if its records are not those of the run."""
        first, last = run[0], run[-1]
        if made.digest.hex() != last.digest or made.rows != sum(entry.rows for entry in run):
            text = f"what was merged from {first.path} to {last.path} does not match these files"
            raise ArchiveDamaged(text, [Problem(first.path, text)])
        seq = self.store.next_seq(first.partition)
        return ArchiveFile(
            path=self.store.name(first.partition, first.start, last.next, made.sha256, seq),
            partition=first.partition,
            generation=last.generation,
            start=first.start,
            next=last.next,
            first_offset=made.offsets[0] if made.offsets else first.start,
            last_offset=made.offsets[1] if made.offsets else first.start - 1,
            rows=made.rows,
            bytes=made.size,
            sha256=made.sha256,
            footer_sha256=made.footer_sha256,
            digest_before=first.digest_before,
            digest=last.digest,
            groups=made.groups,
            replaces=len(run),
            replaced_at=int(time.time()),
            clear=first.clear if all(entry.clear == first.clear for entry in run) else "",
            seq=seq,
        )

    def retire(self, partition: int) -> int:
        """See MergingStore."""
        found = self.store.retired(partition)
        for entry in set(found.values()):
            self._proved(entry, copies=False)  # an unreadable file must not outlive its inputs
        self.store.remove(partition, sorted(found))
        return len(found)

    def close(self) -> None:
        """Release the writer's lock and connections."""
        self.store.close()
        self._last = None

    def _writing(self) -> dict[int, ArchiveFile]:
        if self._last is None:
            raise ArchiveDamaged("the archive is open for reading only: call recover() first")
        return self._last


def next_offsets_of(entries: Iterable[ArchiveFile], partitions: int = 4) -> list[int]:
    """The first offset of each partition that no entry covers; at least `partitions` of them."""
    ends = dict.fromkeys(range(partitions), 0)
    for entry in entries:
        ends[entry.partition] = entry.next
    return [ends.get(partition, 0) for partition in range(max(ends, default=-1) + 1)]


def _misplaced(before: ArchiveFile | None, entry: ArchiveFile) -> Iterator[str]:
    end, digest = (before.next, before.digest) if before else (0, NO_DIGEST.hex())
    if entry.start > end:
        yield f"offsets [{end}, {entry.start}) are in no file"
    if entry.start < end:
        yield f"offsets from {entry.start} to {end} are in two files"
    if entry.digest_before != digest:
        yield "its digest does not follow the file before it"


def give_back_memory() -> None:
    """Call after writing files: returns unused memory to the system (a file takes 150 MB)."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
