"""Notes, calls, complaints and corrections by staff: events like any other, in the profile when they are decided."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from infra.acting import Acting
from infra.bootstrap import Session, session
from infra.reading import Reading, reading_of
from ingest.accept import SourceRules
from schemas.errors import BadRequest, NotFound


class Desk:
    """A member of staff at a data folder of their own."""

    def __init__(self, here: Session, reading: Reading) -> None:
        self.here = here
        self.reading = reading
        self.acting = Acting(here)

    def person(self, user: str, **traits: Any) -> bytes:
        """A customer who was seen once; returns their profile's id."""
        item = {"type": "identify", "userId": user, "messageId": f"m-{user}", "traits": traits}
        accepted = self.acting._acceptor.accept([item], SourceRules("web"), self.here.door_clock.now())
        self.acting._log.append(accepted.pending)
        self.here.settle()
        return bytes.fromhex(self.profile(user)["id"].replace("-", ""))

    def profile(self, user: str) -> Any:
        self.here.settle()
        return self.reading.profiles.by_identifier("user_id", user)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with session(tmp_path_factory.mktemp("desk")) as here, closing(reading_of(here)) as reading:
        desk = Desk(here, reading)
        with closing(desk.acting):
            yield desk


def test_a_complaint_raises_the_risk_until_it_is_resolved(desk: Desk) -> None:
    ada = desk.person("ada", first_name="Ada")
    before = desk.profile("ada")
    assert "unresolved_complaint" not in [reason["code"] for reason in before["risk"]["reasons"]]
    desk.acting.complaint(ada, "clerk", topic="Damaged parcel", text="The box was wet")
    during = desk.profile("ada")
    assert during["computed"]["open_complaints"] == 1
    assert "unresolved_complaint" in [reason["code"] for reason in during["risk"]["reasons"]]
    (opened, *_) = desk.reading.timeline.page(ada, None, 10, personal=True)["items"]
    assert (opened["type"], opened["source"], opened["properties"]["agent"]) == ("complaint.opened", "staff", "clerk")
    assert opened["properties"]["topic"] == "Damaged parcel"
    assert sorted(opened["sealed_names"]) == ["properties.text"]
    desk.acting.resolve_complaint(ada, "clerk", complaint_id=opened["properties"]["complaint_id"])
    after = desk.profile("ada")
    assert after["computed"]["open_complaints"] == 0
    assert after["event_count"] == before["event_count"] + 2


def test_notes_and_calls_are_in_the_timeline(desk: Desk) -> None:
    bob = desk.person("bob")
    desk.acting.note(bob, "clerk", "Prefers to be called after five")
    desk.acting.call(bob, "clerk", direction="in", topic="Delivery", text="Where is it?")
    desk.here.settle()
    items = desk.reading.timeline.page(bob, None, 10, personal=True)["items"]
    assert [item["type"] for item in items] == ["call.received", "note.added", "profile.identified"]
    assert items[1]["properties"]["text"] == "Prefers to be called after five"
    masked = desk.reading.timeline.page(bob, None, 10, personal=False)["items"]
    assert "text" not in masked[1]["properties"]


def test_a_correction_holds_against_the_source_until_it_is_withdrawn(desk: Desk) -> None:
    eve = desk.person("eve", last_name="Smiht", email="eve@example.com")
    desk.acting.correct_trait(eve, "clerk", "last_name", "Smith")
    assert desk.profile("eve")["traits"]["last_name"] == "Smith"
    item = {"type": "identify", "userId": "eve", "messageId": "m-eve-2", "traits": {"last_name": "Smiht"}}
    accepted = desk.acting._acceptor.accept([item], SourceRules("web"), desk.here.door_clock.now())
    desk.acting._log.append(accepted.pending)
    assert desk.profile("eve")["traits"]["last_name"] == "Smith"
    assert desk.profile("eve")["traits"]["email"] == "eve@example.com"
    desk.acting.withdraw_correction(eve, "clerk", "last_name")
    assert desk.profile("eve")["traits"]["last_name"] == "Smiht"


def test_what_cannot_be_recorded_says_why(desk: Desk) -> None:
    joe = desk.person("joe")
    with pytest.raises(BadRequest, match="text must have 1 to 4000"):
        desk.acting.note(joe, "clerk", "  ")
    with pytest.raises(BadRequest, match="direction"):
        desk.acting.call(joe, "clerk", direction="up", topic="x")
    with pytest.raises(NotFound):
        desk.acting.note(bytes(16), "clerk", "hello")


def test_no_write_key_can_send_what_staff_write(desk: Desk) -> None:
    item = {"type": "track", "event": "trait.corrected", "userId": "joe", "messageId": "m-x", "name": "last_name"}
    accepted = desk.acting._acceptor.accept([item], SourceRules("web"), desk.here.door_clock.now())
    assert accepted.results[0].status == "accepted"
    desk.acting._log.append(accepted.pending)
    desk.here.settle()
    (newest, *_) = desk.reading.timeline.page(
        bytes.fromhex(desk.profile("joe")["id"].replace("-", "")), None, 10, personal=True
    )["items"]
    assert (newest["type"], newest["name"]) == ("custom", "trait.corrected")
