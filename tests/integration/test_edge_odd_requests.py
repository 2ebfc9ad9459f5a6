"""Requests that are rare or wrong, over real sockets: each is answered as HTTP says, or refused, and stalls nobody."""

import socket
import time
from collections.abc import Iterator

import pytest

from infra.drivers.http.connections import Limits
from infra.drivers.http.protocol import PIPELINED
from tests.integration.test_edge_limits import SMALL, Server, rest, server, told

HOST = b"Host: x\r\n"
END = b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Server]:
    with server(Limits(request_s=2.0, look_s=0.05, linger_s=0.3)) as running:
        yield running


def answer(running: Server, sent: bytes) -> bytes:
    with running.connect() as client:
        client.sendall(sent)
        return rest(client)


def head(client: socket.socket) -> bytes:
    """Up to the empty line, byte by byte: what follows is left."""
    found = b""
    while not found.endswith(b"\r\n\r\n") and (byte := client.recv(1)):
        found += byte
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\r\n",
        b"GET http://elsewhere.example/path?x=1 HTTP/1.1\r\n" + HOST + END,
        b"GET / HTTP/1.1\r\n" + HOST + b"X-Latin: \xe4\xff\r\nX-Empty:\r\n" + END,
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n" + END + b"abc",
        b"GET /%ff%00%zz HTTP/1.1\r\n" + HOST + END,
        b"GET / HTTP/1.1\r\n" + HOST + b"a:b\r\n" * 6_000 + END,
        b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + END,
    ],
)
def test_rare_and_right(ordinary: Server, sent: bytes) -> None:
    assert answer(ordinary, sent).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-\0: a\r\n" + END, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-Nul: a\0b\r\n" + END, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"No colon\r\n" + END, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X Space: a\r\n" + END, 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + END, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n" + END, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n" + END, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n" + END, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n" + END + b"abcd", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" + END + b"abc", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"zz\r\n", 400),
        (b"CONNECT elsewhere.example:443 HTTP/1.1\r\n" + HOST + END, 400),
        (b"GET / HTTP/9.9\r\n" + HOST + END, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a:b\r\n" * 100_000 + END, 431),
    ],
)
def test_wrong_is_told_so_once(ordinary: Server, sent: bytes, status: int) -> None:
    found = answer(ordinary, sent)
    assert told(found)[0] == status
    assert found.count(b"HTTP/1.1 ") == 1


def test_many_header_lines_take_time_by_their_number(ordinary: Server) -> None:
    """In one piece or byte by byte, the work for a header is linear: CPU of this process, which serves too."""

    def cost(lines: int) -> float:
        started = time.process_time()
        for _ in range(20):
            assert answer(ordinary, b"GET / HTTP/1.1\r\n" + HOST + b"a:b\r\n" * lines + END).startswith(b"HTTP/1.1 200")
        return time.process_time() - started

    cost(100)
    assert cost(6_000) < 30 * cost(600) + 0.5


def test_a_head_request_has_no_body(ordinary: Server) -> None:
    found = answer(ordinary, b"HEAD / HTTP/1.1\r\n" + HOST + END)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"\r\n\r\n")


def test_a_body_is_asked_for_where_its_sender_waits(ordinary: Server) -> None:
    start = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n"
    with ordinary.connect() as client:
        client.sendall(start + END)
        assert head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert rest(client).endswith(b"\r\n\r\n3")
    with server(SMALL) as quick, quick.connect() as client:  # and does not send it
        client.sendall(start + END)
        assert head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert told(rest(client)) == (408, "request_timeout")


def test_slow_chunks_end_with_the_time_of_a_request() -> None:
    with server(SMALL) as quick, quick.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        client.settimeout(0.1)
        found, deadline = b"", time.monotonic() + 20
        while b"\r\n\r\n" not in found and time.monotonic() < deadline:
            try:
                client.sendall(b"1\r\na\r\n")
                found += client.recv(10_000)
            except TimeoutError:
                continue
        assert told(found) == (408, "request_timeout")


def test_requests_in_one_piece_are_bounded(ordinary: Server) -> None:
    """A quarter of a megabyte holds 13,000 requests, and each takes some kB until it is answered."""
    one = b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"
    ordinary.application.go_on.clear()
    with ordinary.connect() as client:
        client.sendall(one * (PIPELINED + 100))
        assert rest(client) == b""
    ordinary.application.go_on.set()
    few = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    found = answer(ordinary, few * 60 + b"GET / HTTP/1.1\r\n" + HOST + END)
    assert found.count(b"HTTP/1.1 200") == 61
    assert ordinary.ask() == 200


def test_a_connection_that_rests_between_requests_is_kept() -> None:
    """SDKs and proxies keep theirs for a minute; here in small: longer than a header may take, shorter than its own."""
    limits = SMALL._replace(header_s=0.3, request_s=0.3, keep_alive_s=10.0, answer_s=0.3)
    with server(limits) as running, running.connect() as client:
        for _ in range(3):
            client.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
            assert head(client).startswith(b"HTTP/1.1 200")
            assert client.recv(1) == b"0"
            with running.connect() as slow:  # as long as every other limit
                slow.sendall(b"GET / HT")
                assert told(rest(slow))[0] == 408
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
