"""A role without the right to personal values finds nobody: no address of the API answers a person's values otherwise
than values that nobody has. Every address of the OpenAPI is asked, so one that is added later is asked too."""

import http.client
import json
import re
from collections.abc import Iterator
from string import ascii_lowercase
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from query.sql.statements import TABLES
from schemas.roles import PERSONAL, ROLES, may
from tests.api_server import ApiServer
from tests.integration.test_api_roles import example
from tests.reading_world import ReadingWorld

ODD_MESSAGE: Final = "zyxenia@quorwell.example/1"  # a message id that no record keeps
CANARY: Final = [
    ("user_id", "zyxenia"),
    ("email", "zyxenia@quorwell.example"),
    ("phone", "+14155550142"),
    ("loyalty_card", "8812377"),
    ("device_id", "dev-zyxenia-1"),
]
# What is asked, and beside it what is asked of nobody: of the same form, so that nothing but the person differs.
PAIRS: Final = (
    ("zyxenia", "bnvopqw"),
    ("zyx", "bnv"),
    ("zy", "bn"),
    ("quorwell", "mnbvcxzz"),
    ("zyxenia quorwell", "bnvopqw mnbvcxzz"),
    ("zyxenia@quorwell.example", "bnvopqw@mnbvcxzz.example"),
    ("+14155550142", "+14155559871"),
    ("0142", "9871"),
    ("8812377", "9923488"),
    ("dev-zyxenia-1", "dev-bnvopqw-1"),
    (ODD_MESSAGE, "bnvopqw@mnbvcxzz.example/1"),
    ("email:zyxenia@quorwell.example", "email:bnvopqw@mnbvcxzz.example"),
)
KINDS: Final = ("user_id", "email", "phone", "loyalty_card", "device_id")
_CHANGING: Final = re.compile(r'"(at|made_at|for_s|entered_at|received_at)":("[^"]*"|[0-9.]+)')


class Told(NamedTuple):
    """An answer as somebody sees it who compares: what was asked is taken out, and clocks."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


def told(client: ApiServer, token: str, method: str, address: str, body: object, asked: str) -> Told:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, f"/api/v1{address}", content, headers)
        answer = connection.getresponse()
        text = "" if address.startswith("/changes/stream") else answer.read().decode("utf-8", "replace")
        found = [(name.lower(), value) for name, value in answer.getheaders() if name.lower() != "date"]
    finally:
        connection.close()
    for each in (asked, quote(asked, safe=""), json.dumps(asked)[1:-1]):
        text = text.replace(each, "<asked>")
    return Told(answer.status, tuple(sorted(found)), _CHANGING.sub("", text))


class Slot(NamedTuple):
    """A place in a request where a text goes; the other places hold the examples of the description."""

    method: str
    path: str  # of the description
    name: str
    values: dict[str, Any]  # of path and query, and of the body
    body: bool

    def request(self, text: str, kind: str) -> tuple[str, object]:
        values = {**self.values, self.name: text}
        if "kind" in values and self.name == "value":
            values["kind"] = kind
        path, names = self.path, set(re.findall(r"{([a-z_]+)(?::[a-z]+)?}", self.path))
        for name in names:
            path = re.sub(rf"{{{name}(:[a-z]+)?}}", lambda _, name=name: quote(str(values[name]), safe=""), path)  # type: ignore[misc]
        rest = {name: value for name, value in values.items() if name not in names}
        if self.body:
            return path, rest
        return path + (f"?{urlencode(rest)}" if rest else ""), None


def slots(client: ApiServer) -> Iterator[Slot]:
    """Every text of every request: in the path, in the query, in the body."""
    described = client.get("/openapi.json", None).body
    for full, methods in described["paths"].items():
        for method, route in methods.items():
            path = full.removeprefix("/api/v1")
            given = {each["name"]: each for each in route.get("parameters", ()) if each["in"] in ("path", "query")}
            needed = {name: example(described, each) for name, each in given.items() if each["required"]}
            body = example(described, route["requestBody"]) if "requestBody" in route else {}
            texts = [name for name, each in given.items() if "string" in json.dumps(each["schema"])]
            for name in [*texts, *(key for key, value in body.items() if isinstance(value, str) and key != "sql")]:
                yield Slot(method.upper(), path, name, {**needed, **body}, bool(body))


@pytest.fixture
def shop(world: ReadingWorld) -> ReadingWorld:
    world.send(
        CANARY,
        type_="profile.identified",
        message_id=ODD_MESSAGE,
        sealed={"traits": {"name": "Zyxenia Quorwell", "email": world.ref("email", "zyxenia@quorwell.example")}},
    )
    world.send([("user_id", "bob")], type_="profile.identified", sealed={"traits": {"name": "Bob Byron"}})
    world.purchase(CANARY[:1], "o1", "20.00")
    world.settle()
    return world


def differences(client: ApiServer, role: str) -> list[str]:
    """Addresses that answer a person otherwise than nobody."""
    found = []
    for slot in slots(client):
        kinds = KINDS if "kind" in slot.values and slot.name == "value" else ("",)
        for kind in kinds:
            for person, nobody in PAIRS:
                one, other = slot.request(person, kind), slot.request(nobody, kind)
                token = client.tokens[role]
                if told(client, token, slot.method, *one, person) != told(client, token, slot.method, *other, nobody):
                    found.append(f"{slot.method} {slot.path} by {slot.name}")
                    break
    return sorted(set(found))


WITHOUT: Final = [role for role in ROLES if not may(role, PERSONAL)]


def test_who_sees_no_personal_values_finds_nobody_at_any_address(shop: ReadingWorld, client: ApiServer) -> None:
    assert WITHOUT == ["analyst"]
    for role in WITHOUT:
        assert differences(client, role) == [], role


def test_the_comparison_sees_what_a_role_that_may_look_finds(shop: ReadingWorld, client: ApiServer) -> None:
    assert set(differences(client, "marketer")) >= {
        "GET /events/{event_id} by event_id",
        "GET /profiles by search",
        "GET /profiles/{kind}/{value} by value",
        "POST /profiles/lookup by value",
    }


def test_prefix_by_prefix_nobody_is_spelled_out(shop: ReadingWorld, client: ApiServer) -> None:
    """The attack: which letters go on after those that were found; at each step all of them are tried."""
    for letters in ("", "z", "zy", "zyxeni"):
        answers = [client.get(f"/profiles?search={letters}{letter}", "analyst") for letter in ascii_lowercase]
        assert {answer.status for answer in answers} == {403}
        assert len({answer.body["message"] for answer in answers}) == 1


def test_no_table_holds_what_a_person_is_found_by(world: ReadingWorld, client: ApiServer) -> None:
    world.send(CANARY, type_="profile.identified", sealed={"traits": {"name": "Zyxenia Quorwell"}})
    world.purchase(CANARY[:1], "o1", "20.00")
    world.settle()
    needles = " or ".join(f"lower(row::varchar) like '%{each}%'" for each in ("zyxenia", "quorwell", "0142", "8812377"))
    parts = [f"select count(*) as n from (select t as row from {table} t) where {needles}" for table in TABLES]
    found = client.ask("POST", "/sql", "analyst", {"sql": " union all ".join(parts)}).body
    assert found["rows"] == [[0]] * len(TABLES)
