"""Sessions: what every command and role works with. Joins a running `touchfold up`, or starts PostgreSQL."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from infra.adapters.machine.data_folder import Running
from infra.adapters.machine.disk import WORKER, room_needed
from infra.adapters.postgres.database import Database
from infra.app import settings as reading
from infra.app.adapters import Adapters, build
from infra.app.connections import take_share
from infra.app.first_start import Say, ensure_deployment, prepare, quiet
from infra.app.session import Session
from infra.app.settings import Settings
from schemas import failpoints
from schemas.errors import FolderLocked, StoreUnavailable, TouchfoldError

_log = logging.getLogger("touchfold.bootstrap")
LOCK_WAIT_S: Final = 30.0  # how long a command waits for another command; a running `up` is joined immediately


def arm_failpoint(settings: Settings, role: str) -> None:
    """Arm TOUCHFOLD_FAILPOINT in this process if it applies to this role."""
    point = settings.failpoint
    if point is not None and point.role in {None, role}:
        failpoints.arm(point.name, point.hits)


@contextmanager
def session(data: Path | str | None = None, *, role: str = "cli", say: Say = quiet) -> Iterator[Session]:
    """The services on a data folder: joins its running `up`, else starts PostgreSQL and stops it at the end.

    `data` defaults to TOUCHFOLD_DATA, then ./touchfold-data. Raises SettingsInvalid, FolderLocked, ServiceFailed,
    SchemaNewer, MasterKeyWrong.
    """
    settings = reading.load(os.environ, data=None if data is None else Path(data))
    arm_failpoint(settings, role)
    adapters = build(settings)
    with room_needed(settings.data):
        running = claim(adapters, LOCK_WAIT_S, say)
    if running is not None:
        with closing(_joined(settings, adapters, running, role)) as joined:
            yield joined
        return
    server = adapters.server
    try:
        with room_needed(settings.data):
            adapters.folder.make()
            server.start(say)
            take_share(role, server.dsn, server.vault_dsn)
            deployment = prepare(settings, adapters, say)
        alone = Session(settings, adapters, server.dsn, server.vault_dsn, None, deployment)
        with closing(alone):
            yield alone
    finally:
        ran = bool(server.pid)
        server.stop()
        if ran:
            seal_wal(settings)


def seal_wal(settings: Settings) -> None:
    """After the server has stopped, seal WAL still waiting for a backup so that none stays readable in the folder."""
    if (settings.data / "backup" / "following.json").exists():
        from infra.app.backing_up import seal_rest  # noqa: PLC0415  # pyarrow's 60 MB

        try:
            seal_rest(settings)
        except TouchfoldError as err:  # the folder is intact; the next process to start seals it
            _log.warning("WAL waiting for the backup was not sealed: %s", err.message)


@contextmanager
def role_session(data: Path, role: str, *, armed: bool = True) -> Iterator[Session]:
    """The services for a child of `up`: never starts PostgreSQL. Raises StoreUnavailable when no `up` is running."""
    settings = reading.load(os.environ, data=data)
    if armed:
        arm_failpoint(settings, role)
    adapters = build(settings)
    running = adapters.folder.running()
    if running is None:
        raise StoreUnavailable(f"no touchfold up is running on {data}")
    with closing(_joined(settings, adapters, running, role)) as joined:
        yield joined


def _joined(settings: Settings, adapters: Adapters, running: Running, role: str) -> Session:
    take_share(role, running.dsn, running.vault_dsn)
    try:
        with closing(Database(running.dsn, "touchfold session")) as database:
            deployment = ensure_deployment(database, settings)
    except StoreUnavailable:
        adapters.disk.check(WORKER)  # raises the reason if `up` is waiting for disk space to start PostgreSQL
        raise
    return Session(settings, adapters, running.dsn, running.vault_dsn, running.url, deployment, running)


def claim(adapters: Adapters, wait_s: float, say: Say = quiet) -> Running | None:
    """Lock the data folder and return None, or return the `up` that holds it. Raises FolderLocked after `wait_s`."""
    folder, server = adapters.folder, adapters.server
    folder.make()
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        try:
            server.lock()
        except FolderLocked as err:
            running = folder.running()
            if running is not None:
                return running
            if time.monotonic() > deadline:
                raise
            if not said:
                say(f"waiting: {err.message}")
                said = True
            time.sleep(0.05)
        else:
            folder.clear_running()  # left by an `up` that was killed
            folder.close_to_others()
            return None
