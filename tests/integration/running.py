"""A real `touchfold up` in a process of its own, for the tests that need one."""

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

DEADLINE_S: Final = 60.0
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(**settings: str) -> dict[str, str]:
    """Ours, with no TOUCHFOLD_ setting but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHFOLD_")}
    return kept | {f"TOUCHFOLD_{name}": value for name, value in settings.items()}


def command(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `touchfold` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli.main", *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def result(*arguments: str, **settings: str) -> Any:
    """The JSON of a command that must succeed."""
    done = command(*arguments, "--json", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fails after the deadline, saying what did not come."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether a process still does something: one that ended and waits for its init to notice does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_ANY_PORT: Final = dict.fromkeys(("up", "ingest", "serve"), ("--port", "0"))


class Answer(NamedTuple):
    status: int
    body: Any


class Up:
    """Started at once; `wait_ready` gives the URL. `settings` without their TOUCHFOLD_. `role`: of a cluster."""

    def __init__(self, data: Path, *arguments: str, role: str = "up", **settings: str) -> None:
        self.data = data
        self.url = ""
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "infra.cli.main",
                role,
                "--data",
                str(data),
                *(arguments or _ANY_PORT.get(role, ())),
            ],
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read_out, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    @property
    def log(self) -> str:
        return "".join(self.errors)

    def wait_ready(self) -> str:
        line = self._lines.get(timeout=DEADLINE_S)
        assert line.startswith("ready "), f"{line!r}, exit {self.process.poll()}:\n{self.log}"
        self.url = line.split()[1]
        return self.url

    def wait_end(self) -> int:
        """The exit status; everything it said is in `log` then."""
        status = self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait_end()

    def pids(self, role: str) -> list[int]:
        """Of the running children of a role; `postgres` is one."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            server = line[:1] and line[0].endswith("/postgres")
            if server if role == "postgres" else "infra.drivers.process.roles" in line and role in line:
                found.append(child.pid)
        return found

    def all_pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def kill(self, role: str) -> int:
        """kill -9 one child of a role; returns its pid."""
        found: list[int] = []

        def killed() -> bool:
            found[:] = self.pids(role)[:1]
            with suppress(ProcessLookupError):  # it has ended by itself meanwhile: then the next one
                if found:
                    os.kill(found[0], signal.SIGKILL)
                    return True
            return False

        until(killed, f"a {role} process")
        pid = found[0]
        until(lambda: pid not in self.pids(role), f"the end of {pid}")
        return pid

    def get(self, path: str) -> Answer:
        return self._ask(urllib.request.Request(self.url + path))

    def send(self, key: str, call: str, item: Mapping[str, Any]) -> Answer:
        """POST one item to the door."""
        headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        }
        return self._ask(urllib.request.Request(f"{self.url}/v1/{call}", json.dumps(item).encode(), headers))

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            with _OPENER.open(request, timeout=DEADLINE_S) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as err:
            with err:
                status, body = err.code, err.read()
        try:
            return Answer(status, json.loads(body))
        except ValueError:
            return Answer(status, body)

    def send_until_accepted(self, key: str, call: str, item: Mapping[str, Any]) -> None:
        """As an SDK does: again after any error, with the same message id."""

        def accepted() -> bool:
            try:
                return self.send(key, call, item).status == 200
            except (OSError, urllib.error.URLError):  # its process was killed under the request
                return False

        until(accepted, f"acceptance of {item}")
