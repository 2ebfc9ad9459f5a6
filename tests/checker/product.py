"""The product from outside: its command, processes and port. Starts, kills and queries it; imports none of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import psutil
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from tests.checker.check import connect
from tests.checker.check_views import Shown
from tests.checker.client import get_json

ROLES = ("http", "worker", "archive", "ui", "publish", "inbox", "postgres", "up")
COMMAND = (sys.executable, "-m", "infra.cli.main")


class Done(NamedTuple):
    """A finished command."""

    status: int
    out: str
    err: str


class NotReady(Exception):
    """`up` exited, or was not ready in time."""


class Product:
    """One data folder with its own port. Ends only processes that it started, by id."""

    def __init__(self, data: Path, environ: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("TOUCHFOLD_")} | dict(environ or {})
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[Thread] = []
        self.log: list[str] = []  # lines of `up`, newest last

    # ------------------------------------------------------------ the running product

    def up(self, failpoint: str | None = None, timeout_s: float = 60) -> None:
        """Start `touchfold up`, perhaps with a failpoint, and wait until it is ready. Raises NotReady with its log."""
        self.start(failpoint)
        self.await_ready(timeout_s)

    def start(self, failpoint: str | None = None) -> None:
        """Start `touchfold up` and return immediately."""
        environ = dict(self.environ)
        if failpoint is not None:
            environ |= {"TOUCHFOLD_TEST": "1", "TOUCHFOLD_FAILPOINT": failpoint}
        command = [*COMMAND, "up", "--data", str(self.data), "--port", str(self.port)]
        self.log.append(f"--- up {failpoint or ''}")
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        reader = Thread(target=self._read, args=(self._process,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None, "asked for a pipe"
        with process.stdout as lines:
            for line in lines:
                self.log.append(line.rstrip())

    def await_ready(self, timeout_s: float = 60) -> None:
        """Wait until the latest `up` reports that it is ready."""

        def said() -> bool:
            newest = len(self.log) - self.log[::-1].index(next(x for x in self.log[::-1] if x.startswith("--- up")))
            return any(line.startswith("ready ") for line in self.log[newest:])

        if not wait_until(lambda: said() or not self.running, timeout_s) or not said():
            raise NotReady("\n".join(self.log[-40:]))

    def await_up(self, timeout_s: float = 60) -> None:
        """After kills, wait until the door answers again."""

        said: list[object] = [None]

        def answers() -> bool:
            try:
                said[0] = get_json(self.port, "/health", "")
            except OSError as err:
                said[0] = err
            return isinstance(said[0], tuple) and said[0][0] == 200

        if not wait_until(lambda: answers() or not self.running, timeout_s) or not self.running:
            raise NotReady("\n".join([*self.log[-40:], f"/health says {said[0]}"]))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Running processes of the latest `up`, by role; without PostgreSQL's own children."""
        found: dict[str, list[psutil.Process]] = {role: [] for role in ROLES}
        if self._process is None or self._process.poll() is not None:
            return found
        supervisor = psutil.Process(self._process.pid)
        found["up"].append(supervisor)
        for child in _children(supervisor):
            role = _role_of(child)
            if role:
                found[role].append(child)
        return found

    def kill(self, role: str) -> bool:
        """SIGKILL every process of a role, or of "all"; False if none was running."""
        found = self.processes()
        if role == "all":
            victims = [each for listed in found.values() for each in listed]
            victims += [child for each in found["postgres"] for child in _children(each)]
        else:
            victims = found[role]
        for victim in victims:
            with _gone_is_fine():
                victim.send_signal(signal.SIGKILL)
        if role in ("up", "all") and self._process is not None:
            self._process.wait(30)
            family = victims + [each for listed in found.values() for each in listed]  # they die with their parent
            wait_until(lambda: not any(psutil.pid_exists(each.pid) for each in family), 30)  # reaped by init
        return bool(victims)

    def stop(self, timeout_s: float = 60) -> int | None:
        """SIGTERM and wait; returns the exit status, or None if nothing was running."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
        status = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        return status

    # ------------------------------------------------------------ commands

    def run(self, *arguments: str, failpoint: str | None = None, timeout_s: float = 300) -> Done:
        """Run a command on the data folder."""
        environ = dict(self.environ)
        if failpoint is not None:
            environ |= {"TOUCHFOLD_TEST": "1", "TOUCHFOLD_FAILPOINT": failpoint}
        command = [*COMMAND, *arguments, "--data", str(self.data)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def ask(self, *arguments: str, timeout_s: float = 300) -> Any:
        """The JSON output of a command that must succeed."""
        done = self.run(*arguments, "--json", timeout_s=timeout_s)
        assert done.status == 0, f"{' '.join(arguments)} ended with {done.status}: {done.err[-2000:]}"
        return json.loads(done.out)

    def source(self, name: str) -> str:
        """Create a source; returns its write key."""
        return str(self.ask("source", "create", name)["write_key"])

    def settle(self, timeout_s: float = 300) -> None:
        """Wait until everything accepted is applied and decided."""
        self.ask("status", "--wait", timeout_s=timeout_s)

    def shown(self, orders: str = "checker_orders", revenue: str = "checker_revenue") -> dict[str, Shown]:
        """Every profile, as shown by the product's SQL."""
        rows = self.ask("sql", f"select profile_id, event_count, {orders} o, {revenue} r from profiles")
        return {
            row["profile_id"].replace("-", ""): Shown(
                int(row["event_count"]), int(row["o"] or 0), Decimal(str(row["r"] or 0))
            )
            for row in rows
        }

    # ------------------------------------------------------------ its databases

    def dsns(self) -> tuple[str, str]:
        """Connection strings of the main database and the vault of the running `up`."""
        note = json.loads((self.data / "run.json").read_text())
        password = (self.data / "postgres.secret").read_text().strip()
        return make_dsn(note["dsn"], password=password), make_dsn(note["vault_dsn"], password=password)

    @contextmanager
    def databases(self) -> Iterator[tuple[Connection, Connection]]:
        """Connections to the main database and the vault of the running `up`; rolled back at the end."""
        main, vault = map(connect, self.dsns())
        try:
            yield main, vault
        finally:
            main.close()
            vault.close()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def _role_of(process: psutil.Process) -> str | None:
    try:
        command = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    if "infra.drivers.process.roles" in command:
        return command[command.index("infra.drivers.process.roles") + 1]
    return "postgres" if any(part.endswith("/postgres") for part in command) else None


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Check every 10 ms until the condition holds; False if it never did."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """A port that is free now; the product keeps it across restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_bytes(folder: Path, needles: list[bytes]) -> list[tuple[Path, bytes]]:
    """Which files of a folder contain any of these byte strings."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # PostgreSQL removes files while it runs
            continue
        found += [(path, needle) for needle in needles if needle in data]
    return found
