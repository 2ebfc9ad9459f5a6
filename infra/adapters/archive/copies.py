"""Local copies of a remote archive's files: a folder that is itself an archive folder, for readers of local files.

A file never changes and its name holds its hash, so a copy is either right or not used. The folder is bounded: an SQL
statement reads all files, so nothing can be evicted, and a larger archive is refused.
"""

import fcntl
import os
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from infra.adapters.archive.files import FolderFiles, hash_of
from infra.adapters.archive.grace import GRACE_S
from infra.adapters.archive.manifest import MANIFEST, manifest_of
from infra.adapters.archive.proofs import Proofs, within
from infra.adapters.machine.disk import reserve_bytes, space
from infra.adapters.machine.durable_files import write_whole
from infra.adapters.machine.private_files import make_folder
from schemas.archive import ArchiveFile
from schemas.errors import ArchiveDamaged, DiskFull, SqlLimit

MOST_BYTES: Final = 20 * 2**30
AT_ONCE: Final = 8  # downloads
FRESH_S: Final = 5.0  # maximum age of a copy of the manifest: anything newer is in the log's tail as well
_PROVED_BYTES: Final = 256 * 2**20  # verified per call: some tenths of a second
_WAIT_S: Final = 0.05

Read = Callable[[ArchiveFile], bytes]


class Copies:
    """The copies of one machine. Several processes share the folder: one of them fetches, the others wait for it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self.files = FolderFiles(folder)
        self.proofs = Proofs(self.files)
        self._most = most_bytes
        self._have: set[str] = set()
        self._unlisted: dict[str, float] = {}  # copies of replaced files -> since when (time.monotonic)

    def read(self, entry: ArchiveFile) -> bytes | None:
        """The verified bytes of a copy; None if there is none."""
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

    def open(self, entry: ArchiveFile) -> IO[bytes] | None:
        """A copy as a verified file; None if there is none."""
        path = self.folder / entry.path
        try:
            file = path.open("rb")
        except OSError:
            return None
        if hash_of(file, sha256()).hexdigest() == entry.sha256:
            file.seek(0)
            return file
        file.close()
        path.unlink(missing_ok=True)
        self._have.discard(entry.path)
        return None

    def unnamed(self) -> IO[bytes]:
        """A file that disappears when it is closed."""
        make_folder(self.folder)
        return TemporaryFile(dir=self.folder)

    def scratch(self) -> Path:
        """A path that only this process uses."""
        make_folder(self.folder)
        return self.folder / f"merge.{os.getpid()}.tmp"

    def forget_scratch(self, older_s: float) -> None:
        """Remove scratch files left by killed processes."""
        for path in self.folder.glob("merge.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_s:
                    path.unlink()

    def fresh(self) -> bool:
        """Whether the manifest here was written less than FRESH_S ago."""
        try:
            return time.time() - (self.folder / MANIFEST).stat().st_mtime < FRESH_S
        except FileNotFoundError:
            return False

    def bring(self, entries: Sequence[ArchiveFile], read: Read, deadline: float) -> None:
        """Fetch what is missing and write the manifest. Raises SqlLimit, DiskFull, and what `read` raises."""
        size = sum(entry.bytes for entry in entries)
        if size > self._most:
            raise SqlLimit(
                f"the archive has {_gib(size)} GiB, but copies here may only take {_gib(self._most)}: query its"
                " Parquet files in the object store with an engine made for such sizes"
            )
        make_folder(self.folder)
        with self._locked(deadline):
            if not self._have:
                self._sweep()
            self._prove(entries)
            missing = [entry for entry in entries if not self._has(entry)]
            self._check_disk(sum(entry.bytes for entry in missing))
            left = self._fetch(missing, read, deadline)
            if left:
                raise SqlLimit(
                    f"the archive's files are being copied to this machine, {len(entries) - left} of {len(entries)} are"
                    " here: ask again to continue"
                )
            write_whole(self.folder / MANIFEST, manifest_of(entries))
            self._forget({entry.path for entry in entries})

    def _prove(self, entries: Sequence[ArchiveFile]) -> None:
        """Verify some copies, so that statements need not; a damaged one is fetched again."""
        here = [entry for entry in entries if self._has(entry)]
        for problem in self.proofs.prove(within(self.proofs.due(here), _PROVED_BYTES)):
            (self.folder / problem.path).unlink(missing_ok=True)
            self._have.discard(problem.path)

    def _forget(self, listed: Container[str]) -> None:
        """Remove copies of files replaced a while ago: readers of the older manifest have opened them by now."""
        now = time.monotonic()
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.glob("p*/*.parquet")}
        self._unlisted = {path: self._unlisted.get(path, now) for path in found if path not in listed}
        for path in [path for path, since in self._unlisted.items() if now - since > GRACE_S]:
            (self.folder / path).unlink(missing_ok=True)
            self._have.discard(path)

    def _sweep(self) -> None:
        """Remove files that a killed process was writing; nobody else writes while we hold the lock."""
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
            raise DiskFull(f"copies of the archive need {_gib(needed)} GiB more in {self.folder}: there is no space")

    def _fetch(self, missing: Sequence[ArchiveFile], read: Read, deadline: float) -> int:
        """Fetch several in parallel until the deadline; returns how many are left."""
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
            raise ArchiveDamaged(f"{entry.path} does not match its manifest: restore it from a backup")
        path = self.folder / entry.path
        make_folder(path.parent)
        write_whole(path, data)
        self._have.add(entry.path)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """Exclude the other processes of this machine."""
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
