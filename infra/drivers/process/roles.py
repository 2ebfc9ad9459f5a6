"""`python -m infra.drivers.process.roles ROLE`: a child of `touchfold up`. Each role imports only what it needs.

The child reports to its parent over a pipe: `ready`, or `fatal TEXT` before it exits. SIGTERM stops it cleanly.
"""

import argparse
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from infra.adapters.machine.private_files import keep_private
from infra.app import log_lines
from infra.app.bootstrap import role_session
from infra.app.session import Session
from infra.app.stop_signals import stop_at
from infra.app.vault import vault_of
from infra.drivers.process.parent import die_with
from schemas.errors import Disposition, TouchfoldError

FATAL: Final = 70  # internal error: a restart will most likely fail the same way
AWAY: Final = 75  # a backend is unavailable: try again
TURN_S: Final = 1.0  # how often a loop reports that it is running
UI_SOCKET: Final = "_TOUCHFOLD_UI_SOCKET"  # the UI's socket, passed by the supervisor to its doors
NUMBER: Final = "_TOUCHFOLD_NUMBER"  # the process's number within its role
EDGES: Final = "_TOUCHFOLD_EDGES"  # what the HTTP processes serve: door, api, or both
_log = logging.getLogger("touchfold.roles")


class Report:
    """The child's end of the pipe to its parent."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._turned_at = float("-inf")

    def ready(self) -> None:
        os.write(self._handle, b"ready\n")

    def turned(self) -> None:
        """Report once a second that the role's loop is running. A parent that does not read must not block us."""
        now = time.monotonic()
        if now - self._turned_at >= TURN_S:
            self._turned_at = now
            if select.select([], [self._handle], [], 0)[1]:
                os.write(self._handle, b"turned\n")

    def fatal(self, reason: str) -> None:
        os.write(self._handle, b"fatal " + " ".join(reason.split()).encode()[:3_000] + b"\n")


class TurningStop(threading.Event):
    """The stop event of a role. Its loop checks it at every turn, which also reports liveness. One thread checks."""

    def __init__(self, turned: Callable[[], None]) -> None:
        super().__init__()
        self._turned = turned

    def is_set(self) -> bool:
        self._turned()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        self._turned()
        return super().wait(timeout)


Role = Callable[[Session, threading.Event, Report, socket.socket | None], None]


def _http(session: Session, stop: threading.Event, report: Report, listener: socket.socket | None) -> None:
    from infra.drivers.http import server as http_server  # noqa: PLC0415  # the worker needs no HTTP

    assert listener is not None, "the supervisor passes the HTTP role its socket"
    http_server.run(session, stop, report.ready, listener, os.environ.get(UI_SOCKET), os.environ[EDGES])


def _worker(session: Session, stop: threading.Event, report: Report, _listener: socket.socket | None) -> None:
    from infra.drivers.process import worker_role  # noqa: PLC0415  # the doors need no folds

    vault_of(session).hold_lease()  # keys are cached only under a lease
    report.ready()
    worker_role.run(session, stop, int(os.environ.get(NUMBER, "0")))


def _archive(session: Session, stop: threading.Event, report: Report, _listener: socket.socket | None) -> None:
    from infra.drivers.process import archive_role  # noqa: PLC0415  # pyarrow's 60 MB are for this role

    archive_role.run(session, stop, report.ready, _retention_s(session))


def _retention_s(session: Session) -> float | None:
    """How long the log keeps a record; PostgreSQL keeps it for ever."""
    if session.adapters.kafka is None:
        return None
    from infra.app.cluster import retention_s  # noqa: PLC0415  # of a cluster alone

    return retention_s(session.adapters.kafka)


def _ui(session: Session, stop: threading.Event, report: Report, listener: socket.socket | None) -> None:
    from infra.drivers.pages import app  # noqa: PLC0415  # NiceGUI's 60 MB are for this role

    assert listener is not None, "the supervisor passes the UI its socket"
    app.run(session, stop, report.ready, listener)


def _publish(session: Session, stop: threading.Event, report: Report, _listener: socket.socket | None) -> None:
    from infra.drivers.process import publish_role  # noqa: PLC0415  # a producer of its own
    from schemas.topics import topic_names  # noqa: PLC0415

    granted = topic_names(session.settings.kafka_personal or "", session.settings.kafka_prefix)
    publish_role.run(session, stop, report.ready, granted)


def _inbox(session: Session, stop: threading.Event, report: Report, _listener: socket.socket | None) -> None:
    from infra.drivers.stream import inbox_role  # noqa: PLC0415  # a consumer of its own

    inbox_role.run(session, stop, report.ready)


def _backup(session: Session, stop: threading.Event, report: Report, _listener: socket.socket | None) -> None:
    from infra.drivers.process import backup_role  # noqa: PLC0415  # pyarrow, and boto3 where it is needed

    backup_role.run(session, stop, report.ready)


ROLES: Final[Mapping[str, Role]] = {
    **{"http": _http, "worker": _worker, "archive": _archive, "ui": _ui},
    **{"publish": _publish, "inbox": _inbox, "backup": _backup},
}


def presence_of(session: Session, role: str) -> AbstractContextManager[object]:
    """In a cluster every process sends heartbeats; in a single folder the supervisor knows."""
    if session.adapters.kafka is None:
        return nullcontext()
    from infra.adapters.postgres.presence import Presence  # noqa: PLC0415  # of a cluster alone

    return Presence(session.dsn, role)


def main(arguments: list[str]) -> int:
    """Run a role until SIGTERM; the exit status tells the supervisor why it ended."""
    parser = argparse.ArgumentParser(prog="infra.drivers.process.roles", description=__doc__)
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--socket", type=int)
    parser.add_argument("--again", action="store_true", help="this is a restart: failpoints are no longer armed")
    given = parser.parse_args(arguments)
    die_with(given.parent)
    keep_private()
    log_lines.configure(given.role)
    report = Report(given.report)
    stop = stop_at(signal.SIGTERM, stop=TurningStop(report.turned))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which stops us cleanly
    listener = None if given.socket is None else socket.socket(fileno=given.socket)
    try:
        armed = not given.again
        with role_session(given.data, given.role, armed=armed) as session, presence_of(session, given.role):
            ROLES[given.role](session, stop, report, listener)
    except TouchfoldError as err:
        _log.error("%s is stopping: %s", given.role, err.message)
        if err.disposition is Disposition.RETRY:
            return AWAY
        report.fatal(err.message)
        return FATAL
    except Exception as err:
        _log.exception("%s is stopping because of an internal error", given.role)
        report.fatal(f"internal error: {log_lines.described(err, err.__traceback__)}")
        return FATAL
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
