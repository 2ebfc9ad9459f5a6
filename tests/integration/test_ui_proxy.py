"""What stands before the pages: it passes requests, answers and WebSockets on as they are, and keeps nothing."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn import Config
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from infra.drivers.http.pages_proxy import MAX_BODY, UiProxy
from infra.drivers.http.server import StoppableServer, serve

Asgi = Callable[..., Any]


class Pages:
    """Stands for the pages: an ASGI application that notes what reached it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.go_on = threading.Event()

    async def __call__(self, scope: dict[str, Any], receive: Asgi, send: Asgi) -> None:
        if scope["type"] == "websocket":
            await self._echo(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.seen.append({**scope, "body": body})
        headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"visitor=first; Path=/")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        if scope["path"] == "/slow":
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await asyncio.to_thread(self.go_on.wait, 30)
        if scope["path"] == "/broken":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("the pages break")
        await send({"type": "http.response.body", "body": b"last"})

    async def _echo(self, scope: dict[str, Any], receive: Asgi, send: Asgi) -> None:
        await receive()
        self.seen.append(scope)
        if scope["path"] == "/refused":
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 1000})
                return
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


@pytest.fixture
def pages() -> Pages:
    return Pages()


def _listener(where: str | tuple[str, int]) -> socket.socket:
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(where)
    listener.listen(100)
    return listener


@pytest.fixture
def address(tmp_path: Path, pages: Pages) -> Iterator[str]:
    """host:port of a door's server that has the pages behind it."""
    stop, ready = threading.Event(), threading.Semaphore(0)
    path = str(tmp_path / "ui.sock")
    proxy = UiProxy(path)
    behind, before = _listener(path), _listener(("127.0.0.1", 0))
    config = Config(pages, ws="websockets-sansio", lifespan="off", log_config=None, timeout_graceful_shutdown=1,
                    timeout_keep_alive=1)  # fmt: skip
    threads = [
        threading.Thread(target=lambda: StoppableServer(config, stop, ready.release).run(sockets=[behind])),
        threading.Thread(target=lambda: serve(proxy, stop, ready.release, before, closing=proxy.close)),
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=30)
    yield "{}:{}".format(*before.getsockname())
    stop.set()
    pages.go_on.set()
    for thread in threads:
        thread.join(30)
    before.close()
    behind.close()


def test_a_request_arrives_as_it_was_sent_and_says_who_asked(address: str, pages: Pages) -> None:
    headers = {"X-Forwarded-For": "10.9.9.9", "Connection": "keep-alive, x-hop", "X-Hop": "1", "X-Kept": "yes",
               "Cookie": "a=b"}  # fmt: skip
    answer = httpx.post(f"http://{address}/a%20b/%2Fc?x=1&y=%26", content=b"name=ada", headers=headers)
    assert (answer.status_code, answer.text, answer.headers["set-cookie"]) == (201, "last", "visitor=first; Path=/")
    seen = pages.seen[0]
    assert (seen["method"], seen["raw_path"], seen["query_string"]) == ("POST", b"/a%20b/%2Fc", b"x=1&y=%26")
    assert seen["body"] == b"name=ada"
    arrived = dict(seen["headers"])
    assert arrived[b"x-forwarded-for"] == b"127.0.0.1"
    assert arrived[b"host"].decode() == address
    assert (arrived[b"x-kept"], arrived[b"cookie"]) == (b"yes", b"a=b")
    assert b"x-hop" not in arrived


def test_the_cookies_of_one_visitor_never_reach_the_pages_with_anothers_request(address: str, pages: Pages) -> None:
    for _ in range(3):
        assert "set-cookie" in httpx.get(f"http://{address}/").headers  # each a browser of its own
    assert [dict(seen["headers"]).get(b"cookie") for seen in pages.seen] == [None, None, None]


def test_a_connection_that_the_pages_ended_is_made_again(address: str, pages: Pages) -> None:
    """Theirs ends after a second of rest here; requests come just before, at and after that moment."""
    for rest in (0.99, 1.0, 1.01):
        assert httpx.get(f"http://{address}/").status_code == 201
        time.sleep(rest)
        assert httpx.get(f"http://{address}/").status_code == 201
    assert len(pages.seen) == 6


def test_an_answer_streams(address: str, pages: Pages) -> None:
    with httpx.stream("GET", f"http://{address}/slow", timeout=30) as answer:
        parts = answer.iter_bytes()
        assert next(parts) == b"first"  # while the pages still hold the rest
        pages.go_on.set()
        assert b"".join(parts) == b"last"


def test_an_answer_that_breaks_off_is_seen_to_break_off(address: str) -> None:
    with pytest.raises(httpx.HTTPError), httpx.stream("GET", f"http://{address}/broken", timeout=30) as answer:
        answer.read()


def test_a_body_that_no_page_takes_is_refused(address: str, pages: Pages) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 65_536 + 1):
            yield bytes(65_536)

    assert httpx.post(f"http://{address}/", content=parts()).status_code == 413
    assert pages.seen == []


def test_a_socket_passes_texts_and_bytes_and_its_end_both_ways(address: str, pages: Pages) -> None:
    origin = Origin(f"http://{address}")
    with connect(f"ws://{address}/live?x=1", additional_headers={"Cookie": "a=b"}, origin=origin) as one:
        one.send("héllo")
        assert one.recv(30) == "héllo"
        one.send(b"\x00\xff" * 1_000)
        assert one.recv(30) == b"\x00\xff" * 1_000
        one.send("close")
        with pytest.raises(ConnectionClosed):
            one.recv(30)
    arrived = dict(pages.seen[0]["headers"])
    assert (arrived[b"cookie"], arrived[b"origin"].decode()) == (b"a=b", origin)
    assert pages.seen[0]["query_string"] == b"x=1"


def test_a_socket_the_pages_refuse_is_refused(address: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{address}/refused")
    assert refused.value.response.status_code == 403


def test_where_the_pages_are_away_a_page_says_so_and_loads_again(tmp_path: Path) -> None:
    stop, ready = threading.Event(), threading.Event()
    listener = _listener(("127.0.0.1", 0))
    proxy = UiProxy(str(tmp_path / "nobody.sock"))
    thread = threading.Thread(target=lambda: serve(proxy, stop, ready.set, listener, closing=proxy.close))
    thread.start()
    assert ready.wait(30)
    address = "{}:{}".format(*listener.getsockname())
    answer = httpx.get(f"http://{address}/customers")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert 'http-equiv="refresh"' in answer.text
    with pytest.raises(InvalidStatus):
        connect(f"ws://{address}/")
    stop.set()
    thread.join(30)
    listener.close()
