"""WAL on its way from PostgreSQL to a backup: taken from the server, sealed immediately, sent when possible.

    DATA/postgres/wal-out/<segment>          linked by PostgreSQL's archiver, while the file `on` exists
    DATA/backup/waiting/<chain>/<object>     sealed but not sent yet
    DATA/backup/following.json               the destination and the chain

One process at a time takes and sends: the one that holds `DATA/backup/lock`.
"""

import fcntl
import os
import pwd
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from infra.adapters.backup.sealing import seal_object
from infra.adapters.backup.store import BackupStore
from infra.adapters.backup.wal_segments import end_segment
from infra.adapters.machine.durable_files import sync_folder, write_whole
from infra.adapters.postgres.database import Database
from infra.adapters.postgres.embedded import WAL_OUT
from infra.adapters.postgres.server_account import server_account
from schemas.backups import Until, is_due, wal_name, wal_object
from schemas.errors import FolderLocked

_TAKES: Final = re.compile(r"[0-9A-F]{8}\.history|[0-9A-F]{24}(\.[0-9A-F]{8}\.backup|\.partial)?")


class Following(msgspec.Struct, frozen=True):
    """Where WAL goes."""

    to: str
    chain: str
    days: int


class Spool:
    """The spool of one data folder."""

    def __init__(self, data: Path) -> None:
        self._out = data / "postgres" / WAL_OUT
        self._folder = data / "backup"
        self._waiting = self._folder / "waiting"
        self._note = self._folder / "following.json"

    @contextmanager
    def lock(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Raises FolderLocked if another process is making a backup."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as err:
                    if time.monotonic() >= deadline:
                        raise FolderLocked("another process is backing up this data folder: wait for it") from err
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    # ------------------------------------------------------------ following

    def following(self) -> Following | None:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Following)
        except FileNotFoundError:
            return None

    def follow(self, to: str, days: int) -> Following:
        """Keep all WAL from now on for a place, in a new chain. WAL not yet sent to another place is dropped."""
        self.end()
        found = Following(to, secrets.token_hex(6), days)
        self._out.mkdir(exist_ok=True)
        (self._out / "on").touch()
        account = server_account()
        for path in (self._out, self._out / "on"):
            _give(path, account)
        sync_folder(self._out)
        write_whole(self._note, msgspec.json.encode(found))
        return found

    def keep_days(self, days: int) -> Following | None:
        """Apply a changed setting to what is sent from now on."""
        found = self.following()
        if found is not None and found.days != days:
            found = Following(found.to, found.chain, days)
            write_whole(self._note, msgspec.json.encode(found))
        return found

    def end(self) -> None:
        """Stop keeping WAL; unsent WAL is dropped."""
        (self._out / "on").unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        for path in self._raw():
            path.unlink()
        shutil.rmtree(self._waiting, ignore_errors=True)

    # ------------------------------------------------------------ taking and sending

    def _raw(self) -> list[Path]:
        if not self._out.is_dir():
            return []
        return sorted(path for path in self._out.iterdir() if _TAKES.fullmatch(path.name))

    def take(self, following: Following, key: bytes) -> int:
        """Seal the segments that PostgreSQL has finished; returns how many. None stays readable in the folder."""
        raw = self._raw()
        for path in raw:
            at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            name = wal_object(following.chain, path.name, at, following.days)
            sealed = seal_object(key, name, pa.compress(path.read_bytes(), codec="zstd", asbytes=True))
            target = self._waiting / name.removeprefix("wal/")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(target, sealed)
            path.unlink()
        if raw:
            sync_folder(self._out)
        return len(raw)

    def waiting(self) -> list[Path]:
        """Sealed but not sent, oldest first."""
        return sorted(path for path in self._waiting.glob("*/*") if not path.name.endswith(".tmp"))

    def send(self, store: BackupStore) -> int:
        """Send what is waiting. On StoreUnavailable the rest stays queued."""
        sent = self.waiting()
        for path in sent:
            store.objects.put(f"wal/{path.parent.name}/{path.name}", path.read_bytes())
            path.unlink()
        return len(sent)

    def is_overdue(self, now: datetime) -> bool:
        """Whether anything waiting has expired."""
        names = (wal_name(f"wal/{path.parent.name}/{path.name}") for path in self.waiting())
        return any(is_due(each.at, each.days, each.days, now) for each in names if each is not None)

    def waiting_bytes(self) -> int:
        return sum(path.stat().st_size for path in [*self._raw(), *self.waiting()])

    def flush(self, database: Database, store: BackupStore, following: Following) -> Until:
        """End the current segment, send everything, and return up to when the chain is complete."""
        with database.reading() as cursor:
            cursor.execute("select clock_timestamp()")
            row = cursor.fetchone()
            assert row is not None, "a function gives a row"
            until = Until(row[0], end_segment(cursor))
        self.take(following, store.key)
        self.send(store)
        store.set_until(following.chain, until)
        return until


def _give(path: Path, account: pwd.struct_passwd | None) -> None:
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)
