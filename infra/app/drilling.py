"""`touchfold doctor --drill`: restores the newest backup to a temporary folder, refolds its log and compares."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from infra.adapters.backup.key import NAME as BACKUP_KEY
from infra.adapters.vault.master_key import NAME as MASTER_KEY
from infra.app.backing_up import destination_of
from infra.app.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from infra.app.settings import Settings


def drill(settings: "Settings", say: "Callable[[str], None]") -> Finding:
    """Restore into a temporary folder beside the data folder, run `rebuild --check` there, and remove it."""
    from infra.app.restoring import restore  # noqa: PLC0415

    source = destination_of(settings, None)
    with tempfile.TemporaryDirectory(prefix="drill-", dir=settings.data.parent) as folder:
        data = Path(folder)
        for name in (MASTER_KEY, BACKUP_KEY):
            if (settings.data / name).exists():
                (data / name).touch(mode=0o600)
                (data / name).write_bytes((settings.data / name).read_bytes())
        begun = time.monotonic()
        done = restore(_aside(settings, data), source, None, lambda _what, _done, _of: None, say)
        restored_s = time.monotonic() - begun
        equal, told = _compare(data)
    checked_s = time.monotonic() - begun - restored_s
    detail = f"{done.reach.base.id} restored in {restored_s:.1f} s: {done.events:,} events"
    if not equal:
        return Finding("drill", False, f"{detail}; rebuild --check: {told}", "make a new backup, and check its log")
    return Finding("drill", True, f"{detail}; rebuild --check found no difference after {checked_s:.1f} s")


def _aside(settings: "Settings", data: Path) -> "Settings":
    """The same settings for another folder with its own ledger: a drill changes nothing outside it."""
    return settings.model_copy(update={"data": data, "ledger": None, "backup_to": None, "archive": None})


def _compare(data: Path) -> tuple[bool, str]:
    leave = {"TOUCHFOLD_DATA", "TOUCHFOLD_LEDGER", "TOUCHFOLD_BACKUP_TO", "TOUCHFOLD_ARCHIVE"}
    env = {name: value for name, value in os.environ.items() if name not in leave}
    command = [sys.executable, "-m", "infra.cli.main", "rebuild", "--check", "--data", str(data)]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout or done.stderr).strip()[-500:]
