"""Every route of the API's own description under random and mutated parameters, paths and bodies: never a 500.

The seed is printed: TOUCHFOLD_FUZZ_SEED repeats a run.
"""

import http.client
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from random import Random
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from tests.api_server import ApiServer
from tests.mutations import WEIRD, encoded
from tests.reading_world import ReadingWorld

SKIPPED: Final = {
    "/api/v1/changes/stream",  # an answer without end
    "/api/v1/sql",  # each statement is a process: test_sql.py
}
TEXTS: Final = (
    "", " ", "0", "1", "-1", "99999999999999999999", "9" * 5_000, "1e999", "NaN", "null", "true", "\0", "a\0b", "%00",
    "\ud800", "😀", "'; drop table profiles; --", "../../etc/passwd", "user_id", "ada", "profile", "email",
    "ada@example.com", "00000000-0000-0000-0000-000000000000", "x" * 10_000, "2026-02-30", "0001-01-01", "csv",
    "parquet", "{}", "[]", "active", "big_spenders", "a:b", ":", "\u202e", "ﬀ",
)  # fmt: skip


class Route(NamedTuple):
    method: str
    path: str
    parameters: Sequence[Mapping[str, Any]]
    properties: Mapping[str, Any] | None  # of its JSON body; None: it has none


def routes_of(description: Mapping[str, Any]) -> list[Route]:
    found = []
    schemas = description.get("components", {}).get("schemas", {})
    for path, calls in description["paths"].items():
        for method, call in calls.items():
            body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            named = None if body is None else schemas.get(body.get("$ref", "").rpartition("/")[2], body)
            if path not in SKIPPED:
                properties = None if named is None else named.get("properties", {})
                found.append(Route(method.upper(), path, call.get("parameters", []), properties))
    return found


def text(random: Random, known: Sequence[str]) -> str:
    return random.choice([*TEXTS, *known, *known, *known]).encode("utf-8", "replace").decode()


def path_of(route: Route, random: Random, known: Sequence[str]) -> str:
    path = route.path
    for each in route.parameters:
        if each["in"] == "path":
            path = path.replace("{" + each["name"] + "}", quote(text(random, known), safe="") or "-")
    query = [
        (each["name"], text(random, known))
        for each in route.parameters
        if each["in"] == "query" and each["name"] != "wait_s" and random.random() < 0.5
    ]
    return path + ("?" + urlencode(query) if query else "")


def body_of(route: Route, random: Random, known: Sequence[str]) -> bytes | None:
    if route.properties is None:
        return None
    if random.random() < 0.1:
        return random.choice((b"", b"{", b"[]", b"null", b"\xff", b"[" * 5_000, b'{"a":1}' * 2))
    body: dict[str, Any] = {}
    for name in [*route.properties, "action", "extra"]:
        if random.random() < 0.75:
            given = random.random()
            choices = (text(random, known), random.choice(WEIRD)(random), random.choice((0, 1, -1, 10**30, 1.5)))
            body[name] = choices[0 if given < 0.5 else 1 if given < 0.8 else 2]
    return encoded(body)


def fuzz(client: ApiServer, known: Sequence[str], rounds: int, seed: int | None = None) -> None:
    seed = int(os.environ.get("TOUCHFOLD_FUZZ_SEED", seed if seed is not None else Random().randrange(2**32)))
    print(f"seed {seed}")
    random = Random(seed)
    with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)) as connection:
        play(client, known, rounds, random, connection)


def play(
    client: ApiServer, known: Sequence[str], rounds: int, random: Random, connection: http.client.HTTPConnection
) -> None:
    connection.request("GET", "/api/v1/openapi.json", headers={"Authorization": f"Bearer {client.tokens['admin']}"})
    routes = routes_of(json.loads(connection.getresponse().read()))
    assert len(routes) > 30
    headers = {"Authorization": f"Bearer {client.tokens['admin']}", "Content-Type": "application/json"}
    for _ in range(rounds):
        for route in routes:
            path, body = path_of(route, random, known), body_of(route, random, known)
            connection.request(route.method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            seen = (route.method, path, body, answer.status, content[:500])
            assert answer.status < 500, seen
            if answer.status >= 400:
                error = json.loads(content)
                assert error["success"] is False, seen
                assert error["code"], seen
                assert error["message"], seen


@pytest.fixture
def known(world: ReadingWorld) -> list[str]:
    """Values that lead somewhere."""
    world.purchase([("user_id", "ada"), ("email", "ada@example.com")], "o1", "20.50")
    world.settle()
    [(profile,)] = world.execute("select profile_id::text from tokens limit 1")
    [(event,)] = world.execute("select event_key::text from register limit 1")
    return [str(profile), str(event), "ada", "user_id", "note", "correct_trait", "staff", "web"]


def test_every_route_answers_what_nobody_should_send(client: ApiServer, known: list[str]) -> None:
    fuzz(client, known, 12, seed=1)  # the same each time; the long form draws its own


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_every_route_for_long(client: ApiServer, known: list[str]) -> None:
    fuzz(client, known, 300)
