"""Whoever may not be served any more is served nothing more within a second: streams under traffic, waits, exports."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest

from infra.adapters.postgres.people import PostgresPeople
from infra.adapters.postgres.tokens import PostgresTokens
from query.answers import iso
from tests.api_server import ApiServer
from tests.integration.running import until
from tests.reading_world import NOW, ReadingWorld

PASSWORD = "correct horse battery"
SOON_S = 5.0  # it takes 0.4 s; the machine of the tests may be busy


@contextmanager
def traffic(world: ReadingWorld) -> Iterator[None]:
    """Changes all the while: a stream never is quiet."""
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            world.purchase([("user_id", f"u{number}")], f"o{number}", "20.00")
            world.settle()

    thread = threading.Thread(target=send, name="traffic")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def seconds_to_the_end(client: ApiServer, path: str, headers: dict[str, str], end: Callable[[], object]) -> float:
    """From the end of a session to the end of the stream; it must have had something before."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    connection.request("GET", f"/api/v1{path}", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    while not answer.readline().startswith(b"data:"):
        pass
    end()
    began = time.monotonic()
    with closing(connection):
        while answer.readline():
            assert time.monotonic() - began < 20, "it goes on"
    return time.monotonic() - began


def session(world: ReadingWorld, client: ApiServer, role: str) -> tuple[PostgresPeople, str]:
    people = client.api.people
    return people, people.accept(people.invite("ada", role, NOW), PASSWORD, NOW)


@pytest.mark.parametrize("how", ["revoked", "expired", "signed out", "disabled", "another role"])
def test_a_stream_ends_within_a_second_under_traffic(world: ReadingWorld, client: ApiServer, how: str) -> None:
    with traffic(world):
        if how in ("revoked", "expired"):
            tokens: PostgresTokens = client.api.tokens
            name, token = tokens.create("service", NOW, timedelta(hours=1))
            headers = {"Authorization": f"Bearer {token}"}

            def end() -> None:
                if how == "revoked":
                    tokens.revoke(name, NOW)
                else:
                    world.clock.at += timedelta(hours=1)

        else:
            people, cookie = session(world, client, "staff")
            headers = {"Cookie": f"touchfold_session={cookie}"}
            ends = {
                "signed out": lambda: people.sign_out(cookie, NOW),
                "disabled": lambda: people.disable("ada", NOW),
                "another role": lambda: people.set_role("ada", "analyst"),
            }
            people.accept(people.invite("root", "admin", NOW), PASSWORD, NOW)
            end = ends[how]
        took_s = seconds_to_the_end(client, "/changes/stream", headers, end)
    assert took_s < SOON_S  # without a look at it, never


def test_a_long_wait_is_refused_when_its_token_is_revoked(world: ReadingWorld, client: ApiServer) -> None:
    name, token = client.api.tokens.create("service", NOW)
    start = client.get("/changes?limit=1000").body["next"]
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    with closing(connection):
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", f"/api/v1/changes?wait_s=60&after={start}", headers=headers)
        deadline = time.monotonic() + 20
        while not client.api._standing._watched:
            assert time.monotonic() < deadline, "it does not wait"
            time.sleep(0.01)
        client.api.tokens.revoke(name, NOW)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (401, "unauthorized")


def test_nobody_is_looked_up_while_nobody_is_served(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase([("user_id", "ada")], "o1", "20.00")
    world.settle()
    name, token = client.api.tokens.create("service", NOW)
    headers = {"Authorization": f"Bearer {token}"}
    seconds_to_the_end(client, "/changes/stream", headers, lambda: client.api.tokens.revoke(name, NOW))
    assert client.get("/segments/new_customers/export").status == 200
    assert client.ask("POST", "/sql", body={"sql": "select 1"}).status == 200
    assert not client.api._standing._watched


def test_a_token_expires_and_is_told_of_before(world: ReadingWorld, client: ApiServer) -> None:
    made = client.ask("POST", "/tokens", body={"role": "analyst", "expires": "4w"}).body
    assert made["expires_at"] == iso(NOW + timedelta(weeks=4))
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert client.ask("GET", "/me", None, headers=headers).status == 200
    with closing(PostgresPeople(world.databases.main)) as people:
        cookie = people.sign_in_with_token(made["token"], world.clock.now())
        assert cookie is not None
        assert people.who(cookie, world.clock.now()) is not None
        after = world.clock.now() + timedelta(weeks=4)
        assert people.who(cookie, after) is None
        assert people.sign_in_with_token(made["token"], after) is None
    listed = {each["id"]: each["expires_at"] for each in client.get("/tokens").body}
    assert listed[made["id"]] == made["expires_at"]
    world.clock.at += timedelta(weeks=4)
    until(lambda: client.ask("GET", "/me", None, headers=headers).status == 401, "the end of what is remembered")


@pytest.mark.parametrize("bad", ["", "90", "d", "0d", "59m", "1.5d", "11y", "9999w", "-1d", "1 d"])
def test_a_time_to_live_that_is_none_says_what_one_is(client: ApiServer, bad: str) -> None:
    answer = client.ask("POST", "/tokens", body={"role": "analyst", "expires": bad})
    assert answer.status == 400
    (problem,) = answer.body["errors"]
    assert problem["path"] == "expires"
    assert "such as 12h, 90d or 4w" in problem["reason"]
