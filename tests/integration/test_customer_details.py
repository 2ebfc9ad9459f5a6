"""What the customer's page asks: where traits come from, why a segment holds, what changed, and parts of a timeline."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest

from infra.app.bootstrap import session
from infra.app.drain import drain
from infra.app.reading import Reading, reading_of
from infra.app.session import Session
from infra.app.staff_events import Acting
from ingest.accept.calls import SourceRules
from query.people.actions import COMPLAINTS, open_complaints
from schemas.clear_rules import Declared
from schemas.errors import NotFound

DECLARED = Declared({}, frozenset({"city"}))  # as the retail pack does
VIENNA = {"first_name": "Ada", "last_name": "Lovelace", "city": "Vienna"}


class Counter:
    """A shop with one till and its staff, at a data folder of their own."""

    def __init__(self, here: Session, reading: Reading, acting: Acting) -> None:
        self.here = here
        self.reading = reading
        self.acting = acting
        self.sent = 0

    def send(self, user: str, source: str = "till", **item: Any) -> None:
        self.sent += 1
        whole = {"type": "track", "userId": user, "messageId": f"m-{self.sent}", **item}
        accepted = self.acting._acceptor.accept([whole], SourceRules(source, DECLARED), self.here.door_clock.now())
        self.acting._log.append(accepted.pending)
        drain(self.here)

    def key(self, user: str) -> bytes:
        return UUID(self.reading.profiles.by_identifier("user_id", user)["id"]).bytes

    def details(self, user: str, *, personal: bool = True) -> Any:
        drain(self.here)
        return self.reading.profiles.details(self.key(user), personal=personal)


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    with (
        session(tmp_path_factory.mktemp("counter")) as here,
        closing(reading_of(here)) as reading,
        closing(Acting(here)) as acting,
    ):
        yield Counter(here, reading, acting)


def test_a_trait_tells_its_source_and_who_corrected_it(counter: Counter) -> None:
    counter.send("ada", "crm", type="identify", traits=VIENNA)
    before = counter.details("ada")
    assert before["trait_details"]["city"]["source"] == "crm"
    assert before["trait_details"]["first_name"] == before["trait_details"]["city"] | {"type": None}
    assert (before["trait_details"]["city"]["corrected"], before["trait_details"]["city"]["by"]) == (False, None)
    counter.acting.correct_trait(counter.key("ada"), "clerk", "first_name", "Adele")
    after = counter.details("ada")
    assert after["traits"]["first_name"] == "Adele"
    corrected = after["trait_details"]["first_name"]
    assert (corrected["source"], corrected["corrected"], corrected["by"]) == ("staff", True, "clerk")
    counter.acting.withdraw_correction(counter.key("ada"), "clerk", "first_name")
    assert counter.details("ada")["trait_details"]["first_name"] == before["trait_details"]["first_name"]


def test_without_the_right_sealed_traits_are_named_and_not_shown(counter: Counter) -> None:
    counter.send("grace", "crm", type="identify", traits=VIENNA)
    masked = counter.details("grace", personal=False)
    assert set(masked["trait_details"]) == set(VIENNA)
    assert masked["traits"] == {"city": "Vienna"}
    assert [each["value"] for each in masked["identifiers"]] == [None]


def test_segments_are_explained_by_the_values_they_rest_on(counter: Counter) -> None:
    order = {"order_id": "T1", "revenue": 42.1, "currency": "USD"}
    counter.send("mary", event="pos.purchase", properties=order)
    details = counter.details("mary")
    explained = {each["name"]: each for each in details["explained"]}
    assert sorted(explained) == details["segments"]
    assert explained["new_customers"]["values"] == {"lifecycle": "new"}
    assert explained["new_customers"]["sentence"] == "Customers who are in stage new."
    reachable = explained["reachable_customers"]["values"]  # through the segment it leaves out
    assert reachable == {"emails_bounced_90d": 0, "lifetime_orders": 1, "unsubscribes_365d": 0}
    units = {name: measure["unit"] for name, measure in details["measures"].items()}
    assert [units[name] for name in ("lifetime_revenue", "days_since_order", "last_order_at", "lifetime_orders")] == [
        "money", "days", "time", "number",
    ]  # fmt: skip
    assert details["stage"] == "Placed the first order within the last 30 days"


def test_reasons_are_in_words_and_open_complaints_are_found(counter: Counter) -> None:
    counter.send("joan", event="page viewed")
    counter.acting.complaint(counter.key("joan"), "clerk", topic="damaged parcel")
    details = counter.details("joan")
    assert {"code": "unresolved_complaint", "points": 2, "description": "A complaint is open"} in details["reasons"]
    page = counter.reading.timeline.page(counter.key("joan"), None, 10, personal=True, types=COMPLAINTS)
    assert [item["type"] for item in page["items"]] == ["complaint.opened"]
    (complaint,) = open_complaints(page["items"])
    assert complaint.topic == "damaged parcel"
    counter.acting.resolve_complaint(counter.key("joan"), "clerk", complaint_id=complaint.complaint_id)
    drain(counter.here)
    page = counter.reading.timeline.page(counter.key("joan"), None, 10, personal=True, types=COMPLAINTS)
    assert open_complaints(page["items"]) == []


def test_standing_changes_with_every_event_and_leads_to_the_living_profile(counter: Counter) -> None:
    counter.send("old-id", event="Order Completed", properties={"order_id": "W1", "revenue": 5})
    key = counter.key("old-id")
    before = counter.reading.profiles.standing(key)
    counter.acting.note(key, "clerk", "Likes tea")
    drain(counter.here)
    after = counter.reading.profiles.standing(key)
    assert (after[0], after[2]) == (key, before[2] + 1)
    counter.send("anne", type="identify", traits={"email": "anne@example.com"})
    other = counter.reading.profiles.token("email", "anne@example.com")
    assert counter.reading.profiles.standing(other)[0] == counter.key("anne")
    with pytest.raises(NotFound):
        counter.reading.profiles.standing(bytes(16))


def test_a_page_of_some_types_goes_on_where_it_ended(counter: Counter) -> None:
    for number in range(3):
        counter.send("lise", event="pos.purchase", properties={"order_id": f"L{number}", "revenue": 1})
        counter.send("lise", event="Product Viewed", properties={"name": "Tea pot"})
    key, types = counter.key("lise"), frozenset({"pos.purchase"})
    first = counter.reading.timeline.page(key, None, 2, personal=True, types=types)
    rest = counter.reading.timeline.page(key, first["next"], 2, personal=True, types=types)
    orders = [item["properties"]["order_id"] for item in (*first["items"], *rest["items"])]
    assert (orders, rest["next"]) == (["L2", "L1", "L0"], None)
