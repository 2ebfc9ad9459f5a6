"""Where an archive's bytes lie: the port of `ParquetArchive`, and a folder behind it. `s3_files` is the other one.

    archive/manifest.jsonl      <16 hex of SHA-256> <JSON of ArchiveFile>\\n
    archive/p0/<start>-<next>.parquet

A file is written aside, synced, renamed, its folder synced; only then its manifest line is appended and synced. What
the manifest does not list was never archived: the log still has it.
"""

import fcntl
import os
import re
from collections.abc import Hashable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

import msgspec

from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, FolderLocked
from schemas.failpoints import failpoint

MANIFEST: Final = "manifest.jsonl"
HEADER: Final = b'{"touchfold_archive":1}'
REFRESH_S: Final = 10.0  # how old what a reader knows of a remote manifest may be
_PATH: Final = re.compile(r"p[0-9]{1,6}/[0-9a-f-]{1,100}\.parquet")
_ENTRY: Final = msgspec.json.Decoder(ArchiveFile)


class ArchiveFiles(Protocol):
    """Files and manifest entries, each written once and never changed. Any thread reads; one writes."""

    def entries(self, max_age_s: float = REFRESH_S) -> list[ArchiveFile]:
        """What the manifest lists, in order of each partition, at most so old. Raises ArchiveDamaged."""

    def every_entry(self) -> list[ArchiveFile]:
        """The same, nothing of it from memory: for `verify`."""

    def stamp(self) -> Hashable:
        """Differs when it is time to ask for `entries` again. Cheap."""

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        """The bytes of a listed file, unproved. `copies`: one at hand will do. Raises ArchiveDamaged: it is missing."""

    def local(self, deadline: float) -> Path:
        """A folder with a manifest and all that it lists, brought up by `deadline` (time.monotonic).

        Raises SqlLimit when they are too many, or when time is over: what was copied stays, so ask again.
        """

    def name(self, partition: int, start: int, next_offset: int, digest: str) -> str:
        """What a file is called. `digest`: SHA-256 of its bytes."""

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        """Become a writer; the entries, and the names of files that were swept. See ArchiveStore.recover."""

    def newer(self, partition: int, start: int) -> list[ArchiveFile]:
        """Entries of a partition from offset `start` on that others have written."""

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns, and never seen in part."""

    def append(self, entry: ArchiveFile) -> None:
        """List a file that was put. Durable. Raises ProgressConflict when another is listed at its start."""

    def close(self) -> None: ...


# ---------------------------------------------------------------- lines of a manifest


def line_of(body: bytes) -> bytes:
    """A line with its check in front."""
    return _check(body) + b" " + body + b"\n"


def body_of(line: bytes, where: str) -> bytes:
    """What a line (without its end) says. Raises ArchiveDamaged, naming `where`."""
    check, _, body = line.partition(b" ")
    if check != _check(body):
        raise ArchiveDamaged(f"{where} is damaged: restore the manifest from a backup")
    return body


def entry_of(line: bytes, where: str) -> ArchiveFile:
    """Raises ArchiveDamaged."""
    try:
        entry = _ENTRY.decode(body_of(line, where))
    except msgspec.MsgspecError as err:
        raise ArchiveDamaged(f"{where} is not an entry this build reads") from err
    if _PATH.fullmatch(entry.path) is None:
        raise ArchiveDamaged(f"{where} names a file outside of the archive")
    return entry


def _check(body: bytes) -> bytes:
    return sha256(body).hexdigest()[:16].encode()


def manifest_of(entries: Iterable[ArchiveFile]) -> bytes:
    """A whole manifest of a folder."""
    return line_of(HEADER) + b"".join([line_of(msgspec.json.encode(entry)) for entry in entries])


def read_manifest(folder: Path) -> tuple[list[ArchiveFile], int]:
    """The entries, and how many bytes of a half-written last line follow them. Raises ArchiveDamaged.

    A line without its end is a torn write, which the writer drops; a whole line that is wrong is damage.
    """
    data = _manifest_bytes(folder)
    return ([], 0) if data is None else _parsed(data, 0, folder / MANIFEST)


def _manifest_bytes(folder: Path) -> bytes | None:
    manifest = folder / MANIFEST
    try:
        return manifest.read_bytes()
    except FileNotFoundError:
        if any(folder.glob("p*/*.parquet")):
            raise ArchiveDamaged(f"{manifest} is missing, its files are there: restore it from a backup") from None
        return None


def _parsed(data: bytes, start: int, manifest: Path) -> tuple[list[ArchiveFile], int]:
    """The entries of the lines from byte `start` on, and the length of a torn last one."""
    lines = data[start:].split(b"\n")
    torn = len(lines.pop())
    first = data[:start].count(b"\n") + 1
    entries = []
    for number, line in enumerate(lines, start=first):
        where = f"{manifest}: line {number}"
        if number > 1:
            entries.append(entry_of(line, where))
        elif body_of(line, where) != HEADER:
            raise ArchiveDamaged(f"{manifest} is not an archive manifest this build reads")
    return entries, torn


# ---------------------------------------------------------------- a folder


class FolderFiles:
    """An archive in a folder: one writer, which holds a lock on it; readers see whole files only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None
        # what was parsed, how many bytes, and their hash: of a manifest that grew only the rest is parsed again
        self._known: tuple[list[ArchiveFile], int, bytes] = ([], 0, sha256(b"").digest())

    def entries(self, max_age_s: float = 0.0) -> list[ArchiveFile]:
        data = _manifest_bytes(self.folder)
        if data is None:
            return []
        known, at, digest = self._known
        if not at or sha256(data[:at]).digest() != digest:
            known, at = [], 0
        more, torn = _parsed(data, at, self.folder / MANIFEST)
        whole = known + more
        end = len(data) - torn
        if end != at:
            self._known = (whole, end, sha256(data[:end]).digest())
        return list(whole)

    def every_entry(self) -> list[ArchiveFile]:
        return read_manifest(self.folder)[0]  # a half-written last line is no damage: the writer drops it

    def stamp(self) -> Hashable:
        try:
            found = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def path(self, entry: ArchiveFile) -> Path:
        return self.folder / entry.path

    def read(self, entry: ArchiveFile, *, copies: bool = True) -> bytes:
        try:
            return self.path(entry).read_bytes()
        except OSError as err:
            raise ArchiveDamaged(f"{entry.path}: {err.strerror}") from err

    def local(self, deadline: float) -> Path:
        return self.folder

    def name(self, partition: int, start: int, next_offset: int, digest: str) -> str:
        return f"p{partition}/{start:015d}-{next_offset:015d}.parquet"

    # ------------------------------------------------------------ writing

    def recover(self) -> tuple[list[ArchiveFile], list[str]]:
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        entries, torn = read_manifest(self.folder)
        manifest = self.folder / MANIFEST
        if not manifest.exists() or (torn and not entries and manifest.stat().st_size == torn):
            # the first line is there before any file, so that a lost manifest is told from a new archive
            write_whole(manifest, line_of(HEADER))
        elif torn:
            with manifest.open("r+b") as file:
                file.truncate(manifest.stat().st_size - torn)
                os.fsync(file.fileno())
        return entries, self._sweep(entries)

    def newer(self, partition: int, start: int) -> list[ArchiveFile]:
        return []  # nobody else writes while we hold the lock

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        if not path.parent.exists():
            path.parent.mkdir()
            sync_folder(self.folder)
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        failpoint("archive.before_rename")
        aside.rename(path)
        sync_folder(path.parent)
        failpoint("archive.after_rename")

    def append(self, entry: ArchiveFile) -> None:
        with (self.folder / MANIFEST).open("ab") as file:
            file.write(line_of(msgspec.json.encode(entry)))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Give the writer's lock up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sweep(self, entries: list[ArchiveFile]) -> list[str]:
        """Remove what a crash left between two durable steps. Never a file below what the manifest covers."""
        listed = {entry.path for entry in entries}
        ends = {entry.partition: entry.next for entry in entries}
        swept = []
        for path in sorted(self.folder.glob("p*/*")):
            name = path.relative_to(self.folder).as_posix()
            if name in listed:
                continue
            if path.suffix == ".parquet" and start_of(path.name) < ends.get(int(path.parent.name[1:]), 0):
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


def start_of(name: str) -> int:
    """The first offset that a file of this name covers."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def write_whole(path: Path, data: bytes) -> None:
    """Durably, and never seen in part: aside, then renamed."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
