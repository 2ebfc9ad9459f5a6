"""The API over HTTP: answers, roles, and one form for every error."""

import re
import time
from datetime import timedelta
from uuid import uuid4

import psycopg2
import pytest

from infra.drivers.http.api.application import MAX_BODY_BYTES
from processors.rebuild.definitions import apply_files
from tests.api_server import Answer, ApiServer
from tests.conftest import Databases
from tests.reading_world import NOW, ReadingWorld

ADA = [("user_id", "ada"), ("email", "Ada@Example.com"), ("phone", "(415) 555-2671")]
BOB = [("user_id", "bob"), ("crm id", "b/7")]


@pytest.fixture
def peopled(world: ReadingWorld) -> ReadingWorld:
    """Ada with personal traits and two orders; Bob with one visit."""
    sealed = {"traits": {"name": "Ada Lovelace", "email": world.ref("email", "ada@example.com"), "nick": None}}
    at = NOW - timedelta(days=9)
    world.send(ADA, type_="profile.identified", at=at, message_id="m-ada", sealed=sealed, traits={"city": "London"})
    world.purchase(ADA, "o1", "20.50", days_ago=8)
    world.purchase(ADA, "o2", "9.5", days_ago=2)
    world.send(BOB, properties={"n": 1}, sealed={"properties": {"note": "called us"}})
    world.settle()
    return world


def error_of(answer: Answer, status: int, code: str) -> Answer:
    assert answer.status == status
    assert answer.body.keys() == {"success", "code", "message", "errors"}
    assert (answer.body["success"], answer.body["code"]) == (False, code)
    assert answer.body["message"]
    assert all(each.keys() == {"path", "reason"} for each in answer.body["errors"])
    return answer


def test_a_profile_holds_what_is_known_of_one_customer(peopled: ReadingWorld, client: ApiServer) -> None:
    answer = client.get("/profiles/user_id/ada")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.body
    assert list(body) == [
        *("id", "identifiers", "traits", "computed", "segments", "lifecycle", "risk"),
        *("first_seen_at", "last_seen_at", "event_count"),
    ]
    assert body["identifiers"] == [
        {"kind": "user_id", "value": "ada"},
        {"kind": "email", "value": "ada@example.com"},
        {"kind": "phone", "value": "+14155552671"},
    ]
    assert body["traits"] == {"city": "London", "email": "ada@example.com", "name": "Ada Lovelace"}
    computed = body["computed"]
    assert (computed["lifetime_orders"], computed["lifetime_revenue"]) == (2, "30.0000")
    assert computed["last_order_at"] == body["last_seen_at"] == "2026-01-29T00:00:00Z"
    assert computed["days_since_order"] == 2
    assert {"repeat_customers"} <= set(body["segments"])
    assert body["lifecycle"] in {"new", "repeat", "active"}
    assert body["risk"] == {"level": "low", "reasons": []}
    assert (body["first_seen_at"], body["event_count"]) == ("2026-01-22T00:00:00Z", 3)


def test_every_way_to_name_a_customer_leads_to_the_same_profile(peopled: ReadingWorld, client: ApiServer) -> None:
    expected = client.get("/profiles/user_id/ada").body
    for path in (
        "/profiles/email/ADA@example.com",
        "/profiles/phone/415-555-2671",
        f"/profiles/profile/{expected['id']}",
    ):
        assert client.get(path).body == expected, path
    for kind, value in (("email", " ada@EXAMPLE.com "), ("user_id", "ada"), ("profile", expected["id"])):
        assert client.ask("POST", "/profiles/lookup", body={"kind": kind, "value": value}).body == expected, kind
    assert client.get("/profiles/crm%20id/b%2F7").body["identifiers"][0] == {"kind": "user_id", "value": "bob"}


def test_computed_values_are_of_the_reader_s_clock(peopled: ReadingWorld, client: ApiServer) -> None:
    peopled.clock.at = NOW + timedelta(days=100)
    computed = client.get("/profiles/user_id/ada").body["computed"]
    assert (computed["days_since_order"], computed["orders_90d"], computed["lifetime_orders"]) == (102, 0, 2)


