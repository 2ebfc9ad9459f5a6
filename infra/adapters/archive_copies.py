"""Local copies of a remote archive's files: a folder that is itself an archive folder, for who reads local files.

A file never changes and its name holds its hash, so a copy is right or it is not used. The folder is bounded: a
statement of SQL reads all files, so there is nothing that could be evicted, and an archive that is larger is refused.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.adapters.archive_files import MANIFEST, manifest_of, write_whole
from infra.adapters.disk import reserve_bytes, space
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, DiskFull, SqlLimit

MOST_BYTES: Final = 20 * 2**30
AT_ONCE: Final = 8  # downloads
FRESH_S: Final = 5.0  # a copy of the manifest so old will do: what is newer is in the log's tail as well
_WAIT_S: Final = 0.05

Read = Callable[[ArchiveFile], bytes]


class Copies:
    """The copies of one machine. Several processes share the folder: one of them fetches, the others wait for it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self._most = most_bytes
        self._have: set[str] = set()

    def read(self, entry: ArchiveFile) -> bytes | None:
        """The bytes of a copy, proved; None when there is none."""
        path = self.folder / entry.path
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if sha256(data).hexdigest() == entry.sha256:
            return data
        path.unlink(missing_ok=True)
        self._have.discard(entry.path)
        return None

    def fresh(self) -> bool:
        """Whether the manifest here was written a moment ago."""
        try:
            return time.time() - (self.folder / MANIFEST).stat().st_mtime < FRESH_S
        except FileNotFoundError:
            return False

    def bring(self, entries: Sequence[ArchiveFile], read: Read, deadline: float) -> None:
        """Fetch what is missing and write the manifest. Raises SqlLimit, DiskFull, and what `read` raises."""
        size = sum(entry.bytes for entry in entries)
        if size > self._most:
            raise SqlLimit(
                f"the archive has {_gib(size)} GiB, and copies here may have {_gib(self._most)}: query its"
                " Parquet files in the object store with an engine that is made for such sizes"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(deadline):
            if not self._have:
                self._sweep()
            missing = [entry for entry in entries if not self._has(entry)]
            self._check_disk(sum(entry.bytes for entry in missing))
            left = self._fetch(missing, read, deadline)
            if left:
                raise SqlLimit(
                    f"the archive's files are being copied to this machine, {len(entries) - left} of {len(entries)} are"
                    " here: ask again to go on"
                )
            write_whole(self.folder / MANIFEST, manifest_of(entries))

    def _sweep(self) -> None:
        """Files that a killed process was writing; under the lock nobody writes."""
        for path in self.folder.glob("p*/*.tmp"):
            path.unlink(missing_ok=True)

    def _has(self, entry: ArchiveFile) -> bool:
        if entry.path in self._have:
            return True
        try:
            found = (self.folder / entry.path).stat().st_size == entry.bytes
        except FileNotFoundError:
            return False
        if found:
            self._have.add(entry.path)
        return found

    def _check_disk(self, needed: int) -> None:
        disk = space(self.folder)
        if needed > disk.free - reserve_bytes(disk.total):
            raise DiskFull(f"copies of the archive need {_gib(needed)} GiB more in {self.folder}: there is no room")

    def _fetch(self, missing: Sequence[ArchiveFile], read: Read, deadline: float) -> int:
        """Several at once, until the deadline; how many are left."""
        waiting = iter(missing)
        left = len(missing)
        with ThreadPoolExecutor(AT_ONCE, "archive copies") as pool:
            running: set[Future[None]] = set()
            while left and time.monotonic() < deadline:
                while len(running) < AT_ONCE and (entry := next(waiting, None)) is not None:
                    running.add(pool.submit(self._copy, entry, read))
                done, running = wait(running, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
                for each in done:
                    each.result()
                    left -= 1
        return left

    def _copy(self, entry: ArchiveFile, read: Read) -> None:
        data = read(entry)
        if sha256(data).hexdigest() != entry.sha256:
            raise ArchiveDamaged(f"{entry.path} differs from its manifest: restore it from a backup")
        path = self.folder / entry.path
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)
        self._have.add(entry.path)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """Alone among the processes of this machine."""
        handle = os.open(self.folder / ".copies.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= deadline:
                        raise SqlLimit("the archive's files are being copied to this machine: ask again") from None
                    time.sleep(_WAIT_S)
            yield
        finally:
            os.close(handle)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
