"""Who may do what over HTTP: every address of the OpenAPI with every role, cookies of the pages, and the audit log."""

import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from infra.drivers.http.session_cookie import csrf_token
from tests.api_server import Answer, ApiServer
from tests.reading_world import NOW, ReadingWorld

ALL = "admin marketer analyst staff privacy service"
PERSONAL = "admin marketer staff privacy service"
ACT, OPERATE, EXPORT = "admin staff service", "admin analyst marketer", "admin marketer analyst service"
MAY = {
    "GET /me": ALL,
    "GET /profiles": ALL,
    "POST /profiles/lookup": PERSONAL,
    "GET /profiles/profile/{profile_id}": ALL,
    "GET /profiles/{kind}/{value}": PERSONAL,
    "GET /profiles/{profile_id}/timeline": ALL,
    "GET /profiles/{profile_id}/details": ALL,
    "POST /profiles/{profile_id}/actions": ACT,
    "GET /segments": ALL,
    "GET /segments/{name}": ALL,
    "GET /segments/{name}/members": ALL,
    "GET /segments/{name}/trend": ALL,
    "GET /segments/{name}/export": EXPORT,
    "GET /changes": ALL,
    "GET /changes/stream": ALL,
    "POST /sql": "admin analyst",
    "GET /sql/queue": "admin analyst",
    "GET /events": OPERATE,
    "GET /events/{event_id}": ALL,
    "GET /status": ALL,
    "GET /operations": OPERATE,
    "GET /reports/overview": ALL,
    "GET /dead-letters": OPERATE,
    "GET /dead-letters/{letter_id}": OPERATE,
    "POST /dead-letters/{letter_id}/retry": OPERATE,
    "GET /records/{partition}/{offset}": "admin",
    "POST /records/{partition}/{offset}/set-aside": "admin",
    "GET /sources": "admin",
    "POST /sources": "admin",
    "POST /sources/{name}/rotate": "admin",
    "POST /sources/{name}/revoke": "admin",
    "POST /sources/{name}/settings": "admin",
    "GET /tokens": "admin",
    "POST /tokens": "admin",
    "POST /tokens/{token_id}/revoke": "admin",
    "GET /people": "admin",
    "POST /people": "admin",
    "POST /people/{name}/role": "admin",
    "POST /people/{name}/disable": "admin",
    "POST /people/{name}/link": "admin",
    "GET /audit": "admin privacy",
    "GET /audit/verify": "admin privacy",
    "POST /erase": "admin privacy",
    "POST /erasures": "admin privacy",
    "GET /erasures/{list_id}": "admin privacy",
    "GET /erasures/{list_id}/receipts": "admin privacy",
    "POST /export-person": "admin privacy",
}
CONTRACTS = Path(__file__).parents[2] / "docs" / "contracts.md"
PASSWORD = "correct horse battery"
ADA = [("user_id", "ada"), ("email", "ada@example.com")]


