"""A person's export: all of theirs, equal to a slow scan of the log, and nothing of anybody else."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from infra.adapters.postgres.person import PostgresPerson
from query.people.other_people import OTHERS, Own, without_others
from query.people.person_export import PersonExport
from schemas.errors import BadRequest, Erased, NotFound
from schemas.ports import OpenIdentifier
from schemas.record import decode, identifier_set_of
from tests.reading_world import NOW, PHONES, ReadingWorld

ADA = [("user_id", "ada"), ("email", "ada@example.com")]
BOB = [("user_id", "bob"), ("email", "bob@example.org"), ("phone", "+14155550199")]
FILES = ["index.html", "profile.json", "events.json", "consents.json", "decisions.json", "views.json"]


@pytest.fixture
def export(world: ReadingWorld) -> Iterator[PersonExport]:
    with closing(PostgresPerson(world.databases.main)) as rows:
        reading = world.reading
        yield PersonExport(
            *(reading.profiles, reading.reads, rows, world.vault, world.vault, reading.log, world.clock, PHONES)
        )


def read(export: PersonExport, kind: str, value: str) -> dict[str, Any]:
    data = b"".join(export.chunks(export.find(kind, value)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == FILES
        texts = {name: archive.read(name).decode() for name in FILES}
    return {name: json.loads(text) if name.endswith(".json") else text for name, text in texts.items()}


def scanned(world: ReadingWorld, profile_id: str) -> set[str]:
    """Ids of the person's events, by every record of the log and whose its set of identifiers is."""
    owned = {
        row[0] for row in world.execute("select signature from evidence where profile_id = %s::uuid", (profile_id,))
    }
    not_applied = set(world.execute('select partition, "offset" from not_applied'))
    found = set()
    for partition in range(4):
        for stored in world.services.log.read(partition, 0, 10_000):
            record = decode(stored.value)
            identifier_set = identifier_set_of([bytes.fromhex(each.token) for each in record.ids])
            if identifier_set in owned and (stored.partition, stored.offset) not in not_applied:
                found.add(record.id)
    return found


def live_a_life(world: ReadingWorld) -> None:
    """Ada on two devices that merge, with a gift, a late event and a copy; Bob, who shares her device and her sofa."""
    world.send([("anonymous_id", "sofa-1")], at=NOW - timedelta(days=20))
    world.purchase(ADA, "o-ada", "10.00", days_ago=10)
    world.settle()
    world.send([*ADA, ("anonymous_id", "sofa-1")], at=NOW - timedelta(days=9))  # merges
    gift = {
        "recipient": {"name": "Bob Babbage", "email": "bob@example.org"},
        "note": "for bob@example.org, from ada@example.com",
    }
    world.send(ADA, type_="purchase.completed", sealed={"properties": {**gift, "street": "12 Lane"}})
    world.send(ADA, at=NOW - timedelta(days=300), received_at=NOW - timedelta(days=1))  # late
    for number in range(3):
        world.send(BOB, at=NOW - timedelta(days=5 + number), sealed={"traits": {"name": "Bob Babbage"}})
    world.settle()
    world.send(  # another user_id's address in her event: the link is refused, the event hers
        [ADA[0], BOB[1]],
        sealed={"properties": {"email": world.ref("email", "bob@example.org"), "call_me": "+1 (415) 555-0199"}},
    )
    world.send(ADA, message_id="copied", type_="consent.updated", properties={"categoryPreferences": {"ads": False}})
    world.send(ADA, message_id="copied", type_="consent.updated", properties={"categoryPreferences": {"ads": False}})
    world.settle()


def test_an_export_is_what_a_scan_of_the_log_finds_and_of_nobody_else(
    world: ReadingWorld, export: PersonExport
) -> None:
    live_a_life(world)
    found = read(export, "email", "Ada@Example.com")
    profile = found["profile.json"]
    expected = scanned(world, profile["id"])
    assert len(expected) == 7
    assert {event["id"] for event in found["events.json"]} == expected
    assert len(found["events.json"]) == len(expected) == profile["event_count"]
    times = [event["occurred_at"] for event in found["events.json"]]
    assert times == sorted(times, reverse=True)
    everything = json.dumps(found)
    for own in ("ada@example.com", "12 Lane", "sofa-1"):
        assert own in everything
    for others in ("bob@example.org", "Babbage", "555-0199", "+14155550199", '"bob"'):
        assert others not in everything, others
    assert OTHERS in everything
    [consent] = found["consents.json"]
    assert consent["properties"] == {"categoryPreferences": {"ads": False}}
    assert {change["type"] for change in found["decisions.json"]} >= {"identity", "lifecycle"}
    assert found["index.html"].count("<tr>") > len(expected)
    bob = read(export, "user_id", "bob")
    assert not [word for word in ('"ada"', "ada@example.com", "12 Lane") if word in json.dumps(bob)]
    assert {event["id"] for event in bob["events.json"]} == scanned(world, bob["profile.json"]["id"])


