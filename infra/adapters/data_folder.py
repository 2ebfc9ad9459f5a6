"""The layout of the data folder, and the note by which commands find a running `touchfold up`.

DATA/touchfold.lock (flock of who owns the folder) · run.json (of a running `up`, 0600) · master.key ·
postgres/ · postgres.secret · archive/ · ledger/ (erasures, outside every restore) · logs/ · touchfold.toml.
"""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import SettingsInvalid


class Running(NamedTuple):
    """A running `up` or role: its process, where it answers, and the connection strings (secret, hence 0600).

    `url` is empty for a role that serves no HTTP edge.
    """

    pid: int
    url: str
    dsn: str
    vault_dsn: str
    role: str = "up"  # the command that runs
    probe: str = ""  # where its probes answer; empty where there are none


class DataFolder:
    """Paths only; nothing is made before `make`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_file = path / "touchfold.lock"
        self.run_file = path / "run.json"
        self.master_key_file = path / "master.key"
        self.archive = path / "archive"
        self.ledger = path / "ledger"
        self.logs = path / "logs"

    def make(self) -> None:
        """Make the folders that are missing. Raises SettingsInvalid when DATA cannot be a folder of ours."""
        try:
            for folder in (self.path, self.archive, self.ledger, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise  # the folder is right, and there will be room
            raise SettingsInvalid(
                f"the data folder {self.path} cannot be made: {err.strerror}. Give another with --data or "
                "TOUCHFOLD_DATA"
            ) from err

    def is_one(self) -> bool:
        """Whether there is anything of ours in the folder."""
        ours = (self.lock_file, self.master_key_file, self.path / "postgres", self.path / "touchfold.toml")
        return any(each.exists() for each in ours) or self.has_archive() or self.has_erasures()

    def has_archive(self) -> bool:
        """Whether files were archived here."""
        return any(self.archive.glob("p*/*.parquet"))

    def has_erasures(self) -> bool:
        return any(each.stat().st_size for each in self.ledger.glob("*"))

    def traces(self) -> list[str]:
        """What only a database that was in use leaves behind; a key alone may have been put there for a first start."""
        found = ["archive/"] if self.has_archive() else []
        found += ["ledger/"] if self.has_erasures() else []
        started = any((self.path / each).exists() for each in ("postgres.secret", "run.json", "logs/postgres.log"))
        return found + (["master.key"] if self.master_key_file.exists() and (found or started) else [])

    def running(self) -> Running | None:
        """The `up` that owns the folder now, or None; a note that a killed one left behind does not count."""
        try:
            note: dict[str, Any] = json.loads(self.run_file.read_text(encoding="utf-8"))
            holder = self.lock_file.read_text(encoding="utf-8").strip()
            texts = (str(note[name]) for name in ("url", "dsn", "vault_dsn"))
            more = {name: str(note[name]) for name in ("role", "probe") if name in note}
            found = Running(int(note["pid"]), *texts, **more)
        except (FileNotFoundError, ValueError, KeyError):
            return None
        if holder != f"process {found.pid}":  # as EmbeddedPostgres.lock writes it
            return None
        return found if _alive(found.pid) else None

    def write_running(self, running: Running) -> None:
        """Leave the note: whole or not at all, readable by us alone."""
        making = self.run_file.with_name("run.json.making")
        making.unlink(missing_ok=True)
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(running._asdict(), out)
        making.replace(self.run_file)

    def clear_running(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.run_file.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another account's process is a process
    return True
