"""Storage of an archive: the port of `ParquetArchive`, and a folder that implements it; `s3_files` is the other one.

    archive/manifest.jsonl                      format: see `manifest`
    archive/p0/<start>-<next>.parquet           written by an archiver
    archive/p0/<start>-<next>-<hash>.parquet    written by a merge of files that cover the same offsets

A file is written under another name, synced and renamed, and its folder synced; only then is its manifest line
appended and synced. What the manifest does not list was never archived: the log still has it. Files replaced by a
merge stay for a while, for readers of the older manifest.
"""

import fcntl
import os
import time
from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from infra.adapters.archive.grace import GRACE_S, Grace
from infra.adapters.archive.manifest import (
    HEADER,
    MANIFEST,
    Live,
    Named,
    line_of,
    manifest_bytes,
    manifest_of,
    named,
    parse,
    read_manifest,
    replaced_by,
    start_of,
)
from infra.adapters.machine.durable_files import sync_folder, write_whole
from infra.adapters.machine.private_files import close_to_others, make_folder, open_private
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, FolderLocked, Problem
from schemas.failpoints import failpoint

if TYPE_CHECKING:
    from hashlib import _Hash as Hash
    from io import FileIO

REFRESH_S: Final = 10.0  # maximum age of what a reader knows of a remote manifest
_SPARE: Final = 64  # a manifest with this many replaced lines is rewritten, if they outnumber the rest
_PIECE: Final = 2**20  # bytes
_RACY_S: Final = 0.1  # a file changed this recently may change again without a new timestamp


