"""Files over HTTP are sent as they are read, and a file that breaks off does not look whole."""

import http.client

import pytest

from tests.api_server import ApiServer
from tests.reading_world import ReadingWorld

MEMBERS = 40


@pytest.fixture
def members(world: ReadingWorld, monkeypatch: pytest.MonkeyPatch) -> ReadingWorld:
    monkeypatch.setattr("query.segments.exports.PAGE", 4)
    for number in range(MEMBERS):
        for order in range(2):
            world.purchase([("user_id", f"u{number}")], f"o{number}-{order}", "5.00")
    world.settle()
    return world


def test_an_export_comes_in_chunks_and_ends(members: ReadingWorld, client: ApiServer) -> None:
    answer = client.get("/segments/repeat_customers/export")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(answer.body.splitlines()) == 1 + MEMBERS
    (noted,) = client.get("/audit?limit=1").body["items"]
    assert (noted["action"], noted["detail"]["segment"]) == ("segment.exported", "repeat_customers")


def test_an_export_that_fails_on_the_way_is_broken_off(members: ReadingWorld, client: ApiServer) -> None:
    last = "(select max(profile_id::text)::uuid from memberships_r1)"
    members.execute(f"update profiles_r1 set state = '\\x00' where profile_id = {last}")
    with pytest.raises(http.client.IncompleteRead):
        client.get("/segments/repeat_customers/export")
    assert client.get("/segments/repeat_customers").status == 200


def test_a_question_that_is_wrong_is_answered_before_any_file(members: ReadingWorld, client: ApiServer) -> None:
    assert client.get("/segments/nothing/export").status == 404
    assert client.get("/segments/nothing/export?format=xml").status == 400