def test_a_merged_id_resolves_to_the_profile_that_took_it_over(world: ReadingWorld, client: ApiServer) -> None:
    world.send([("anonymous_id", "a1")], at=NOW - timedelta(days=3))
    world.send([("user_id", "ada")], at=NOW - timedelta(days=2))
    world.settle()
    old = client.get("/profiles/user_id/ada").body["id"]
    world.send([("user_id", "ada"), ("anonymous_id", "a1")])
    world.settle()
    new = client.get("/profiles/user_id/ada").body
    assert new["id"] == client.get("/profiles/anonymous_id/a1").body["id"] != old
    assert client.get(f"/profiles/profile/{old}").body == new
    assert len(client.get(f"/profiles/{old}/timeline").body["items"]) == 3


def test_an_erased_id_is_gone_and_an_unknown_one_is_not_found(peopled: ReadingWorld, client: ApiServer) -> None:
    found = client.get("/profiles/user_id/ada").body["id"]
    peopled.execute("insert into erased_tokens select token, now() from tokens where profile_id = %s::uuid", (found,))
    error_of(client.get(f"/profiles/profile/{found}"), 410, "erased")
    error_of(client.get("/profiles/user_id/ada"), 410, "erased")
    error_of(client.get(f"/profiles/{found}/timeline"), 410, "erased")
    peopled.execute("delete from tokens where profile_id = %s::uuid", (found,))
    error_of(client.get(f"/profiles/profile/{found}"), 410, "erased")
    for path in (f"/profiles/profile/{uuid4()}", "/profiles/user_id/nobody", f"/profiles/{uuid4()}/timeline"):
        error_of(client.get(path), 404, "not_found")


def test_what_can_be_no_identifier_says_why(client: ApiServer) -> None:
    cases = {
        "/profiles/email/nonsense": "not_an_email",
        "/profiles/user_id/null": "blocked",
        "/profiles/profile/12": "is not a UUID; profile ids are UUIDs",
    }
    for path, reason in cases.items():
        errors = error_of(client.get(path), 400, "bad_request").body["errors"]
        assert errors == [{"path": "value", "reason": reason}]


def test_what_can_be_no_profile_id_or_kind_has_its_path(client: ApiServer) -> None:
    for path, place in (
        ("/profiles/not-a-uuid/timeline", "profile_id"),
        ("/profiles/e%3Amail/x", "kind"),
        ("/profiles/%20/x", "kind"),
        ("/profiles/" + "k" * 65 + "/x", "kind"),
    ):
        errors = error_of(client.get(path), 400, "bad_request").body["errors"]
        assert [each["path"] for each in errors] == [place], path
    for path in ("/profiles/user_id/timeline", "/profiles/my_kind/x"):
        error_of(client.get(path), 404, "not_found")


def test_amounts_without_a_rate_are_counted_where_there_are_any(world: ReadingWorld, client: ApiServer) -> None:
    order = {"order_id": "o1", "revenue": "10.00", "currency": "XAU"}
    world.send([("user_id", "eve")], type_="purchase.completed", properties=order)
    world.purchase(ADA, "o2", "5", days_ago=1)
    world.settle()
    assert client.get("/profiles/user_id/eve").body["missing_rate"] == 1
    assert "missing_rate" not in client.get("/profiles/user_id/ada").body


def test_an_analyst_sees_no_personal_value(peopled: ReadingWorld, client: ApiServer) -> None:
    for path in ("/profiles/user_id/ada", "/profiles/user_id/nobody", "/profiles?search=ad"):
        refused = error_of(client.get(path, "analyst"), 403, "forbidden")
        assert "a role that sees personal values (admin or marketer or privacy" in refused.body["message"]
    body = client.get(f"/profiles/profile/{client.get('/profiles/user_id/ada').body['id']}", "analyst").body
    assert body["identifiers"] == [{"kind": kind, "value": None} for kind in ("user_id", "email", "phone")]
    assert (body["traits"], body["masked"]) == ({"city": "London"}, True)
    assert body["computed"] == client.get("/profiles/user_id/ada").body["computed"]
    for who in ("ada", "bob"):
        found = client.get(f"/profiles/user_id/{who}").body["id"]
        timeline = client.get(f"/profiles/{found}/timeline", "analyst")
        text = str([body, timeline.body]).lower()
        for secret in ("ada@", "lovelace", "415555", "called us"):
            assert secret not in text, secret


