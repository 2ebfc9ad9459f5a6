"""`touchfold up`: PostgreSQL, the doors, the worker and the archiver, started, watched, restarted, stopped in order.

Single-threaded, because children are tied to the thread that starts them. It serves nothing itself.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from infra.adapters.machine.data_folder import Running
from infra.adapters.machine.disk import WORKER, room_needed
from infra.app.adapters import Adapters, build
from infra.app.bootstrap import arm_failpoint, claim, seal_wal
from infra.app.connections import take_share
from infra.app.first_start import Say, prepare
from infra.app.running import health_of
from infra.app.session import Session
from infra.app.settings import Settings
from infra.app.vault import vault_of
from infra.drivers.http.connections import BACKLOG
from infra.drivers.http.listening import listen_on, start_listening, url_of
from infra.drivers.http.tls import certificate_of
from infra.drivers.process.liveness import Vitals
from infra.drivers.process.notices import backs_up, first_admin_link, notices_of
from infra.drivers.process.plan import TOO_OFTEN, Child, plan_of
from infra.drivers.process.readiness import Places, checks_of
from infra.drivers.process.role_probes import RoleProbes
from infra.drivers.process.roles import AWAY, EDGES, NUMBER, UI_SOCKET
from schemas.errors import (
    DiskFull,
    FolderLocked,
    ServiceFailed,
    StoreUnavailable,
)
from schemas.reads import Deployment

LOOK_S: Final = 0.05
LOCK_WAIT_S: Final = 10.0  # for a command that is just ending; another `up` is an immediate error
WITHIN_S: Final = 30.0  # a role that exits TOO_OFTEN times within this time will not come up
BACKOFF_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
STOP_S: Final = (
    4.0  # for a role after SIGTERM; then SIGKILL, which loses nothing: progress is committed with its effects
)
CLUSTER_STOP_S: Final = 9.0  # with Kafka: a worker commits its current batch and leaves the group
ORDER: Final = (("http", "inbox"), ("ui", "worker", "archive", "publish"), ("backup",))
SPARE: Final[Mapping[str, str]] = {
    "ui": "the pages cannot be served",
    "backup": "no backups can be made",
    "archive": "nothing is archived, so the log keeps everything",
}
"""Roles the others can run without, and what is missing then."""
LONGEST_SOCKET: Final = 100  # bytes of a Unix socket's path; the system allows 107
ROOM_S: Final = 2.0  # between attempts on a full disk
T = TypeVar("T")
_log = logging.getLogger("touchfold.up")


class Supervisor:
    """Runs until `stop` is set, or until something fails that a restart cannot fix. `ready(url)` is called once.

    The URL is empty if nothing listens.
    """

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        say: Say,
        command: str = "up",
        vitals: Vitals | None = None,
    ) -> None:
        self._plan = plan_of(command, settings)
        self._settings = settings
        self._stop = stop
        self._say = say
        self._adapters: Adapters = build(settings)
        self._server = self._adapters.server
        self._listener: socket.socket | None = None
        self._children = [Child(role, number) for role, count in self._plan.roles for number in range(count)]
        self._ui_listener: socket.socket | None = None
        self._ui_path = ""
        self._folder_of_socket: tempfile.TemporaryDirectory[str] | None = None
        self._server_ends: deque[float] = deque(maxlen=TOO_OFTEN)
        self._room_at = 0.0  # when to restart PostgreSQL after it ended on a full disk; 0 while it is running
        self._vitals = Vitals() if vitals is None else vitals
        self._probes: RoleProbes | None = None
        self.url = ""

    def run(self, ready: Callable[[str], None]) -> None:
        """Raises FolderLocked, PortInUse, ServiceFailed, SettingsInvalid, SchemaNewer, MasterKeyWrong."""
        try:
            if self._plan.edges:
                certificate_of(self._settings)  # read by each HTTP process; errors are reported here
            self._when_there_is_room(self._claim)
            self._open_probes()
            port = self._bind() if self._plan.edges else 0
            deployment = self._when_there_is_room(self._prepare)
            for notice in notices_of(self._settings, self._adapters.folder, self._plan.edges):
                self._say(notice)
            if self._plan.pages:
                self._when_there_is_room(self._tell_about_the_first_admin)
            if "api" in self._plan.edges:
                self._when_there_is_room(lambda: self._resume_erasures(deployment))
            self._when_there_is_room(lambda: self._note(port))
            if self._listener is not None:
                start_listening(self._listener)
            if self._plan.pages:
                self._listen_for_ui()
            self._watch(port, ready)
        except _Stopped:
            _log.info("stopped at the start")
        finally:
            self._end()

    # --- start -----------------------------------------------------------------------------------------------------

    def _open_probes(self) -> None:
        """Live from here on; ready once all children are."""
        if self._settings.probe_port:
            listener = listen_on(self._settings.host, self._settings.probe_port, "TOUCHFOLD_PROBE_PORT")
            start_listening(listener, "TOUCHFOLD_PROBE_PORT")
            self._probes = RoleProbes(self._plan.command, self._vitals, listener, self._stop)

    def _bind(self) -> int:
        self._listener = listen_on(self._settings.host, self._settings.port)
        port = int(self._listener.getsockname()[1])
        self.url = url_of(self._settings.host, port, self._scheme)
        return port

    def _claim(self) -> None:
        running = claim(self._adapters, LOCK_WAIT_S, self._say)
        if running is not None:
            raise FolderLocked(
                f"touchfold already runs on {self._settings.data} (process {running.pid}, {running.url}): "
                "stop it first, or choose another folder with --data"
            )

    def _prepare(self) -> Deployment:
        if not self._server.pid or self._server.poll() is not None:
            self._start_server()
        return prepare(self._settings, self._adapters, self._progress)

    def _when_there_is_room(self, step: Callable[[], T]) -> T:
        """Run a step of the start, retrying while the disk is full: once somebody frees space, no restart is needed.

        A full disk may show as PostgreSQL exiting. Raises whatever else the step raises, and _Stopped.
        """
        waits = False
        while True:
            try:
                with room_needed(self._settings.data):
                    return step()
            except StoreUnavailable as err:
                if not isinstance(err, DiskFull) and self._adapters.disk.has_room(WORKER):
                    raise
                if not waits:
                    self._say(f"waiting for room: {err.message}")
                waits = True
            self._vitals.turned()
            if self._stop.wait(ROOM_S):
                raise _Stopped

    def _start_server(self) -> None:
        self._server.start(self._progress)
        take_share("up", self._server.dsn, self._server.vault_dsn)

    def _progress(self, line: str) -> None:
        """Recovery after a crash may take minutes; a stop does not wait for it."""
        if self._stop.is_set():
            raise _Stopped
        self._vitals.turned()
        self._say(line)

    def _tell_about_the_first_admin(self) -> None:
        link = first_admin_link(self._server.dsn, self._adapters.door_clock.now())
        if link is not None:
            self._say(f"sign in as admin (this link works once): {self.url}/welcome/{link}")

    def _resume_erasures(self, deployment: Deployment) -> None:
        arm_failpoint(self._settings, "up")
        from infra.app.erasing import resume_jobs  # noqa: PLC0415  # phone numbers' tables take 0.1 s to import

        server, folder = self._server, self._adapters.folder
        session = Session(self._settings, self._adapters, server.dsn, server.vault_dsn, None, deployment)
        with closing(session):
            vault, now = vault_of(session), session.door_clock.now
            count = resume_jobs(server.dsn, server.vault_dsn, vault, folder.ledger, session.region, now)
        if count:
            self._say(f"finished {count} interrupted erasures")

    def _note(self, port: int) -> None:
        url = url_of(self._own_host, port, self._scheme) if self._plan.edges else ""
        probe = url_of(self._own_host, self._settings.probe_port) if self._settings.probe_port else ""
        running = Running(os.getpid(), url, self._server.dsn, self._server.vault_dsn, self._plan.command, probe)
        self._adapters.folder.write_running(running)

    def _listen_for_ui(self) -> None:
        """The supervisor owns the UI's socket: while the UI restarts, its requests wait and none is refused."""
        path = self._settings.data.resolve() / "ui.sock"
        if len(str(path)) > LONGEST_SOCKET:
            self._folder_of_socket = tempfile.TemporaryDirectory(prefix="touchfold-")
            path = Path(self._folder_of_socket.name) / "ui.sock"
        path.unlink(missing_ok=True)
        self._ui_path = str(path)
        self._ui_listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ui_listener.bind(self._ui_path)
        path.chmod(0o600)
        self._ui_listener.listen(BACKLOG)

    # --- watch -----------------------------------------------------------------------------------------------------

    def _watch(self, port: int, ready: Callable[[str], None]) -> None:
        announced = False
        if self._probes is not None:
            server = self._server
            url = url_of(self._own_host, port, self._scheme) if self._plan.edges else ""
            places = Places(url, lambda: server.dsn, lambda: server.vault_dsn, self._adapters.kafka)
            self._probes.look_at(checks_of(self._plan.command, places), lambda: all(map(self._is_up, self._children)))
        while not self._stop.is_set():
            self._vitals.turned()
            self._watch_server(port)
            for child in self._children:
                self._listen_to(child)
                self._watch_child(child)
            if (
                not announced
                and all(map(self._is_up, self._children))
                and (not self._plan.edges or self._answers(port))
            ):
                announced = True
                ready(self.url)
            self._stop.wait(LOOK_S)

    def _watch_server(self, port: int) -> None:
        status = self._server.poll()
        if status is None or time.monotonic() < self._room_at:
            return
        if not self._room_at:
            self._server_ends.append(time.monotonic())
            if _too_often(self._server_ends):
                log = self._adapters.folder.logs / "postgres.log"
                raise ServiceFailed(f"PostgreSQL keeps exiting: read {log}")
            _log.warning("PostgreSQL ended (status %s): starting it again", status)
        before = self._server.dsn
        try:
            with room_needed(self._settings.data):
                self._start_server()  # raises if it cannot: `up` then ends with PostgreSQL's own reason
        except DiskFull as err:
            if not self._room_at:
                self._say(f"waiting for room: {err.message}")
            self._room_at = time.monotonic() + ROOM_S
            return
        if self._room_at:
            self._say("there is room again: PostgreSQL runs")
            self._room_at = 0.0
            self._server_ends.clear()
        if self._server.dsn != before:  # on loopback the port may have changed
            self._note(port)
            for child in self._children:
                _signal(child, signal.SIGTERM)

    def _watch_child(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            child.idle = child.role == "backup" and not backs_up(self._settings)
            if not child.idle and now >= child.start_after:
                self._start(child)
            return
        status = child.process.poll()
        if status is None:
            return
        self._listen_to(child)
        os.close(child.report)
        lived = now - child.started_at
        child.process, child.ready = None, False
        self._vitals.ended(child.name, unexpected=status not in {0, AWAY} and not self._is_spare(child))
        if status > 0 and status != AWAY:
            child.ends.append(now)
        if _too_often(child.ends):
            if not self._is_spare(child):
                raise ServiceFailed(f"the {child.role} process cannot run: {child.reason or f'exit status {status}'}")
            _log.error("%s: %s", SPARE[child.role], child.reason or f"exit status {status}")
        if lived > WITHIN_S:
            child.starts = 1
        pause = BACKOFF_S[min(child.starts - 1, len(BACKOFF_S) - 1)]
        child.start_after = now + pause
        _log.warning("the %s process ended (%s): starting it again", child.role, _ended(status))

    def _is_spare(self, child: Child) -> bool:
        """Whether the others can run without it. An archive that never came up means a wrong setting: all end."""
        needed = child.role == "archive" and not child.came_up
        return child.role in SPARE and not needed and len(self._plan.roles) > 1

    def _is_up(self, child: Child) -> bool:
        """Ready, or not coming up but not holding up the others."""
        return child.ready or child.idle or (self._is_spare(child) and len(child.ends) == TOO_OFTEN)

    def _start(self, child: Child) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        command = [sys.executable, "-P", "-m", "infra.drivers.process.roles", child.role]
        command += ["--data", str(self._settings.data), "--parent", str(os.getpid()), "--report", str(write)]
        handles = [write]
        if child.role == "http":
            assert self._listener is not None, "the listener is made before any child"
            handles.append(self._listener.fileno())
            command += ["--socket", str(self._listener.fileno())]
        if child.role == "ui":
            assert self._ui_listener is not None, "the listener is made before any child"
            handles.append(self._ui_listener.fileno())
            command += ["--socket", str(self._ui_listener.fileno())]
        if child.starts:
            command.append("--again")
        told = {EDGES: self._plan.edges, NUMBER: str(child.number)}
        if self._ui_path:
            told[UI_SOCKET] = self._ui_path
        child.process = subprocess.Popen(
            command,
            pass_fds=handles,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # results go to our stdout, and children have none
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        os.close(write)
        self._vitals.started(child.name)
        child.report, child.heard, child.reason = read, b"", ""
        child.starts += 1
        child.started_at = time.monotonic()

    def _listen_to(self, child: Child) -> None:
        if child.process is None:
            return
        try:
            child.heard += os.read(child.report, 8_192)
        except BlockingIOError:
            return
        *lines, child.heard = child.heard.split(b"\n")
        for line in lines:
            if line == b"ready":
                child.ready = child.came_up = True
            elif line == b"turned":
                self._vitals.turned(child.name)
            elif line.startswith(b"fatal "):
                child.reason = line[6:].decode(errors="replace")

    @property
    def _scheme(self) -> str:
        return "http" if self._settings.tls_cert is None else "https"

    @property
    def _own_host(self) -> str:
        """The address at which this machine reaches our listener."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)

    def _answers(self, port: int) -> bool:
        found = health_of(url_of(self._own_host, port, self._scheme))
        return found is not None and bool(found.get("ready"))  # with a full disk too: reads go on

    # --- end -------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Stop the doors first, so that nothing comes in; then worker and archiver; then PostgreSQL."""
        for roles in ORDER:
            group = [child for child in self._children if child.role in roles and child.process is not None]
            for child in group:
                _signal(child, signal.SIGTERM)
            limit_s = STOP_S if self._adapters.kafka is None else CLUSTER_STOP_S
            deadline = time.monotonic() + limit_s
            for child in group:
                assert child.process is not None, "the group holds running ones"
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    _log.warning("the %s process did not stop in %.0f s: ended", child.role, limit_s)
                    _signal(child, signal.SIGKILL)
                    child.process.wait()
                os.close(child.report)
                child.process = None
        if self._listener is not None:
            self._listener.close()
        if self._ui_listener is not None:
            self._ui_listener.close()
            Path(self._ui_path).unlink(missing_ok=True)
        if self._folder_of_socket is not None:
            self._folder_of_socket.cleanup()
        self._adapters.folder.clear_running()
        if self._probes is not None:
            self._probes.close()
        ran = bool(self._server.pid)
        self._server.stop()
        if ran:
            seal_wal(self._settings)


class _Stopped(Exception):  # asked to stop while PostgreSQL was starting
    pass


def _too_often(ends: "deque[float]") -> bool:
    return len(ends) == TOO_OFTEN and ends[-1] - ends[0] < WITHIN_S


def _signal(child: Child, number: int) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.send_signal(number)


def _ended(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
