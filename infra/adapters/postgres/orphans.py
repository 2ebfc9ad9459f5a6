"""PostgreSQL backends that outlived their killed server: they must end before a new one recovers their files."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from schemas.errors import ServiceFailed

GRACE_S: Final = 5.0  # an idle backend notices the server's death immediately, a busy one at its next wait


def end_backends(cluster: Path) -> None:
    """Wait for the processes working in a PostgreSQL data folder, then end them. We hold the folder's lock.

    Does nothing while the server itself is running: the new start shuts it down cleanly. Raises ServiceFailed.
    """
    if _server_runs(cluster):
        return
    started = time.monotonic()
    while left := _working_in(cluster):
        waited = time.monotonic() - started
        if waited > 2 * GRACE_S:
            raise ServiceFailed(f"processes {left} still run in {cluster} after their server ended: end them by hand")
        if waited > GRACE_S:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _server_runs(cluster: Path) -> bool:
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return False
    return pid in _working_in(cluster)


def _working_in(cluster: Path) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry.name}/cwd") == str(cluster):
                    found.append(int(entry.name))
    return found
