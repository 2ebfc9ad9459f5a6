"""SQL over the API: turns, odd values, and an erasure beside slow statements."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.api_server import Answer, ApiServer
from tests.integration.running import until
from tests.reading_world import ReadingWorld


def ask(client: ApiServer, statement: str, role: str = "analyst") -> Answer:
    return client.ask("POST", "/sql", role, {"sql": statement})


@contextmanager
def slow_statements(client: ApiServer) -> Iterator[list[str]]:
    """From now on a statement runs until this ends. What was begun."""
    begun: list[str] = []
    end = threading.Event()

    def run(statement: str, _limit: int) -> Mapping[str, Any]:
        begun.append(statement)
        assert end.wait(60)
        return {"columns": [], "rows": [], "truncated": False}

    client.api.run_sql = run
    try:
        yield begun
    finally:
        end.set()


def waiting(client: ApiServer) -> int:
    return int(client.get("/sql/queue").body["waiting"])


def test_an_erasure_does_not_wait_for_slow_statements(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase([("user_id", "ada")], "o1", "20.50")
    world.settle()
    with ThreadPoolExecutor(5) as pool, slow_statements(client):
        asked = [pool.submit(ask, client, f"select {n}") for n in range(5)]
        until(lambda: waiting(client) == 3, "three statements that wait")
        erased = client.ask("POST", "/erase", "privacy", {"kind": "user_id", "value": "ada"})
        assert (erased.status, erased.body["found"]) == (200, True)
        assert not any(each.done() for each in asked)
    assert [each.result().status for each in asked] == [200] * 5


def test_people_take_turns_and_see_their_places(client: ApiServer) -> None:
    with ThreadPoolExecutor(4) as pool, slow_statements(client) as begun:
        pool.submit(ask, client, "select 1")
        pool.submit(ask, client, "select 2")
        until(lambda: len(begun) == 2, "two statements that run")
        pool.submit(ask, client, "select 3")
        until(lambda: waiting(client) == 1, "one that waits")
        pool.submit(ask, client, "select 4", "admin")
        until(lambda: waiting(client) == 2, "two that wait")
        found = client.get("/sql/queue", "admin").body
        assert (found["running"], found["waiting"]) == (2, 2)
        assert [(each["statement"], each["place"]) for each in found["yours"]] == [("select 4", 2)]


def test_what_nobody_waits_for_any_more_is_not_run(client: ApiServer) -> None:
    with ThreadPoolExecutor(2) as pool, slow_statements(client) as begun:
        for _ in range(2):
            pool.submit(ask, client, "select 1")
        until(lambda: len(begun) == 2, "two statements that run")
        connection = http.client.HTTPConnection("127.0.0.1", client.port)
        headers = {"Authorization": f"Bearer {client.tokens['admin']}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/sql", json.dumps({"sql": "select 'left'"}), headers)
        until(lambda: waiting(client) == 1, "one that waits")
        connection.close()
    until(lambda: client.get("/sql/queue").body["running"] == 0, "the end of all")
    assert begun == ["select 1", "select 1"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("date '290000-01-01'", "290000-01-01"),
        ("date '0044-03-15 (BC)'", "0044-03-15 (BC)"),
        ("timestamptz 'infinity'", "infinity"),
        ("[timestamp '-infinity', null]", ["-infinity", None]),
        ("{'at': timestamptz '12000-01-01 00:00:00+00'}", {"at": "12000-01-01T00:00:00Z"}),
        ("['nan'::double, 'inf'::double, '-inf'::float]", ["NaN", "Infinity", "-Infinity"]),
        ("340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211455"),
        ("timestamp_ns '2026-01-01 00:00:00.123456789'", "2026-01-01T00:00:00.123456789"),
    ],
)
def test_what_json_has_no_word_for_comes_back_as_what_it_is(client: ApiServer, expression: str, value: object) -> None:
    answer = ask(client, f"select {expression} as v")
    assert (answer.status, answer.body["rows"]) == (200, [[value]])
