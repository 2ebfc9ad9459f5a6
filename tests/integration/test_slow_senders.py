"""Hundreds of slow and endless senders at a real `touchfold up`: they cost themselves alone."""

import http.client
import json
import resource
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psutil
import pytest

from tests.integration.running import DEADLINE_S, Up, result, until

STARTS = (
    b"",
    b"G",
    b"GET /api/v1/me HTTP/1.1\r\nX-Endless: ",
    b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n{",
    b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nname=",
    b"POST /api/v1/sql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    b"GET /sign-in HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("slow") / "data", CONNECTIONS="600")
    running.wait_ready()
    yield running
    assert running.stop() == 0


@contextmanager
def slow_senders(port: int, count: int) -> Iterator[list[int]]:
    """Senders of a byte now and then, each of which comes again when it is ended; how often they did."""
    again, stop = [0], threading.Event()

    def connect(number: int) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port), DEADLINE_S, (f"127.0.0.{2 + number % 5}", 0))
        made.sendall(STARTS[number % len(STARTS)])
        return made

    def drip(senders: list[socket.socket]) -> None:
        with ExitStack() as opened:
            for each in senders:
                opened.callback(each.close)
            while not stop.wait(0.2):
                for number, each in enumerate(senders):
                    try:
                        each.sendall(b"x")
                    except OSError:
                        each.close()
                        senders[number] = opened.enter_context(connect(number))
                        again[0] += 1

    thread = threading.Thread(target=drip, args=([connect(number) for number in range(count)],))
    thread.start()
    try:
        yield again
    finally:
        stop.set()
        thread.join(DEADLINE_S)


def times(port: int, key: str, token: str, rounds: int = 40) -> list[float]:
    """Seconds that an ordinary client's requests take: an event, a read, a page, the health."""
    basic = b64encode(f"{key}:".encode()).decode()
    event = json.dumps({"userId": "ada", "event": "Signed Up"}).encode()
    asked: tuple[tuple[str, str, bytes | None, dict[str, str]], ...] = (
        ("POST", "/v1/track", event, {"Authorization": f"Basic {basic}"}),
        ("GET", "/api/v1/me", None, {"Authorization": f"Bearer {token}"}),
        ("GET", "/sign-in", None, {}),
        ("GET", "/health", None, {}),
    )
    found = []
    for number in range(rounds):
        method, path, body, headers = asked[number % len(asked)]
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        started = time.perf_counter()
        client.request(method, path, body, headers)
        assert client.getresponse().status == 200, path
        found.append(time.perf_counter() - started)
        client.close()
    return found


def test_an_ordinary_client_keeps_its_time_beside_hundreds_of_slow_senders(up: Up) -> None:
    port = urlsplit(up.url).port or 0
    key = result("source", "create", "web", "--data", str(up.data))["write_key"]
    token = result("token", "create", "--role", "admin", "--data", str(up.data))["token"]
    times(port, key, token)  # what is loaded with the first request is
    alone = median(times(port, key, token))
    with slow_senders(port, 900) as again:  # more than there are connections
        beside = median(times(port, key, token, 120))
        until(lambda: again[0] > 100, "the end of slow senders")
    assert beside < 10 * alone + 0.05, f"{beside * 1_000:.1f} ms beside them, {alone * 1_000:.1f} ms alone"


def test_health_answers_beside_ten_thousand_idle_sockets(up: Up) -> None:
    port = urlsplit(up.url).port or 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)
    try:
        with ExitStack() as opened:
            for number in range(count):
                source = (f"127.0.0.{2 + number % 40}", 0)
                opened.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S, source))
                if number % 1_000 == 0:
                    assert up.get("/health").status == 200
            assert up.get("/health").status == 200
            (door,) = up.pids("http")
            assert psutil.Process(door).num_fds() < 800
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Traceback" not in up.log


def test_a_door_with_64_file_descriptors_serves_and_does_not_spin(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", UI="off")
    try:
        up.wait_ready()
        (door,) = up.pids("http")
        resource.prlimit(door, resource.RLIMIT_NOFILE, (64, 64))
        port = urlsplit(up.url).port or 0
        with ExitStack() as opened:
            for number in range(300):
                source = (f"127.0.0.{2 + number % 40}", 0)
                opened.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S, source))
            until(lambda: _status(up) == 200, "an answer beside more sockets than there are descriptors")
            process = psutil.Process(door)
            before = sum(process.cpu_times()[:2])
            for _ in range(20):
                assert _status(up) == 200
                time.sleep(0.05)
            assert sum(process.cpu_times()[:2]) - before < 0.9, "it spins"
            assert process.pid == up.pids("http")[0]
    finally:
        assert up.stop() == 0
    assert "Traceback" not in up.log


def _status(up: Up) -> int:
    try:
        return up.get("/health").status
    except OSError:
        return 0