def operations(client: ApiServer) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path under the prefix, its description) of all that the OpenAPI lists."""
    for path, methods in client.get("/openapi.json", None).body["paths"].items():
        for method, route in methods.items():
            yield method.upper(), path.removeprefix("/api/v1").replace(":path", "").replace(":uuid", ""), route


def example(described: dict[str, Any], part: dict[str, Any]) -> Any:
    """The body's example, or a parameter's."""
    schema = part.get("schema") or part["content"]["application/json"]["schema"]
    if "$ref" in schema:
        return described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["example"]
    return schema["examples"][0]


def request_of(described: dict[str, Any], path: str, route: dict[str, Any]) -> tuple[str, object]:
    """(address, body) made of the examples of the description alone."""
    query = {}
    for each in route.get("parameters", ()):
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(str(example(described, each)), safe=""))
        elif each["in"] == "query" and each["required"]:
            query[each["name"]] = example(described, each)
    body = example(described, route["requestBody"]) if "requestBody" in route else None
    return path + (f"?{urlencode(query)}" if query else ""), body


def status_of(client: ApiServer, method: str, address: str, headers: dict[str, str], body: object) -> int:
    """The status alone: a stream never ends."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        content = None if body is None else json.dumps(body).encode()
        more = {} if content is None else {"Content-Type": "application/json"}
        connection.request(method, f"/api/v1{address}", content, {**headers, **more})
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_address_answers_the_roles_that_may_and_no_other(client: ApiServer) -> None:
    described = client.get("/openapi.json", None).body
    seen = set()
    for method, path, route in operations(client):
        address, body = request_of(described, path, route)
        may = MAY[f"{method} {path}"].split()  # an address that is not in the table is an error
        seen.add(f"{method} {path}")
        assert set(route["x-roles"]) == set(may), (method, path)
        for role, token in client.tokens.items():
            status = status_of(client, method, address, {"Authorization": f"Bearer {token}"}, body)
            if role in may:
                assert status not in {401, 403, 405, 500}, (method, path, role, status)
            else:
                assert status == 403, (method, path, role, status)
        for headers in ({}, {"Authorization": "Bearer tf_wrong"}, {"Cookie": "touchfold_session=wrong"}):
            assert status_of(client, method, address, headers, body) == 401, (method, path, headers)
    assert seen == MAY.keys()


def test_the_contracts_list_every_address_with_its_roles() -> None:
    rows = re.findall(r"^\| `(GET|POST) ([^`]+)`[^|]*\| ([a-z ]+) \|", CONTRACTS.read_text(), re.MULTILINE)
    assert {f"{method} /{path}": ALL if roles == "all" else roles for method, path, roles in rows} == MAY


# --- cookies -----------------------------------------------------------------------------------------------------


def signed_in(client: ApiServer, name: str, role: str) -> str:
    people = client.api.people
    return people.accept(people.invite(name, role, NOW), PASSWORD, NOW)


def with_cookie(client: ApiServer, secret: str, method: str, path: str, body: object = None, **more: str) -> Answer:
    headers = {"Cookie": f"touchfold_session={secret}", **{key.replace("_", "-"): value for key, value in more.items()}}
    return client.ask(method, path, None, body, headers)


def test_a_cookie_has_the_rights_of_who_signed_in(client: ApiServer) -> None:
    secret = signed_in(client, "ada", "analyst")
    me = with_cookie(client, secret, "GET", "/me").body
    assert (me["name"], me["role"], me["csrf_token"]) == ("ada", "analyst", csrf_token(secret))
    assert {"read", "sql"} <= set(me["rights"])
    assert "personal" not in me["rights"]
    assert secret not in str(me)
    assert with_cookie(client, secret, "GET", "/segments").status == 200
    assert with_cookie(client, secret, "GET", "/people").status == 403


def test_a_write_with_a_cookie_must_come_from_our_pages_or_show_the_token(client: ApiServer) -> None:
    secret, other = signed_in(client, "ada", "admin"), signed_in(client, "bob", "admin")
    ours, body = f"127.0.0.1:{client.port}", {"name": "shop-2"}
    refused: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{ours}.evil.example"},
        {"X_CSRF_Token": "wrong"},
        {"X_CSRF_Token": csrf_token(other)},
        {"X_CSRF_Token": "", "Origin": f"http://{ours}"},
    ]
    for headers in refused:
        answer = with_cookie(client, secret, "POST", "/sources", body, **headers)
        assert (answer.status, answer.body["code"]) == (403, "forbidden"), headers
    assert {each["name"] for each in client.get("/sources").body} == {"shop", "web"}
    assert with_cookie(client, secret, "POST", "/sources", body, X_CSRF_Token=csrf_token(secret)).status == 200
    assert with_cookie(client, secret, "POST", "/sources/shop-2/revoke", Origin=f"http://{ours}").body["revoked"] == 1


