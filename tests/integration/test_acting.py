"""Notes, calls, complaints and corrections by staff: events like any other, in the profile when they are decided."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from infra.adapters.postgres.rebuild import PostgresRebuild
from infra.app.bootstrap import session
from infra.app.erasing import erase_person
from infra.app.reading import Reading, reading_of
from infra.app.session import Session
from infra.app.staff_events import Acting
from infra.app.worker import services_of, worker_of
from ingest.accept.calls import SourceRules
from processors.live.compiled import Compiled
from processors.live.feeder import LogFeeder
from processors.rebuild.check import check
from schemas.clear_rules import Declared
from schemas.errors import BadRequest, Erased, NotFound

DECLARED = Declared({}, frozenset({"city"}))  # as the retail pack does


class Desk:
    """A member of staff at a data folder of their own."""

    def __init__(self, here: Session, reading: Reading) -> None:
        self.here = here
        self.reading = reading
        self.acting = Acting(here)
        self.feeder = LogFeeder(worker_of(here))

    def settle(self) -> None:
        while self.feeder.step():
            pass

    def send(self, **item: Any) -> None:
        """An event of the source "web"."""
        accepted = self.acting._acceptor.accept([item], SourceRules("web", DECLARED), self.here.door_clock.now())
        self.acting._log.append(accepted.pending)
        self.settle()

    def person(self, user: str, **traits: Any) -> bytes:
        """A customer who was seen once; returns their profile's id."""
        self.send(type="identify", userId=user, messageId=f"m-{user}", traits=traits)
        return bytes.fromhex(self.profile(user)["id"].replace("-", ""))

    def profile(self, user: str) -> Any:
        self.settle()
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
    desk.settle()
    items = desk.reading.timeline.page(bob, None, 10, personal=True)["items"]
    assert [item["type"] for item in items] == ["call.received", "note.added", "profile.identified"]
    assert items[1]["properties"]["text"] == "Prefers to be called after five"
    masked = desk.reading.timeline.page(bob, None, 10, personal=False)["items"]
    assert "text" not in masked[1]["properties"]


def test_a_correction_holds_against_the_source_until_it_is_withdrawn(desk: Desk) -> None:
    eve = desk.person("eve", last_name="Smiht", email="eve@example.com")
    desk.acting.correct_trait(eve, "clerk", "last_name", "Smith")
    assert desk.profile("eve")["traits"]["last_name"] == "Smith"
    desk.send(type="identify", userId="eve", messageId="m-eve-2", traits={"last_name": "Smiht"})
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
    desk.send(type="track", event="trait.corrected", userId="joe", messageId="m-x", name="last_name")
    (newest, *_) = desk.reading.timeline.page(
        bytes.fromhex(desk.profile("joe")["id"].replace("-", "")), None, 10, personal=True
    )["items"]
    assert (newest["type"], newest["name"]) == ("custom", "trait.corrected")


@pytest.mark.parametrize(
    ("kind", "value", "item"),
    [
        ("anonymous_id", "visitor-1", {"anonymousId": "visitor-1"}),
        ("email", "zoe@example.com", {"anonymousId": "visitor-2", "traits": {"email": "Zoe@Example.com"}}),
        ("phone", "+14155550123", {"traits": {"phone": "+1 415 555 0123"}}),
        ("loyalty_card", "C-77", {"traits": {"loyalty_card": "C-77"}}),
        ("crm_id", "77", {"context": {"externalIds": [{"id": 77, "type": "crm_id"}]}, "anonymousId": "visitor-3"}),
    ],
)
def test_what_staff_write_reaches_whoever_has_no_user_id(desk: Desk, kind: str, value: str, item: Any) -> None:
    desk.send(type="identify", messageId=f"m-{kind}", **item)
    before = desk.reading.profiles.by_identifier(kind, value)
    desk.acting.note(bytes.fromhex(before["id"].replace("-", "")), "clerk", "Rings twice")
    desk.settle()
    after = desk.reading.profiles.by_identifier(kind, value)
    assert (after["id"], after["identifiers"]) == (before["id"], before["identifiers"])
    assert after["event_count"] == before["event_count"] + 1


def test_nothing_is_written_about_an_erased_person(desk: Desk) -> None:
    tom = desk.person("tom", last_name="Gone")
    desk.acting.correct_trait(tom, "clerk", "last_name", "Went")
    assert erase_person(desk.here, "user_id", "tom")["found"]
    with pytest.raises(Erased):
        desk.acting.note(tom, "clerk", "hello")
    with pytest.raises(Erased):
        desk.acting.correct_trait(tom, "clerk", "last_name", "Back")
    with pytest.raises(Erased):
        desk.acting.withdraw_correction(tom, "clerk", "last_name")


def test_search_finds_the_corrected_name(desk: Desk) -> None:
    liz = desk.person("liz", last_name="Weber")
    desk.acting.correct_trait(liz, "clerk", "last_name", "Quistrup")
    desk.settle()
    assert [each["id"] for each in desk.reading.search.find("quistr")["items"]] == [desk.profile("liz")["id"]]
    assert not desk.reading.search.find("weber")["items"]


def test_a_rebuild_knows_corrections_and_withdrawals(desk: Desk) -> None:
    ida = desk.person("ida", city="Lnz", last_name="Berg")
    for name, value in (("city", "Linz"), ("last_name", "Burg"), ("last_name", "Borg")):
        desk.acting.correct_trait(ida, "clerk", name, value)
    desk.acting.withdraw_correction(ida, "clerk", "city")
    desk.acting.correct_trait(ida, "clerk", "city", "Graz")
    desk.send(type="identify", userId="ida", messageId="m-ida-2", traits={"city": "Lnz", "last_name": "Berg"})
    assert (desk.profile("ida")["traits"]["city"], desk.profile("ida")["traits"]["last_name"]) == ("Graz", "Borg")
    services = services_of(desk.here)
    live = services.control.live()
    compiled = Compiled.of(live, services.time_zone, services.currency)
    with PostgresRebuild(desk.here.dsn).snapshot(live.revision) as snapshot:
        verdict = check(services, compiled, snapshot)
    assert (verdict.equal, verdict.differences) == (True, [])
    assert verdict.profiles >= 2