def test_a_timeline_is_newest_first_and_whole_over_its_pages(peopled: ReadingWorld, client: ApiServer) -> None:
    found = client.get("/profiles/user_id/ada").body["id"]
    whole = client.get(f"/profiles/{found}/timeline").body
    assert [each["type"] for each in whole["items"]] == [
        "purchase.completed",
        "purchase.completed",
        "profile.identified",
    ]
    assert [each["occurred_at"] for each in whole["items"]] == sorted(
        (each["occurred_at"] for each in whole["items"]), reverse=True
    )
    assert whole["next"] is None
    first = whole["items"][2]
    assert first["traits"] == {"city": "London", "email": "ada@example.com", "name": "Ada Lovelace", "nick": None}
    assert (first["message_id"], first["source"]) == ("m-ada", "web")
    pages, cursor = [], ""
    while True:
        page = client.get(f"/profiles/{found}/timeline?limit=1{cursor}").body
        pages += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert pages == whole["items"]


def test_segments_tell_their_meaning_size_and_movement(peopled: ReadingWorld, client: ApiServer) -> None:
    listed = client.get("/segments").body
    assert len(listed) >= 12
    assert [each["name"] for each in listed] == sorted(each["name"] for each in listed)
    assert all(each.keys() == {"name", "description", "sentence", "size", "version", "state"} for each in listed)
    shown = client.get("/segments/repeat_customers").body
    assert {key: shown[key] for key in listed[0]} in listed
    assert (shown["size"], shown["version"], shown["state"]) == (1, 1, "live")
    assert shown["when"] == {"trait": "lifetime_orders", "op": "gte", "value": 2}
    assert shown["sentence"] == "Customers whose lifetime orders is at least 2."
    assert (shown["entered_today"], shown["left_today"]) in {(1, 0), (0, 0)}
    assert shown["as_of"] == "2026-01-30T23:59:58Z"
    error_of(client.get("/segments/repeat_customer"), 404, "not_found")
    error_of(client.get("/segments/nope/members"), 404, "not_found")


def test_today_is_the_deployment_s_day(peopled: ReadingWorld, client: ApiServer) -> None:
    # NOW is midnight UTC, an hour into the 31st in Vienna; two seconds before it, when they entered, too
    assert client.get("/segments/repeat_customers").body["entered_today"] == 1
    peopled.clock.at = NOW + timedelta(hours=23)
    assert client.get("/segments/repeat_customers").body["entered_today"] == 0


def test_members_are_whole_over_their_pages(world: ReadingWorld, client: ApiServer) -> None:
    for number in range(7):
        world.purchase([("user_id", f"u{number}")], f"o{number}", "5.00")
    world.settle()
    seen, cursor = [], ""
    while True:
        page = client.get(f"/segments/new_customers/members?limit=3{cursor}").body
        assert len(page["items"]) <= 3
        seen += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len({each["id"] for each in seen}) == len(seen) == 7
    assert {each["since"] for each in seen} == {"2026-01-30T23:59:58Z"}
    world.execute("update memberships_r1 set since_us = null")
    assert {each["since"] for each in client.get("/segments/new_customers/members").body["items"]} == {None}


CHANGED = """
segments:
  repeat_customers: {description: Three orders or more, when: {trait: lifetime_orders, op: gte, value: 3}}
  brand_new: {description: Newly defined, when: {segment: repeat_customers}}
"""