class ArchiveFiles(Protocol):
    """Files and manifest entries, each written once and never changed. Any thread reads; one writes."""

    def entries(self, max_age_s: float = REFRESH_S) -> list[ArchiveFile]:
        """What the manifest lists, in order within each partition, at most `max_age_s` old. Raises ArchiveDamaged."""

    def every_entry(self) -> list[ArchiveFile]:
        """The same without using anything cached: for `verify`."""

    def known(self) -> list[ArchiveFile]:
        """The same as far as known here, without asking a remote store."""

    def stamp(self) -> Hashable:
        """Changes when it is time to ask for `entries` again. Cheap."""

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        """The unverified bytes of a listed file. `copies`: a local copy will do. Raises ArchiveDamaged: missing."""

    def local(self, deadline: float) -> "FolderFiles":
        """A folder with a manifest and everything that it lists, up to date by `deadline` (time.monotonic).

        Raises SqlLimit if there are too many files or time is up; what was copied stays, so ask again.
        """

    def open(self, entry: ArchiveFile) -> IO[bytes]:
        """A listed file as an unverified local file; it stays readable when the listed one is removed.

        Raises ArchiveDamaged if it is missing.
        """

    def name(self, partition: int, start: int, next_offset: int, digest: str, seq: int | None = None) -> str:
        """The name of a file. `digest`: SHA-256 of its bytes; `seq`: for a merge (see `next_seq`)."""

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        """Become a writer; returns the entries and the names of removed leftovers. See ArchiveStore.recover."""

    def newer(self, partition: int) -> list[ArchiveFile]:
        """What the manifest lists of a partition, including entries of other writers."""

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns; never visible in part."""

    def append(self, entry: ArchiveFile) -> None:
        """List a file that was put. Durable. Raises ProgressConflict if another is listed at its start."""

    # ------------------------------------------------------------ replacing

    def scratch(self) -> Path:
        """A path to write a merge to, on the disk that it is put from; holds nothing of a crashed merge."""

    def next_seq(self, partition: int) -> int:
        """The number that the next replacement of a partition gets."""

    def put_file(self, name: str, made: Path) -> None:
        """Like `put`, for a synced file from `scratch`, which is gone afterwards."""

    def replace(self, entry: ArchiveFile) -> None:
        """List a file in place of those that cover its offsets. Durable. Raises ProgressConflict if others did."""

    def retired(self, partition: int) -> dict[str, ArchiveFile]:
        """Files replaced longer than GRACE_S ago, with the entry that replaced each."""

    def remove(self, partition: int, paths: Sequence[str]) -> None:
        """Remove retired files."""

    def close(self) -> None: ...


# ---------------------------------------------------------------- a folder


class _Known(NamedTuple):
    """What was read of a manifest."""

    live: Live
    upto: int  # bytes parsed so far
    digest: bytes  # of those bytes
    stamp: Hashable  # None: read again in any case


class FolderFiles:
    """An archive in a folder: one writer, which holds a lock on it; readers only see complete files."""

    def __init__(self, folder: Path, grace_s: float = GRACE_S) -> None:
        self.folder = folder
        self._grace = Grace(grace_s)
        self._lock: int | None = None
        self._known = _Known(Live(), 0, sha256(b"").digest(), None)

    def entries(self, max_age_s: float = 0.0) -> list[ArchiveFile]:
        return list(self._look().live)

    def _look(self) -> _Known:
        """The manifest; if it has not changed, nothing is read; if it grew, only the rest is parsed."""
        stamp = self.stamp()
        known = self._known
        if stamp is not None and known.stamp == stamp:
            return known
        data = manifest_bytes(self.folder)
        if data is None:
            return _Known(Live(), 0, sha256(b"").digest(), None)
        if not known.upto or sha256(data[: known.upto]).digest() != known.digest:
            live, at = Live(), 0
        else:
            live, at = known.live.copy(), known.upto
        end = len(data) - parse(data, at, self.folder / MANIFEST, live)
        settled = end == len(data) and _is_settled(self.folder / MANIFEST)
        self._known = _Known(live, end, sha256(data[:end]).digest(), stamp if settled else None)
        return self._known

    def known(self) -> list[ArchiveFile]:
        return self.entries()

    def every_entry(self) -> list[ArchiveFile]:
        return read_manifest(self.folder)[0]  # a half-written last line is not damage: the writer drops it

    def stamp(self) -> Hashable:
        try:
            found = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def path(self, entry: ArchiveFile) -> Path:
        return self.folder / entry.path

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        with self.open(entry) as file:
            try:
                return file.read()
            except OSError as err:  # an unreadable sector
                raise _unreadable(entry, err) from err

    def open(self, entry: ArchiveFile) -> IO[bytes]:
        try:
            return self.path(entry).open("rb")
        except OSError as err:
            raise _unreadable(entry, err) from err

    def local(self, deadline: float) -> "FolderFiles":
        return self

    def name(self, partition: int, start: int, next_offset: int, digest: str, seq: int | None = None) -> str:
        rest = "" if seq is None else f"-{digest[:16]}"
        return f"p{partition}/{start:015d}-{next_offset:015d}{rest}.parquet"

    # ------------------------------------------------------------ writing

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        if self._lock is None:
            make_folder(self.folder)
            self._lock = self._take_lock()
            close_to_others(self.folder)
        entries, torn = read_manifest(self.folder)
        manifest = self.folder / MANIFEST
        if not manifest.exists() or (torn and not entries and manifest.stat().st_size == torn):
            # the first line is written before any file, so that a lost manifest can be told from a new archive
            write_whole(manifest, line_of(HEADER))
        elif torn:
            with manifest.open("r+b") as file:
                file.truncate(manifest.stat().st_size - torn)
                os.fsync(file.fileno())
        return entries, self._sweep(entries)

    def newer(self, partition: int) -> list[ArchiveFile]:
        return [entry for entry in self.entries() if entry.partition == partition]

    def put(self, name: str, data: bytes) -> None:
        aside = (self.folder / name).with_suffix(".tmp")
        self._partition_folder(name)
        with open_private(aside) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        failpoint("archive.before_rename")
        aside.rename(self.folder / name)
        sync_folder(aside.parent)
        failpoint("archive.after_rename")

    def append(self, entry: ArchiveFile) -> None:
        with (self.folder / MANIFEST).open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, line_of(msgspec.json.encode(entry)))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # half a line would spoil the next one, once a full disk has space again
                raise

    # ------------------------------------------------------------ replacing

    def scratch(self) -> Path:
        return self.folder / "merge.tmp"  # one writer, one merge at a time: it overwrites leftovers of a crash

    def next_seq(self, partition: int) -> int:
        return 0

    def put_file(self, name: str, made: Path) -> None:
        self._partition_folder(name)
        made.rename(self.folder / name)
        sync_folder((self.folder / name).parent)

    def replace(self, entry: ArchiveFile) -> None:
        known = self._look()
        live = known.live.copy()
        live.take(entry, f"{self.folder / MANIFEST}: the new line")
        entries = list(live)
        if known.live.plain or live.lines > 2 * len(entries) + _SPARE:
            data = manifest_of(entries)
            write_whole(self.folder / MANIFEST, data, "archive.manifest_written")
            failpoint("archive.manifest_renamed")
        else:
            self.append(entry)
        self._grace.began(entry)

    def retired(self, partition: int) -> dict[str, ArchiveFile]:
        entries = self.newer(partition)
        listed = {entry.path for entry in entries}
        found: dict[str, ArchiveFile] = {}
        for path in self.folder.glob(f"p{partition}/*.parquet"):
            name = path.relative_to(self.folder).as_posix()
            told = named(name)
            if name in listed or told is None:
                continue
            by = replaced_by(told, entries)
            if by is not None and self._grace.is_over(by):
                found[name] = by
        return found

    def remove(self, partition: int, paths: Sequence[str]) -> None:
        for path in paths:
            (self.folder / path).unlink(missing_ok=True)
            failpoint("archive.retired")
        if paths:
            sync_folder(self.folder / f"p{partition}")

    def close(self) -> None:
        """Release the writer's lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _partition_folder(self, name: str) -> None:
        folder = (self.folder / name).parent
        if not folder.exists():
            make_folder(folder)
            sync_folder(self.folder)

    def _sweep(self, entries: list[ArchiveFile]) -> list[str]:
        """Remove what a crash left between two durable steps.

        Raises ArchiveDamaged for an unlisted file at offsets that the manifest covers, unless it was replaced, or is
        the result of a merge whose inputs are all here.
        """
        listed = {entry.path: entry for entry in entries}
        ends = {entry.partition: entry.next for entry in entries}
        swept = []
        for path in sorted(self.folder.glob("p*/*")):
            name = path.relative_to(self.folder).as_posix()
            if name in listed:
                continue
            if path.suffix == ".parquet" and start_of(path.name) < ends.get(int(path.parent.name[1:]), 0):
                told = named(name)
                of_partition = [entry for entry in entries if told and entry.partition == told.partition]
                if told is not None and replaced_by(told, of_partition) is not None:
                    continue  # `retired` returns it when its grace period is over
                if told is None or not self._is_spare(told, of_partition):
                    raise ArchiveDamaged(
                        f"{name} overlaps what the manifest lists: move it away or restore the manifest"
                    )
            path.unlink()
            swept.append(name)
        for path in self.folder.glob("*.tmp"):
            path.unlink()
        return swept

    def _is_spare(self, told: Named, entries: Sequence[ArchiveFile]) -> bool:
        """Whether a file is the result of a merge, and all its inputs are listed and here."""
        run = [entry for entry in entries if told.start <= entry.start and entry.next <= told.next]
        covered = bool(run) and run[0].start == told.start and run[-1].next == told.next
        return covered and bool(told.rest) and all(_has_size(self.path(entry), entry.bytes) for entry in run)

    def _take_lock(self) -> int:
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(handle)
            raise FolderLocked(f"another process is writing the archive in {self.folder}") from err
        return handle


def _unreadable(entry: ArchiveFile, err: OSError) -> ArchiveDamaged:
    """The error names the file, so that merging skips it and goes on."""
    text = f"{entry.path} cannot be read ({err.strerror}): restore it from a backup"
    return ArchiveDamaged(text, [Problem(entry.path, text)])


def _write_all(file: "FileIO", data: bytes) -> None:
    """Write all of it or raise OSError: an unbuffered file may write less than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _is_settled(path: Path) -> bool:
    """Whether any later change would also change its timestamp: file system clocks tick every few milliseconds."""
    return abs(time.time() - path.stat().st_mtime) > _RACY_S  # in the future: the clock was set back


def hash_of(file: IO[bytes], into: "Hash") -> "Hash":
    """`into`, updated with the rest of a file; in pieces, so that its size does not matter."""
    while piece := file.read(_PIECE):
        into.update(piece)
    return into
