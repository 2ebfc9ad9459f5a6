"""Limits of the edges, over real sockets: headers, time, connections; what is slow or endless costs itself alone."""

import json
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from infra.drivers.http.client_address import Proxies
from infra.drivers.http.connections import HandleRoom, Limits
from infra.drivers.http.listening import start_listening
from infra.drivers.http.server import serve

DEADLINE_S = 20.0
SMALL = Limits(header_s=0.5, request_s=1.0, keep_alive_s=1.0, answer_s=0.6, linger_s=0.3, look_s=0.05)
LARGE = 8_000_000  # bytes of an answer, more than a socket's buffers take


class Application:
    """Answers each request after its body; `/large` with much, `/wait` when it is told to."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.gone = 0
        self.go_on = threading.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(200):
                await send({"type": "websocket.send", "bytes": bytes(50_000)})
            return
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.bodies.append(size)
        if scope["path"] == "/wait":
            import asyncio  # noqa: PLC0415

            await asyncio.to_thread(self.go_on.wait, DEADLINE_S)
        body = bytes(LARGE) if scope["path"] == "/large" else str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Server:
    def __init__(self, listener: socket.socket, application: Application) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.application = application

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_S, (source, 0))

    def ask(self, path: str = "/", body: bytes = b"", source: str = "127.0.0.1") -> int:
        """The status of an ordinary request."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S, source_address=(source, 0))
        try:
            client.request("POST", path, body)
            response = client.getresponse()
            response.read()
            return response.status
        finally:
            client.close()


@contextmanager
def server(limits: Limits, proxies: Proxies | None = None) -> Iterator[Server]:
    application, stop, ready = Application(), threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    thread = threading.Thread(
        target=lambda: serve(application, stop, ready.set, listener, limits=limits, proxies=proxies)
    )
    thread.start()
    assert ready.wait(DEADLINE_S)
    try:
        yield Server(listener, application)
    finally:
        application.go_on.set()
        stop.set()
        thread.join(DEADLINE_S)
        listener.close()


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    with server(SMALL) as running:
        yield running


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def rest(connection: socket.socket) -> bytes:
    """All that still comes; a connection that was cut off ends there."""
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionError:
        pass
    return found