def test_a_segment_that_is_being_built_says_so_until_it_is_live(peopled: ReadingWorld, client: ApiServer) -> None:
    client.get("/segments")  # the old revision is compiled and remembered
    apply_files(peopled.services.control, [("more.yaml", CHANGED)], NOW)
    states = {each["name"]: each["state"] for each in client.get("/segments").body}
    assert (states["repeat_customers"], states["brand_new"], states["vip"]) == ("building 0 %", "building 0 %", "live")
    assert client.get("/segments/repeat_customers").body["size"] == 1
    assert client.get("/segments/brand_new/members").body == {"items": [], "next": None}
    assert "repeat_customers" in client.get("/profiles/user_id/ada").body["segments"]
    peopled.settle()
    assert peopled.execute("select to_regclass('profiles_r1')") == [(None,)]
    assert "repeat_customers" not in client.get("/profiles/user_id/ada").body["segments"]
    shown = client.get("/segments/repeat_customers").body
    assert (shown["state"], shown["size"], shown["version"]) == ("live", 0, 2)
    assert client.get("/segments/brand_new").body["version"] == 1


def test_an_event_says_what_became_of_it(peopled: ReadingWorld, client: ApiServer) -> None:
    owner = client.get("/profiles/user_id/ada").body["id"]
    applied = client.get("/events/m-ada").body
    assert applied == {
        "id": applied["id"],
        "status": "applied",
        "reason": None,
        "profile_id": owner,
        "duplicates": 0,
    }
    assert client.get(f"/events/{applied['id']}").body == applied
    pending = peopled.send(ADA, message_id="a/b c")
    assert client.get("/events/a%2Fb%20c").body == {
        "id": pending,
        "status": "pending",
        "reason": "accepted and durable; not folded yet",
        "profile_id": None,
        "duplicates": 0,
    }
    peopled.settle()
    assert client.get(f"/events/{pending}").body["status"] == "applied"
    error_of(client.get("/events/never-sent"), 404, "not_found")
    error_of(client.get(f"/events/{uuid4()}"), 404, "not_found")


def test_an_event_set_aside_or_suppressed_says_why(peopled: ReadingWorld, client: ApiServer) -> None:
    twice = peopled.send(BOB, message_id="again", properties={"n": 2})
    peopled.send(BOB, message_id="again", properties={"n": 2})
    peopled.send(BOB, message_id="again", properties={"n": 3})
    peopled.settle()
    found = client.get("/events/again").body
    assert (found["id"], found["status"], found["duplicates"]) == (twice, "applied", 2)
    letter, gone, refused = uuid4(), uuid4(), uuid4()
    peopled.execute(
        "insert into dead_letters (id, stage, rule, path, reason, source, received_at, event_id, seal_key, sealed)"
        " values (%s::uuid, 'door', 'too_deep', 'properties.a', 'deeper than 32', 'web', now(), %s::uuid,"
        " %s::uuid, '')",
        (str(uuid4()), str(letter), str(uuid4())),
    )
    peopled.execute("insert into suppressed_events values (%s::uuid, now())", (str(refused),))
    peopled.execute(
        "insert into register values (%s::uuid, %s::uuid, 0, 999, %s::uuid, 4)",
        (str(gone), str(uuid4()), str(uuid4())),
    )
    body = client.get(f"/events/{letter}").body
    assert (body["status"], body["reason"]) == ("dead_letter", "too_deep at properties.a: deeper than 32")
    assert client.get(f"/events/{refused}").body["status"] == "suppressed"
    error_of(client.get(f"/events/{gone}"), 410, "erased")


def test_sql_answers_with_columns_rows_and_whether_there_were_more(peopled: ReadingWorld, client: ApiServer) -> None:
    answer = client.ask(
        "POST", "/sql", "analyst", {"sql": "select 1 as a, 2.5 as b union all select 3, 4.5 order by 1"}
    )
    assert answer.status == 200
    assert answer.body == {"columns": ["a", "b"], "rows": [[1, "2.5"], [3, "4.5"]], "truncated": False}
    answer = client.ask("POST", "/sql", "admin", {"sql": "select * from range(5)", "limit": 2})
    assert (len(answer.body["rows"]), answer.body["truncated"]) == (2, True)
    error_of(client.ask("POST", "/sql", "admin", {"sql": "drop table events"}), 400, "sql_refused")


# --- roles -------------------------------------------------------------------------------------------------------