def test_a_token_counts_before_a_cookie(client: ApiServer) -> None:
    secret = signed_in(client, "ada", "admin")
    cookie = {"Cookie": f"touchfold_session={secret}"}
    assert client.ask("GET", "/me", "staff", headers=cookie).body["role"] == "staff"
    assert client.ask("GET", "/people", "staff", headers=cookie).status == 403


def test_the_cookie_of_a_session_that_ended_is_refused(client: ApiServer) -> None:
    signed_in(client, "boss", "admin")
    for end in ("sign out", "disable", "role"):
        secret = signed_in(client, end.split()[0], "admin")
        assert with_cookie(client, secret, "GET", "/people").status == 200
        if end == "sign out":
            client.api.people.sign_out(secret, NOW)
        elif end == "disable":
            assert client.ask("POST", "/people/disable/disable").body == {"name": "disable", "disabled": True}
        else:
            assert client.ask("POST", "/people/role/role", body={"role": "staff"}).status == 200
        deadline = time.monotonic() + 30
        while (answer := with_cookie(client, secret, "GET", "/people")).status == 200:
            assert time.monotonic() < deadline, "still taken"
        assert answer.status == (403 if end == "role" else 401)


# --- deeds -------------------------------------------------------------------------------------------------------


def test_people_are_invited_linked_and_disabled(client: ApiServer) -> None:
    made = client.ask("POST", "/people", body={"name": "Ada ", "role": "staff"}).body
    assert (made["name"], made["role"]) == ("ada", "staff")
    assert made["link"].startswith(f"http://127.0.0.1:{client.port}/welcome/")
    link = client.ask("POST", "/people/ada/link").body["link"].rsplit("/", 1)[1]
    assert client.api.people.invited(made["link"].rsplit("/", 1)[1], NOW) is None
    client.api.people.accept(link, PASSWORD, NOW)
    (row,) = client.get("/people").body
    assert (row["name"], row["role"], row["state"]) == ("ada", "staff", "active")
    again = client.ask("POST", "/people", body={"name": "ada", "role": "admin"})
    assert (again.status, again.body["errors"][0]["path"]) == (400, "name")
    assert client.ask("POST", "/people/nobody/disable").status == 404
    assert client.ask("POST", "/people", body={"name": "x", "role": "king"}).status == 400


def test_sources_and_tokens_are_made_and_ended(client: ApiServer) -> None:
    made = client.ask("POST", "/sources", body={"name": "till"}).body
    assert made["write_key"] in made["curl"]
    assert f"http://127.0.0.1:{client.port}/v1/track" in made["curl"]
    turned = client.ask("POST", "/sources/till/rotate").body
    assert turned["write_key"] != made["write_key"]
    assert [each["keys"] for each in client.get("/sources").body if each["name"] == "till"] == [1]
    token = client.ask("POST", "/tokens", body={"role": "service"}).body
    headers = {"Authorization": f"Bearer {token['token']}"}
    assert client.ask("GET", "/me", None, headers=headers).body["name"] == f"token:{token['id']}"
    assert client.ask("POST", f"/tokens/{token['id']}/revoke").body == {"id": token["id"], "revoked": True}
    (listed,) = [each for each in client.get("/tokens").body if each["id"] == token["id"]]
    assert listed["revoked_at"]
    assert token["token"] not in str(client.get("/tokens").body)


