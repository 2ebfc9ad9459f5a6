"""Restores a cluster from a base and its WAL, up to an instant: PostgreSQL's own recovery, fed with unsealed WAL.

PostgreSQL asks for a segment with a file in `want/`, and waits for it in `have/` or for a refusal in `none/`. So only
the segment being replayed is ever readable in the folder, and the server's account needs no key.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.adapters.postgres.server_account import server_account
from schemas.errors import ServiceFailed

LONGEST_S: Final = 86_400.0  # days of WAL may be replayed
_LOOK_S: Final = 0.01
_IN: Final = "wal-in"
_FETCH: Final = """
: > "../{folder}/want/$1"
while [ -d /proc/{pid} ]; do
    if [ -e "../{folder}/have/$1" ]; then exec mv "../{folder}/have/$1" "$2"; fi
    if [ -e "../{folder}/none/$1" ]; then rm -f "../{folder}/none/$1"; exit 1; fi
    sleep 0.02
done
exit 1
"""
_RECOVERY: Final = """
archive_mode = off
hot_standby = off
restore_command = 'sh ../{folder}/fetch %f %p'
recovery_target_timeline = 'current'
"""
_TARGET: Final = """
recovery_target_time = '{at}'
recovery_target_inclusive = on
recovery_target_action = 'promote'
"""
_NOT_REACHED: Final = "recovery ended before configured recovery target was reached"


def recover(
    data: Path, at: datetime | None, wal: Callable[[str], bytes | None], tell: Callable[[str, int], None]
) -> None:
    """Replay WAL into DATA/postgres/cluster, where a base was unpacked; the server is stopped afterwards.

    `at`: None replays all there is. `wal`: returns a file of the chain by name, or None. `tell`: (segment, count).
    If nothing was committed after `at`, the WAL is replayed to its end. Raises ServiceFailed, BackupDamaged.
    """
    try:
        _replay(data, _RECOVERY + ("" if at is None else _TARGET.format(at=_text(at))), wal, tell)
    except ServiceFailed as err:
        if at is None or _NOT_REACHED not in err.message:
            raise
        _replay(data, _RECOVERY, wal, tell)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def _replay(
    data: Path, configuration: str, wal: Callable[[str], bytes | None], tell: Callable[[str, int], None]
) -> None:
    folder = data / "postgres" / _IN
    feed = _Feed(folder, wal, tell)
    server = EmbeddedPostgres(data, configuration.format(folder=_IN), restoring=True)
    server.lock()
    feed.start()
    try:
        own(data / "postgres" / "cluster")
        signal = data / "postgres" / "cluster" / "recovery.signal"
        signal.touch()
        own(signal)
        server.start(wait_s=LONGEST_S)  # accepts no connections until recovery has ended
    except ServiceFailed:
        feed.end()
        raise
    finally:
        server.stop()
        feed.end()
        shutil.rmtree(folder)


def own(path: Path) -> None:
    """Make the server's account the owner of a file, or of a folder and everything in it."""
    account = server_account()
    if account is None:
        return
    os.chown(path, account.pw_uid, account.pw_gid)
    for folder, folders, files in os.walk(path):
        for each in (*folders, *files):
            os.chown(Path(folder) / each, account.pw_uid, account.pw_gid, follow_symlinks=False)


class _Feed:
    """Answers PostgreSQL's requests for WAL in a thread. `end` raises what opening a file raised."""

    def __init__(self, folder: Path, wal: Callable[[str], bytes | None], tell: Callable[[str, int], None]) -> None:
        self._folder = folder
        self._wal = wal
        self._tell = tell
        self._given = 0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wal feed", daemon=True)

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for each in ("want", "have", "none"):
            (self._folder / each).mkdir(parents=True)
        (self._folder / "fetch").write_text(_FETCH.format(folder=_IN, pid=os.getpid()))
        own(self._folder)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while not self._stop.is_set():
            for asked in sorted((self._folder / "want").iterdir()):
                self._answer(asked.name)
                asked.unlink()
            time.sleep(_LOOK_S)

    def _answer(self, name: str) -> None:
        data: bytes | None = None
        try:
            data = self._wal(name)
        except Exception as err:  # PostgreSQL sees it as the end of the WAL; `end` raises it
            self._error = err
        if data is None:
            (self._folder / "none" / name).touch()
            own(self._folder / "none" / name)
            return
        aside = self._folder / f"{name}.making"
        aside.write_bytes(data)
        own(aside)
        aside.rename(self._folder / "have" / name)
        self._given += 1
        self._tell(name, self._given)