def test_a_revoked_token_is_refused_soon(client: ApiServer) -> None:
    name, token = client.api.tokens.create("staff", NOW)
    headers = {"Authorization": f"Bearer {token}"}
    assert client.ask("GET", "/segments", None, headers=headers).status == 200
    assert client.api.tokens.revoke(name, NOW) == name
    deadline = time.monotonic() + 30
    while (answer := client.ask("GET", "/segments", None, headers=headers)).status == 200:
        assert time.monotonic() < deadline, "still accepted"
    error_of(answer, 401, "unauthorized")


def test_tokens_are_kept_as_their_hash_alone(world: ReadingWorld, client: ApiServer) -> None:
    stored = str(world.execute("select * from api_tokens"))
    assert all(token not in stored for token in client.tokens.values())


# --- errors ------------------------------------------------------------------------------------------------------


def test_every_error_has_the_one_form(client: ApiServer) -> None:
    error_of(client.get("/nowhere"), 404, "not_found")
    error_of(client.get("/segments/"), 404, "not_found")
    error_of(client.ask("DELETE", "/segments"), 405, "method_not_allowed")
    assert error_of(client.get("/changes?limit=0"), 400, "bad_request").body["errors"][0]["path"] == "limit"
    assert error_of(client.get("/changes?wait_s=61"), 400, "bad_request").body["errors"][0]["path"] == "wait_s"
    assert error_of(client.get("/changes?after=rubbish"), 400, "bad_request").body["errors"][0]["path"] == "after"
    assert error_of(client.get("/changes/stream?after=x"), 400, "bad_request").body["errors"][0]["path"] == "after"
    assert error_of(client.get("/changes?type=what"), 400, "bad_request").body["errors"][0]["path"] == "type"
    error_of(client.get("/segments/vip/members?cursor=x"), 400, "bad_request")
    bad: list[object] = [
        b"{",
        b"",
        b"[" * 50_000,
        {"sql": ""},
        {"sql": "select 1", "limit": 10_001},
        {"sql": 1},
        {},
        [],
    ]
    for body in bad:
        error_of(client.ask("POST", "/sql", body=body), 400, "bad_request")
    extra = client.ask("POST", "/profiles/lookup", body={"kind": "email", "value": "a@b.co", "x": 1})
    assert error_of(extra, 400, "bad_request").body["errors"][0]["path"] == "x"


def test_a_body_that_is_too_large_is_not_read(client: ApiServer) -> None:
    error_of(client.ask("POST", "/sql", None, b" " * (MAX_BODY_BYTES + 1)), 413, "too_large")


def test_an_error_of_ours_shows_nothing_of_its_inside(world: ReadingWorld, client: ApiServer) -> None:
    world.execute("alter table segment_versions rename column version to secret_inside")
    answer = error_of(client.get("/segments"), 500, "internal")
    assert "secret" not in str(answer.body)
    assert "column" not in str(answer.body)


def test_a_database_that_is_away_is_answered_with_503_and_then_comes_back(
    world: ReadingWorld, client: ApiServer, databases: Databases
) -> None:
    assert client.get("/segments").status == 200
    admin = psycopg2.connect(databases.main.replace(databases.main.split("dbname=")[1].split()[0], "postgres"))
    admin.autocommit = True
    name = databases.main.split("dbname=")[1].split()[0]
    try:
        with admin.cursor() as cursor:
            cursor.execute(f"alter database {name} allow_connections false")
            cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
            refused = error_of(client.get("/segments"), 503, "unavailable")
            assert refused.headers["retry-after"]
            cursor.execute(f"alter database {name} allow_connections true")
    finally:
        admin.close()
    assert client.get("/segments").status == 200


def test_the_description_has_an_example_for_each_address(client: ApiServer) -> None:
    described = client.get("/openapi.json", None).body
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            ((_, content),) = route["responses"]["200"]["content"].items()
            assert content["example"], (method, path)
            assert route["security"] == [{"HTTPBearer": []}, {"APIKeyCookie": []}]
            assert route["description"], (method, path)
    page = client.get("/docs", None)
    assert page.status == 200
    assert "/api/v1/profiles/lookup" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(
        r"<script|<link|<img|src=|https?://(?!127\.0\.0\.1|shop\.example)", page.body
    )  # nothing from elsewhere
