"""What waits for long ends when `up` stops: answered, soon, and without an error in the log."""

import http.client
import json
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.running import Up, result, until


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data", UI="false")
    yield up
    up.stop()


def test_a_stop_ends_long_polls_and_streams_with_an_answer_and_no_error(up: Up) -> None:
    address = urlsplit(up.wait_ready())
    token = result("token", "create", "--role", "service", "--data", str(up.data))["token"]
    headers = {"Authorization": f"Bearer {token}"}
    told: dict[str, tuple[int, bytes]] = {}
    begun = threading.Barrier(3)

    def ask(path: str, read: Callable[[http.client.HTTPResponse], bytes]) -> None:
        assert address.hostname
        connection = http.client.HTTPConnection(address.hostname, address.port or 0, timeout=60)
        connection.request("GET", f"/api/v1/{path}", headers=headers)
        begun.wait(30)
        response = connection.getresponse()
        told[path] = (response.status, read(response))
        connection.close()

    paths = ("changes?wait_s=50", "changes/stream")
    threads = [threading.Thread(target=ask, args=(path, lambda response: response.read())) for path in paths]
    for thread in threads:
        thread.start()
    begun.wait(30)
    request = urllib.request.Request(f"{up.url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:  # and both requests are with the API by now
        text = answer.read().decode()
    assert "touchfold_up 1" in text
    assert up.get("/metrics").status == 401
    started = time.monotonic()
    assert up.stop(signal.SIGTERM) == 0
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - started < 30
    assert told["changes?wait_s=50"][0] == 200
    assert json.loads(told["changes?wait_s=50"][1])["items"] == []
    assert told["changes/stream"] == (200, b"retry: 2000\n\n")
    assert "Exception" not in up.log
    assert "error" not in up.log.lower().replace("stderr", "")


def test_the_edges_are_counted_over_a_restart(up: Up) -> None:
    up.wait_ready()
    token = result("token", "create", "--role", "service", "--data", str(up.data))["token"]
    key = result("source", "create", "web", "--data", str(up.data))["write_key"]
    assert up.send(key, "track", {"userId": "ada", "event": "Seen", "messageId": "m1"}).status == 200
    assert up.send("wk_wrong", "track", {"userId": "ada", "event": "Seen"}).status == 401

    def told() -> str:
        request = urllib.request.Request(f"{up.url}/metrics", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:  # not there again yet
            return ""

    until(lambda: 'touchfold_request_seconds_count{edge="door"} 2' in told(), "both answers timed")
    up.kill("http")
    until(lambda: 'touchfold_door_events_total{result="accepted"} 1' in told(), "the count of before the kill")
    text = told()
    assert "touchfold_door_requests_total 2" in text
    assert 'touchfold_refused_requests_total{edge="door",status="401"} 1' in text
    assert 'touchfold_request_seconds_count{edge="door"} 2' in text
    until(lambda: "touchfold_events_decided_total 1" in told(), "the event decided")
