"""The layout of the data folder, and the note by which commands find a running `touchfold up`.

DATA/touchfold.lock (flock of who owns the folder) · run.json (of a running `up`, 0600) · master.key ·
postgres/ · postgres.secret · archive/ · ledger/ (erasures, outside every restore) · logs/ · touchfold.toml.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import SettingsInvalid


class Running(NamedTuple):
    """A running `up`: its process, where it answers, and the connection strings (secret, hence 0600)."""

    pid: int
    url: str
    dsn: str
    vault_dsn: str


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
            raise SettingsInvalid(
                f"the data folder {self.path} cannot be made: {err.strerror}. Give another with --data or "
                "TOUCHFOLD_DATA"
            ) from err

    def running(self) -> Running | None:
        """The `up` that owns the folder now, or None; a note that a killed one left behind does not count."""
        try:
            note: dict[str, Any] = json.loads(self.run_file.read_text(encoding="utf-8"))
            holder = self.lock_file.read_text(encoding="utf-8").strip()
            found = Running(int(note["pid"]), str(note["url"]), str(note["dsn"]), str(note["vault_dsn"]))
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