def test_a_shared_device_is_not_given_away(world: ReadingWorld, export: PersonExport) -> None:
    shared = ("anonymous_id", "kiosk")
    for number in range(120):
        world.send([("user_id", f"visitor-{number}"), shared])
    world.settle()
    assert world.execute("select count(*) from tokens where hub") == [(1,)]
    found = read(export, "user_id", "visitor-7")
    assert {event["id"] for event in found["events.json"]} == scanned(world, found["profile.json"]["id"])
    assert found["events.json"][0]["identifiers"] == [
        {"kind": "user_id", "value": "visitor-7"},
        {"kind": "anonymous_id", "value": OTHERS},
    ]


def test_views_are_told_without_who_looked(world: ReadingWorld, export: PersonExport) -> None:
    world.purchase(ADA, "o1", "5.00")
    world.settle()
    profile_id = export.find("user_id", "ada")
    world.execute(
        "insert into audit_log values (1, now(), 'colleague', 'staff', 'profile.viewed', %s::uuid, '{}', '')",
        (str(UUID(bytes=profile_id)),),
    )
    [view] = read(export, "user_id", "ada")["views.json"]
    assert (view["action"], view["role"]) == ("profile.viewed", "staff")
    assert "colleague" not in json.dumps(view)


def test_markup_in_values_is_shown_and_not_run(world: ReadingWorld, export: PersonExport) -> None:
    world.send(ADA, sealed={"properties": {"note": "<script>alert(1)</script>"}})
    world.settle()
    page = read(export, "user_id", "ada")["index.html"]
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_events_come_in_pages_and_none_is_lost_between_them(
    world: ReadingWorld, export: PersonExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query.people.person_export.PAGE", 7)
    monkeypatch.setattr("query.people.person_export.SLICE", 3)
    at = NOW - timedelta(days=2)
    for number in range(40):
        world.send(ADA, at=at + timedelta(minutes=number // 9))  # many at one moment
    world.settle()
    told: list[tuple[int, int]] = []
    profile_id = export.find("user_id", "ada")
    data = b"".join(export.chunks(profile_id, lambda done, total: told.append((done, total))))
    events = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("events.json"))
    assert len({event["id"] for event in events}) == len(events) == 40
    assert told[-1] == (80, 80)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_unknown_malformed_and_erased_persons_are_told_apart(world: ReadingWorld, export: PersonExport) -> None:
    world.purchase(ADA, "o1", "5.00")
    world.settle()
    with pytest.raises(NotFound, match="ever accepted"):
        export.find("email", "nobody@example.com")
    with pytest.raises(BadRequest, match="no usable form"):
        export.find("email", "not an address")
    profile_id = export.find("user_id", "ada")
    world.execute("insert into erased_tokens select token, now() from tokens")
    with pytest.raises(Erased):
        next(export.chunks(profile_id))


def test_what_belongs_to_others_is_left_out_by_name_and_by_form() -> None:
    own = Own.of(
        {b"t": OpenIdentifier(b"t", "email", "ada@example.com"), b"p": OpenIdentifier(b"p", "phone", "+12025550123")},
        PHONES,
    )
    kept = without_others(
        {
            "email": "Ada@example.com",
            "phone": "(202) 555-0123",
            "text": "call +1 202 555 0123 or +1 415 555 0199; write ada@example.com or bob@example.org.",
            "gift": True,
            "giftRecipientPhone": "4155550199",
            "recipient_name": "Bob",
            "friend": {"first_name": "Bob", "email": "ada@example.com"},
            "order_id": "004155550199",
            "cart": "W007-0007-400100",
            "visitor": "0e5ddf4b-0007-4001-8002-fc2498e09588",
            "items": [{"name": "Cup", "price": 3}],
        },
        own,
    )
    assert kept == {
        "email": "Ada@example.com",
        "phone": "(202) 555-0123",
        "text": f"call +1 202 555 0123 or {OTHERS}; write ada@example.com or {OTHERS}",
        "gift": True,
        "giftRecipientPhone": OTHERS,
        "recipient_name": OTHERS,
        "friend": {"first_name": OTHERS, "email": "ada@example.com"},
        "order_id": "004155550199",
        "cart": "W007-0007-400100",
        "visitor": "0e5ddf4b-0007-4001-8002-fc2498e09588",
        "items": [{"name": "Cup", "price": 3}],
    }


@pytest.mark.parametrize("first", ["ada", "bob", "shared", ""])
def test_after_a_merge_that_was_undone_each_has_their_own_and_nothing_of_the_other(
    world: ReadingWorld, export: PersonExport, first: str
) -> None:
    """A shared address joins two people until it is seen with so many that it is a hub.

    `first`: who is seen first, alone, and so names the joined profile; nobody: Ada, or the address.
    """
    shared, ada, bob = ("email", "family@example.com"), ("anonymous_id", "ada-phone"), ("anonymous_id", "bob-phone")
    week = NOW - timedelta(days=7)
    if first:
        world.send([{"ada": ada, "bob": bob, "shared": shared}[first]], at=week - timedelta(hours=1))
        later(world)
    world.send([shared, ada], at=week, traits={"city": "Turin"}, sealed={"properties": {"street": "12 Lane"}})
    later(world)
    world.send([shared, bob], at=week + timedelta(hours=1), sealed={"properties": {"street": "9 Mews"}})
    later(world)
    world.purchase([bob], "bobs-order", "900.00", days_ago=6)
    later(world)
    world.send([ada], type_="consent.updated", properties={"categoryPreferences": {"ads": True}})
    later(world)
    (joined,) = {export.find(*each) for each in (shared, ada, bob)}
    viewed(world, 1, joined)
    later(world)
    for number in range(6):
        world.send([("user_id", f"tenant-{number}"), shared])
    later(world)
    assert world.execute("select count(*) from tokens where hub") == [(1,)]
    assert export.find(*ada) != export.find(*bob), "they are apart again"
    if first == "shared":
        assert len(read(export, *shared)["events.json"]) == 1, "that it is alone in"
    else:
        with pytest.raises(NotFound, match="no profile"):
            export.find(*shared)
    viewed(world, 2, export.find(*ada))
    viewed(world, 3, export.find(*bob))
    ids = {name: str(UUID(bytes=export.find(*each))) for name, each in (("ada", ada), ("bob", bob))}
    theirs = {
        "ada": (read(export, *ada), ["9 Mews", "bobs-order", "900.00", "bob-phone", ids["bob"]]),
        "bob": (read(export, *bob), ["12 Lane", "Turin", "ada-phone", ids["ada"]]),
    }
    for name, (found, foreign) in theirs.items():
        assert {event["id"] for event in found["events.json"]} == scanned(world, found["profile.json"]["id"])
        assert len(found["events.json"]) == (3 if name == first else 2)
        whole = json.dumps(found)
        assert not [each for each in [*foreign, shared[1]] if each in whole]
        assert len(found["views.json"]) == 2, "of the joined profile, and of their own"
        events = {each["id"] for each in found["events.json"]}
        causes = {change["cause"]["event_id"] for change in found["decisions.json"]}
        assert causes <= {*events, None, OTHERS}
    if (
        first == "ada"
    ):  # else his may be the profile that goes on, and what was decided of it while joined has no values
        assert "900.00" in json.dumps(theirs["bob"][0]["decisions.json"]), "of a profile that was his alone"
    assert "12 Lane" in json.dumps(theirs["ada"][0])
    assert "9 Mews" in json.dumps(theirs["bob"][0])
    assert len(theirs["ada"][0]["consents.json"]) == 1
    assert theirs["bob"][0]["consents.json"] == []


def later(world: ReadingWorld) -> None:
    """An hour later, when all is decided."""
    world.settle()
    world.clock.at += timedelta(hours=1)


def viewed(world: ReadingWorld, seq: int, profile_id: bytes) -> None:
    world.execute(
        "insert into audit_log values (%s, %s, 'colleague', 'staff', 'profile.viewed', %s::uuid, '{}', '')",
        (seq, world.clock.at, str(UUID(bytes=profile_id))),
    )
