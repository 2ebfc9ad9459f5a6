"""Lists of erasures and exports of persons over HTTP."""

import http.client
import io
import json
import time
import zipfile
from typing import Any
from uuid import uuid4

from tests.api_server import ApiServer
from tests.reading_world import ReadingWorld

ADA = [("user_id", "ada"), ("email", "ada@example.com")]


def until_done(client: ApiServer, id_: str) -> Any:
    deadline = time.monotonic() + 60
    while (state := client.ask("GET", f"/erasures/{id_}", "privacy").body)["state"] == "running":
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_a_list_is_erased_beside_everything_else(world: ReadingWorld, client: ApiServer) -> None:
    world.purchase(ADA, "o1", "5.00")
    world.purchase([("user_id", "bob")], "o2", "5.00")
    world.settle()
    people = [
        {"kind": "email", "value": "Ada@example.com"},
        {"kind": "email", "value": "not an address"},
        {"kind": "user_id", "value": "nobody"},
        {"kind": "user_id", "value": "ada"},
    ]
    begun = client.ask("POST", "/erasures", "privacy", {"people": people})
    assert (begun.status, begun.body["people"]) == (202, 4)
    state = until_done(client, begun.body["id"])
    counts = {"erased": 1, "same": 1, "unknown": 1, "refused": 0, "malformed": 1}
    assert state == {"id": begun.body["id"], "state": "done", "people": 4, **counts}
    lines = client.ask("GET", f"/erasures/{begun.body['id']}/receipts", "privacy").body.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["line"] for each in found] == [1, 2, 3, 4]
    assert sum("receipt" in each for each in found) == 1
    assert "ada" not in "".join(line.split("receipt")[0] for line in lines).lower()
    again = client.ask("POST", "/erasures", "privacy", {"people": people, "id": begun.body["id"]})
    assert again.status == 202
    assert until_done(client, begun.body["id"])["erased"] == 1
    assert client.ask("GET", f"/erasures/{uuid4()}", "privacy").status == 404
    assert world.execute("select count(*) from tokens") == [(1,)]


def test_a_person_is_exported_to_privacy_officers_and_the_audit_log_has_it_first(
    world: ReadingWorld, client: ApiServer
) -> None:
    world.purchase(ADA, "o1", "5.00")
    world.settle()
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    headers = {"Authorization": f"Bearer {client.tokens['privacy']}", "Content-Type": "application/json"}
    body = json.dumps({"kind": "email", "value": "ada@example.com"})
    connection.request("POST", "/api/v1/export-person", body, headers)
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(response.read())) as archive:
        assert [event["type"] for event in json.loads(archive.read("events.json"))] == ["purchase.completed"]
        assert "profile.exported" in {view["action"] for view in json.loads(archive.read("views.json"))}
    connection.close()
    unknown = client.ask("POST", "/export-person", "privacy", {"kind": "email", "value": "nobody@example.com"})
    assert unknown.status == 404
    assert client.ask("POST", "/export-person", "analyst", json.loads(body)).status == 403