def test_what_staff_write_becomes_an_event_of_the_customer(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    found = client.get("/profiles/user_id/ada").body["id"]
    address = f"/profiles/{found}/actions"
    done = client.ask("POST", address, "staff", {"action": "note", "text": "likes tea"})
    assert done.status == 200
    client.ask("POST", address, "staff", {"action": "complaint", "topic": "delivery", "text": "late"})
    client.ask("POST", address, "staff", {"action": "correct_trait", "name": "city", "value": "Graz"})
    world.settle()
    profile = client.get("/profiles/user_id/ada").body
    assert profile["traits"]["city"] == "Graz"
    assert profile["computed"]["open_complaints"] == 1
    timeline = client.get(f"/profiles/{found}/timeline?type=note.added").body["items"]
    assert [(each["id"], each["properties"]["text"]) for each in timeline] == [(done.body["event_id"], "likes tea")]
    assert (
        client.ask("POST", address, "staff", {"action": "call", "direction": "in"}).body["errors"][0]["path"] == "topic"
    )
    assert client.ask("POST", address, "staff", {"action": "dance"}).status == 400


def test_erasing_answers_what_the_command_prints(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    nobody = client.ask("POST", "/erase", "privacy", {"kind": "email", "value": "stranger@example.com"}).body
    assert nobody["found"] is False
    done = client.ask("POST", "/erase", "privacy", {"kind": "user_id", "value": "ada"}).body
    assert (done["found"], done["identifiers"], done["events"]) == (True, 2, 1)
    assert client.get("/profiles/user_id/ada").status in {404, 410}
    assert client.ask("POST", "/erase", body={"kind": "user_id", "value": "ada", "sure": 1}).status == 400


def test_events_arrive_newest_first_without_what_is_personal(world: ReadingWorld, client: ApiServer) -> None:
    first = world.send(ADA, properties={"n": 1}, sealed={"properties": {"remark": "called us"}}, message_id="m-1")
    world.send(ADA, properties={"n": 1}, sealed={"properties": {"remark": "called us"}}, message_id="m-1")
    world.settle()
    last = world.purchase(ADA, "o9", "5.00", days_ago=0.5)
    items = client.get("/events").body["items"]
    assert [each["id"] for each in items] == [last, first, first]
    assert [each["result"] for each in items] == ["pending", "applied", "applied"]
    assert items[1]["sealed_names"] == ["properties.remark"]
    assert "called us" not in str(items)
    assert [each["id"] for each in client.get("/events?type=purchase.completed&source=web").body["items"]] == [last]


def test_segments_have_a_trend_and_a_file(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    trend = client.get("/segments/new_customers/trend?days=7").body
    assert trend["name"] == "new_customers"
    assert trend["items"][-1]["size"] == 1
    assert client.get("/segments/nope/trend").status == 404
    file = client.get("/segments/new_customers/export", "marketer")
    assert file.headers["content-disposition"] == 'attachment; filename="new_customers.csv"'
    assert "ada@example.com" in file.body
    assert "ada@example.com" not in client.get("/segments/new_customers/export", "analyst").body


# --- the audit log -----------------------------------------------------------------------------------------------


def test_every_look_at_a_person_is_in_the_audit_log(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase(ADA, "o1", "20.00")
    world.settle()
    found = client.get("/profiles/user_id/ada", "staff").body["id"]
    client.ask("POST", "/profiles/lookup", "service", {"kind": "user_id", "value": "ada"})
    client.get(f"/profiles/{found}/timeline", "marketer")
    client.get(f"/profiles/{found}/details", "analyst")
    client.get("/profiles?search=ada", "staff")
    client.get("/profiles/user_id/nobody", "staff")  # nobody was seen
    entries = client.get(f"/audit?profile_id={found}", "privacy").body["items"]
    assert [(each["role"], each["action"]) for each in reversed(entries)] == [
        ("staff", "profile.viewed"),
        ("service", "profile.viewed"),
        ("marketer", "timeline.viewed"),
        ("analyst", "profile.viewed"),
    ]
    ids = {each["id"] for each in client.get("/tokens").body}
    assert all(each["who"].removeprefix("token:") in ids for each in entries)
    whole = client.get("/audit").body["items"]
    assert "customers.searched" in {each["action"] for each in whole}
    assert "ada@" not in str(whole)
    page = client.get("/audit?limit=2").body
    rest = client.get(f"/audit?limit=1000&before={page['next']}").body
    assert [each["seq"] for each in page["items"] + rest["items"]] == [each["seq"] for each in whole]
    assert rest["next"] is None
    world.execute("update audit_log set who = 'token:other' where seq = 1")
    verified = client.get("/audit/verify", "privacy").body
    assert verified["whole"] is False
    assert "entry 1" in verified["problems"][0]
