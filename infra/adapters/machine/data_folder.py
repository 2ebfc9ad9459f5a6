"""The layout of the data folder, and the note by which commands find a running `touchfold up`.

DATA/touchfold.lock (flock of the folder's owner) · run.json (of a running `up`, 0600) · master.key ·
postgres/ · postgres.secret · archive/ · ledger/ (erasures, never restored) · logs/ · touchfold.toml.
"""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from infra.adapters.machine.private_files import close_to_others, make_folder
from infra.adapters.postgres.addresses import with_password, with_secrets_of, without_secrets
from schemas.errors import Problem, SettingsInvalid

RESTORING: Final = "restoring.json"  # present while a restore fills the folder
SECRET_FILE: Final = "postgres.secret"  # the password of the embedded server's account


class Running(NamedTuple):
    """A running `up` or role: its process, where it answers, and the connection strings with passwords
    (in memory only).

    `url` is empty for a role that serves no HTTP.
    """

    pid: int
    url: str
    dsn: str
    vault_dsn: str
    role: str = "up"  # the command that is running
    probe: str = ""  # where its probes answer; empty if there are none


class DataFolder:
    """Paths only; nothing is created before `make`.

    `ledger`: its folder, if elsewhere. `own`: the connection strings from the settings, main and vault; None if the
    server is in the folder.
    """

    def __init__(self, path: Path, own: tuple[str, str] | None = None, ledger: Path | None = None) -> None:
        self.path = path
        self._own = own
        self.lock_file = path / "touchfold.lock"
        self.run_file = path / "run.json"
        self.master_key_file = path / "master.key"
        self.archive = path / "archive"
        self.ledger = ledger or path / "ledger"
        self.logs = path / "logs"

    def make(self) -> None:
        """Create the missing folders. Raises SettingsInvalid if DATA cannot be our folder."""
        try:
            for folder in (self.path, self.archive, self.ledger, self.logs):
                make_folder(folder)
        except OSError as err:
            if err.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise  # the folder is fine; retry when there is space
            raise SettingsInvalid(
                f"the data folder {self.path} cannot be created: {err.strerror}. Give another with --data or "
                "TOUCHFOLD_DATA"
            ) from err

    def close_to_others(self) -> None:
        """Fix the permissions of files made by earlier builds. Only for the folder's owner."""
        close_to_others(self.path)

    def is_one(self) -> bool:
        """Whether there is anything of ours in the folder."""
        ours = (self.lock_file, self.master_key_file, self.path / "postgres", self.path / "touchfold.toml")
        return any(each.exists() for each in ours) or self.has_archive() or self.has_erasures()

    def has_archive(self) -> bool:
        """Whether files have been archived here."""
        return any(self.archive.glob("p*/*.parquet"))

    def has_erasures(self) -> bool:
        return any(each.stat().st_size for each in self.ledger.glob("*"))

    def traces(self) -> list[str]:
        """Traces that only a database in use leaves behind; a key alone may have been supplied for a first start."""
        found = ["archive/"] if self.has_archive() else []
        found += ["ledger/"] if self.has_erasures() else []
        started = any((self.path / each).exists() for each in ("postgres.secret", "run.json", "logs/postgres.log"))
        return found + (["master.key"] if self.master_key_file.exists() and (found or started) else [])

    def owner(self) -> int | None:
        """The process of the `up` that owns the folder now, or None; a note left by a killed one is ignored."""
        note = self._note()
        return None if note is None else int(note["pid"])

    def running(self) -> Running | None:
        """That `up`, with how to reach its databases.

        Raises SettingsInvalid if it uses a PostgreSQL whose password is in its settings but not in ours.
        """
        note = self._note()
        if note is None:
            return None
        more = {name: str(note[name]) for name in ("role", "probe") if name in note}
        found = Running(int(note["pid"]), str(note["url"]), str(note["dsn"]), str(note["vault_dsn"]), **more)
        return self._with_passwords(found, bool(note.get("own")))

    def _note(self) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads(self.run_file.read_text(encoding="utf-8"))
            holder = self.lock_file.read_text(encoding="utf-8").strip()
            pid = int(note["pid"])
            whole = note.keys() >= {"url", "dsn", "vault_dsn"}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        # as EmbeddedPostgres.lock writes it
        return note if whole and holder == f"process {pid}" and _alive(pid) else None

    def _with_passwords(self, found: Running, own: bool) -> Running:
        if not own:
            try:
                password = (self.path / SECRET_FILE).read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                return found
            main, vault = (with_password(dsn, password) for dsn in (found.dsn, found.vault_dsn))
        elif self._own is not None:
            main, vault = (
                with_secrets_of(dsn, given) for dsn, given in zip((found.dsn, found.vault_dsn), self._own, strict=True)
            )
        else:
            raise SettingsInvalid(
                f"process {found.pid} is running on {self.path} with your own PostgreSQL; the password is only in its "
                "settings: give this command the same TOUCHFOLD_DATABASE (or TOUCHFOLD_DATABASE_FILE)",
                [Problem("TOUCHFOLD_DATABASE", "is missing")],
            )
        return found._replace(dsn=main, vault_dsn=vault)

    def write_running(self, running: Running) -> None:
        """Write the note atomically, readable only by us, and without a password all the same."""
        note = running._asdict() | {
            "dsn": without_secrets(running.dsn),
            "vault_dsn": without_secrets(running.vault_dsn),
            "own": self._own is not None,
        }
        making = self.run_file.with_name("run.json.making")
        making.unlink(missing_ok=True)
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(note, out)
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
        return True  # a process of another account also counts
    return True