def told(answer: bytes) -> tuple[int, str]:
    """(status, code) of an error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


# ---------------------------------------------------------------- header


def test_a_header_above_32_kib_is_refused_and_one_below_is_not(quick: Server) -> None:
    for size, status in ((30_000, 200), (40_000, 431), (1_000_000, 431)):
        with quick.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * size + b"\r\nConnection: close\r\n\r\n")
            answer = rest(client)
        assert answer.startswith(b"HTTP/1.1 %d" % status), (size, answer[:100])
        if status == 431:
            assert told(answer) == (431, "header_too_large")


@pytest.mark.parametrize("piece", [b"X-Many: 1\r\n", b"x", b"\r\n"])
def test_a_header_without_an_end_is_refused_whatever_it_is_made_of(quick: Server, piece: bytes) -> None:
    """Many headers, one endless value, and empty lines before any request: uvicorn took all of them for ever."""
    with quick.connect() as client:
        start = b"" if piece == b"\r\n" else b"GET / HTTP/1.1\r\nX-First: "
        client.sendall(start)
        for _ in range(40_000 // len(piece) // 100 + 1):
            client.sendall(piece * 100)
        assert told(rest(client)) == (431, "header_too_large")


@pytest.mark.parametrize("request_", [b"GET http://[ HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_told_so(quick: Server, request_: bytes) -> None:
    with quick.connect() as client:
        client.sendall(request_)
        assert told(rest(client)) == (400, "bad_request")


def test_a_request_line_above_32_kib_is_refused(quick: Server) -> None:
    with quick.connect() as client:
        client.sendall(b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert told(rest(client)) == (431, "header_too_large")


def test_trailers_are_not_headers_and_what_stands_between_chunks_is_bounded(quick: Server) -> None:
    start = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with quick.connect() as client:
        client.sendall(start + b"1\r\na\r\n" * 3 + b"0\r\nX-Trailer: t\r\n\r\n")
        assert rest(client).endswith(b"\r\n\r\n3")
    for endless in (b"1;" + b"e" * 1_000_000, b"0\r\n" + b"X-Trailer: t\r\n" * 70_000):
        with quick.connect() as client:
            client.sendall(start)
            client.sendall(endless[:20_000])
            for at in range(20_000, len(endless), 20_000):
                try:
                    client.sendall(endless[at : at + 20_000])
                except ConnectionError:
                    break
            assert rest(client)[:12] in (b"HTTP/1.1 400", b"")
    assert quick.ask(body=b"whole") == 200


def test_requests_one_after_another_and_in_one_piece_are_all_answered(quick: Server) -> None:
    one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"b" * 9_000
    with quick.connect() as client:
        client.sendall(one * 30 + one.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert rest(client).count(b"HTTP/1.1 200") == 31


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", 408),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", 408),
    ],
)
def test_who_does_not_send_a_request_is_ended(quick: Server, sent: bytes, status: int | None) -> None:
    with quick.connect() as client:
        client.sendall(sent)
        answer = rest(client)
    if status is None:
        assert answer == b""
    else:
        assert told(answer) == (status, "request_timeout")


def test_who_sends_a_byte_now_and_then_is_ended_too(quick: Server) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\nX-Slow: ", b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"):
        with quick.connect() as client:
            client.sendall(start)
            client.settimeout(0.05)
            answer, deadline, byte = b"", time.monotonic() + DEADLINE_S, b"\r" if not start else b"x"
            while time.monotonic() < deadline:
                try:
                    client.sendall(byte)
                    part = client.recv(10_000)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
                if not part:
                    break
                answer += part
            else:
                pytest.fail(f"still served: {start!r}")
        assert not answer or told(answer) == (408, "request_timeout")


def test_an_idle_connection_ends_and_is_not_kept_by_empty_lines(quick: Server) -> None:
    with quick.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert b"200 OK" in client.recv(1_000)

        def ended() -> bool:
            try:
                client.sendall(b"\r\n")
            except ConnectionError:
                return True
            return False

        until(ended, "the end of a connection that only sends empty lines")


def test_a_request_that_waits_for_its_answer_is_not_ended(quick: Server) -> None:
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(quick.ask("/wait")))
    quick.application.go_on.clear()
    waiting.start()
    with quick.connect() as other:  # as long as every limit there is
        other.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        assert told(rest(other))[0] == 408
    assert not answers
    quick.application.go_on.set()
    waiting.join(DEADLINE_S)
    assert answers == [200]


def test_who_does_not_read_its_answer_is_cut_off(quick: Server) -> None:
    for request in (
        b"POST /large HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", quick.port))
            client.sendall(request)
            until(lambda: _peer_is_gone(client), "the end of a connection whose answer nobody reads")


def _peer_is_gone(client: socket.socket) -> bool:
    """Whether the other end has cut the connection off, by the kernel's state of it: to read would be to read."""
    state: int = struct.unpack("B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]
    return state == 7  # TCP_CLOSE


def test_what_is_held_of_bodies_is_bounded_and_the_oldest_half_goes_first() -> None:
    start = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
    with server(SMALL._replace(request_s=60, bodies_bytes=5_000_000)) as running, ExitStack() as opened:
        clients = [opened.enter_context(running.connect()) for _ in range(10)]
        for client in clients:
            client.sendall(start + bytes(800_000))
        assert told(rest(clients[0])) == (503, "unavailable")
        clients[-1].sendall(bytes(100_000))
        assert clients[-1].recv(1_000).startswith(b"HTTP/1.1 200")
        assert running.ask(body=bytes(900_000)) == 200


# ---------------------------------------------------------------- connections


def test_beyond_the_bound_who_waits_longest_goes_and_who_asks_is_served() -> None:
    limits = Limits(most=40)
    with server(limits) as running, ExitStack() as opened:
        busy = threading.Thread(target=lambda: answers.append(running.ask("/wait", source="127.0.0.3")))
        answers: list[int] = []
        busy.start()
        idle = [opened.enter_context(running.connect("127.0.0.2")) for _ in range(15)]
        for _ in range(300):
            opened.enter_context(running.connect())
        assert running.ask(source="127.0.0.4") == 200
        assert running.ask() == 200
        running.application.go_on.set()
        busy.join(DEADLINE_S)
        assert answers == [200], "a request that was being answered lost its connection"
        for client in idle:  # of an address that has few
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)


def test_many_behind_a_trusted_proxy_are_not_counted_as_one_address() -> None:
    proxies = Proxies([ip_network("127.0.0.1")])
    with server(Limits(most=40), proxies) as running, ExitStack() as opened:
        clients = [opened.enter_context(running.connect()) for _ in range(35)]
        assert running.ask(source="127.0.0.2") == 200
        for client in clients:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)


def test_where_all_are_being_answered_another_is_told_to_come_back() -> None:
    with server(Limits(most=8)) as running:
        answers: list[int] = []
        sources = [f"127.0.0.{number}" for number in range(2, 10)]
        threads = [
            threading.Thread(target=lambda source=source: answers.append(running.ask("/wait", source=source)))
            for source in sources
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(running.application.bodies) == 8, "eight requests under way")
        with running.connect("127.0.0.11") as refused:
            assert told(rest(refused)) == (503, "too_many_connections")
        running.application.go_on.set()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert answers == [200] * 8


def waiting_room(listener: socket.socket) -> int:
    """How many connections may wait to be taken: of a listener, the kernel tells it as `tcpi_sacked`."""
    found: int = struct.unpack_from("=I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]
    return found


def test_as_many_may_wait_to_be_taken_as_the_system_allows() -> None:
    """A connection that finds no room is tried again after 1 s and then 3 s: /health was late for that, not for us."""
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        start_listening(listener)
        assert waiting_room(listener) == most
    with server(SMALL) as running:
        assert waiting_room(running.listener) == most, "uvicorn listens once more"


def test_the_bound_follows_the_limit_of_file_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = HandleRoom()
    taken = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 40, hard))
        assert 15 <= room(4_096) <= 25
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1_000, hard))
        assert 890 <= room(4_096) <= 910
        assert room(100) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
