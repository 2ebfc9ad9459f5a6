"""The probe port: live is not ready, an outage never makes a role not live, and no slow sender keeps a probe out."""

import contextlib
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.app.settings import load
from infra.drivers.http.listening import listen_on
from infra.drivers.http.probes import MOST, MOST_BYTES, ProbeServer, json_reply
from infra.drivers.process import readiness
from infra.drivers.process.liveness import Vitals
from infra.drivers.process.supervisor import Supervisor
from tests.integration.running import Up, until
from tests.kafka_broker import free_port

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def probe(port: int, path: str) -> tuple[int, Any]:
    """Status and body of a probe."""
    try:
        with _OPENER.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            status, body = err.code, err.read()
    return status, body.decode() if path == "/metrics" else json.loads(body)


# --- the server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    listener = listen_on("127.0.0.1", 0)
    listener.listen()

    def broken() -> Any:
        raise ValueError("not told to anybody")

    server = ProbeServer(listener, {"/live": lambda: json_reply(good=True, body={"live": True}), "/broken": broken})
    port = int(listener.getsockname()[1])
    server.start()
    yield port
    server.close()


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_probe_answers_what_it_is_asked_and_nothing_else(port: int) -> None:
    assert probe(port, "/live") == (200, {"live": True})
    assert probe(port, "/live?verbose=1")[0] == 200
    assert probe(port, "/health")[0] == 404
    assert ask(port, b"POST /live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert ask(port, b"HEAD /live HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")
    assert ask(port, b"GET /live HTTP/1.1\r\nx: " + b"y" * 4 * MOST_BYTES).startswith((b"HTTP/1.1 431 ", b""))
    answer = ask(port, b"GET /broken HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"not told" not in answer
    assert ask(port, b"\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_senders_of_nothing_and_of_endless_headers_cost_each_other_alone(port: int) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(2 * MOST):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            connection.sendall(b"GET /live HTTP/1.1\r\nx: " if number % 2 else b"")
        for _ in range(5):
            assert probe(port, "/live")[0] == 200


# --- a role --------------------------------------------------------------------------------------------------------


def test_up_tells_that_it_lives_and_is_ready_on_a_port_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    up = Up(tmp_path / "data", UI="false", PROBE_PORT=str(port))
    try:
        until(lambda: _opens(port), "the probe port")
        assert probe(port, "/live")[0] == 200, "while it starts"
        assert probe(port, "/ready")[0] in {200, 503}
        up.wait_ready()
        until(lambda: probe(port, "/ready")[0] == 200, "ready")
        assert probe(port, "/ready")[1] == {"ready": True, "role": "up", "problems": {}}
        status, text = probe(port, "/metrics")
        assert status == 200
        assert 'touchfold_role_ready{command="up"} 1.0' in text.splitlines()
        assert 'touchfold_role_process_running{command="up",process="worker 0"} 1.0' in text.splitlines()
        os.kill(up.pids("http")[0], signal.SIGSTOP)
        until(lambda: probe(port, "/ready")[0] == 503, "a door that hangs is not ready")
        assert probe(port, "/live")[0] == 200
        os.kill(up.pids("http")[0], signal.SIGCONT)
        until(lambda: probe(port, "/ready")[0] == 200, "ready again")
    finally:
        up.stop()
    assert not _opens(port)


def _opens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_a_port_for_probes_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up = Up(tmp_path / "data", UI="false", PROBE_PORT=str(taken.getsockname()[1]))
        assert up.wait_end() == 1
    assert "TOUCHFOLD_PROBE_PORT" in up.log


class Here:
    """A supervisor in this process, whose loops count as hung after four seconds."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data.resolve()
        self.stop = threading.Event()
        self.ready = threading.Event()
        supervisor = Supervisor(
            load(os.environ, data=data, port=0), self.stop, lambda _line: None, "up", Vitals(hangs_s=4.0)
        )
        self.thread = threading.Thread(target=supervisor.run, args=(lambda _url: self.ready.set(),))
        self.thread.start()
        self.port = port

    def pid(self, word: str) -> int:
        for child in psutil.Process().children(recursive=True):
            if child.status() == psutil.STATUS_ZOMBIE:
                continue
            line = child.cmdline()
            server = bool(line) and line[0].endswith("/postgres") and any(str(self.data) in each for each in line)
            if word in line or (word == "postgres" and server):  # not the server of other tests
                return child.pid
        raise AssertionError(f"no process of {word}")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    port = free_port()
    monkeypatch.setenv("TOUCHFOLD_PROBE_PORT", str(port))
    monkeypatch.setenv("TOUCHFOLD_UI", "off")
    monkeypatch.setattr(readiness, "STALE_S", 2.5)  # more than the second between two looks
    here = Here(tmp_path / "data", port)
    assert here.ready.wait(60)
    yield here
    here.end()


def test_a_process_that_hangs_makes_its_role_not_live_and_an_outage_does_not(here: Here) -> None:
    pid = here.pid("archive")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: probe(here.port, "/live")[0] == 503, "an archiver that hangs is not live")
    problems = probe(here.port, "/live")[1]["problems"]
    assert [each.split(":")[0] for each in problems] == ["archive 0 hangs"]
    assert 'touchfold_role_live{command="up"} 0' in probe(here.port, "/metrics")[1]
    os.kill(pid, signal.SIGCONT)
    until(lambda: probe(here.port, "/live")[0] == 200, "live again")
    backends = [here.pid("postgres"), *(each.pid for each in psutil.Process(here.pid("postgres")).children())]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: probe(here.port, "/ready")[0] == 503, "an outage of PostgreSQL that is no longer waited out")
        assert probe(here.port, "/live") == (200, {"live": True, "role": "up", "problems": []})
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
    until(lambda: probe(here.port, "/ready")[0] == 200, "ready again")
    assert probe(here.port, "/live")[0] == 200
