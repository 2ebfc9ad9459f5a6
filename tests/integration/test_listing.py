"""Customers listed by what is not personal, and what the audit log says of lists and searches."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from infra.app.auditing import searches_for
from processors.rebuild.definitions import apply_files
from tests.api_server import ApiServer, session_of
from tests.reading_world import ReadingWorld

DEFINITIONS = "traits: {city: {personal: false}, vip: {personal: false}, hobby: {personal: true}}\n"


@pytest.fixture
def town(world: ReadingWorld) -> ReadingWorld:
    """Twelve customers: six of Vienna, of whom four bought."""
    apply_files(world.services.control, [("town.yaml", DEFINITIONS)], world.clock.now())
    world.settle()
    for number in range(12):
        ids = [("user_id", f"u{number}"), ("email", f"u{number}@example.com")]
        traits = {"city": "Vienna" if number % 2 else "Graz", "vip": number == 3}
        world.send(ids, type_="profile.identified", traits=traits, sealed={"traits": {"name": f"Person {number}"}})
        if number > 3:
            world.purchase(ids, f"o{number}", "20.00")
    world.settle()
    return world


def listed(client: ApiServer, query: str, role: str = "analyst") -> list[str]:
    """Ids over all pages."""
    found: list[str] = []
    cursor = ""
    while True:
        body = client.get(f"/profiles?limit=2{query}{cursor}", role).body
        found += [item["id"] for item in body["items"]]
        if body["next"] is None:
            return found
        cursor = f"&cursor={body['next']}"


def test_an_analyst_lists_by_segment_stage_risk_and_attributes_and_sees_ids(
    town: ReadingWorld, client: ApiServer
) -> None:
    everybody = listed(client, "")
    assert len(everybody) == 12
    assert everybody == sorted(everybody)
    buyers, others = listed(client, "&stage=new"), listed(client, "&stage=prospect")
    assert (len(buyers), len(others)) == (8, 4)
    assert sorted(buyers + others) == everybody
    assert listed(client, "&segment=new_customers") == buyers
    vienna = listed(client, "&attribute=city:Vienna")
    assert len(vienna) == 6
    assert listed(client, "&attribute=city:Vienna&segment=new_customers") == sorted(set(vienna) & set(buyers))
    assert len(listed(client, "&attribute=vip:true")) == 1
    assert listed(client, "&attribute=city:Vienna&attribute=vip:true") == listed(client, "&attribute=vip:true")
    assert listed(client, "&risk=low&stage=new") == buyers
    (item, *_) = client.get("/profiles?segment=new_customers", "analyst").body["items"]
    assert (item["name"], item["email"], item["phone"]) == (None, None, None)
    (seen, *_) = client.get("/profiles?segment=new_customers", "marketer").body["items"]
    assert seen["id"] == item["id"]
    assert seen["name"].startswith("Person")


@pytest.mark.parametrize(
    ("query", "status", "path", "reason"),
    [
        ("segment=new_customer", 404, "segment", "did you mean new_customers"),
        ("stage=newest", 400, "stage", "must be one of prospect, "),
        ("risk=none", 400, "risk", "must be one of low, medium, high"),
        ("attribute=city", 400, "attribute", "must be NAME:VALUE"),
        ("attribute=city:a&attribute=city:b", 400, "attribute", "each name only once"),
        ("attribute=hobby:chess", 400, "attribute", "must be one of"),  # personal: as if undeclared
        ("attribute=name:Person", 400, "attribute", "must be one of"),
        ("search=u1&stage=new", 400, "search", "leave out either"),
        ("cursor=x", 400, "cursor", "is not a cursor"),
    ],
)
def test_what_cannot_be_listed_by_says_what_can(
    town: ReadingWorld, client: ApiServer, query: str, status: int, path: str, reason: str
) -> None:
    answer = client.get(f"/profiles?{query}", "staff")
    assert answer.status == status
    (problem,) = answer.body["errors"]
    assert problem["path"] == path
    assert reason in problem["reason"]


def test_every_search_and_list_is_noted_with_hashed_words_and_never_beside_a_profile(
    town: ReadingWorld, client: ApiServer, tmp_path: Path
) -> None:
    client.get("/profiles?search=Person%203", "staff")
    client.get("/profiles?search=nobody-here", "staff")
    client.get("/profiles/email/stranger@example.com", "service")
    client.ask("POST", "/profiles/lookup", "service", {"kind": "phone", "value": "+14155552671"})
    client.get("/profiles?stage=new&attribute=city:Vienna", "analyst")
    items = client.get("/audit").body["items"][::-1]
    assert [(each["action"], each["detail"].get("shown")) for each in items] == [
        ("customers.searched", 12),
        ("customers.searched", 0),
        ("customers.searched", 0),
        ("customers.searched", 0),
        ("customers.listed", 4),
    ]
    assert [len(each["detail"]["words"]) for each in items[:4]] == [2, 2, 3, 1]
    assert items[4]["detail"] == {"attributes": ["city"], "shown": 4, "stage": "new"}
    assert all(each["profile_id"] is None for each in items)
    text = json.dumps(items).lower()
    for word in ("person", "nobody", "stranger", "1415", "vienna"):
        assert word not in text
    session, audit = session_of(town, tmp_path), client.api.audit
    assert [row.seq for row in searches_for(session, audit, "PERSON")] == [items[0]["seq"]]
    assert [row.seq for row in searches_for(session, audit, "(415) 555-2671")] == []
    assert [row.seq for row in searches_for(session, audit, "+1 (415) 555-2671")] == [items[3]["seq"]]
    town.clock.at += timedelta(days=1)
    assert client.get("/profiles?search=person", "staff").status == 200  # under a new key
    assert len(searches_for(session, audit, "person")) == 2
    town.vault.expire_daily_keys(town.clock.now().date())  # as the archiver does of those that are 30 days old
    assert len(searches_for(session, audit, "person")) == 1
