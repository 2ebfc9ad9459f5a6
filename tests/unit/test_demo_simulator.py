"""The demo shop's simulator: the same plan gives the same bytes, and the shop has everything a shop has."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from infra.adapters.phones import Phones
from infra.demo.history import History, Plan, simulate
from infra.demo.journey import SOURCES
from infra.demo.live import Trickle
from infra.demo.people import CLERK_PHONE, DAYS, KIOSK, cast
from infra.demo.score import churn_score, identity_score, lead_score
from infra.demo.sender import MOST, batches
from ingest.dialects.translate import type_and_name
from schemas.clear_rules import NOTHING_DECLARED, own_identifiers
from schemas.identifiers import extract, normalise
from schemas.touchpoints import CUSTOM, type_of

PLAN = Plan(seed=7, until=date(2026, 6, 1), customers=300, time_zone="Europe/Vienna", currency="EUR")
_HASH = (
    "from datetime import date; from hashlib import sha256; from infra.demo.history import Plan, simulate;"
    "print(sha256(b'\\n'.join(e.body for e in simulate(Plan(3, date(2026, 6, 1), 40)).events)).hexdigest())"
)


@cache
def history() -> History:
    return simulate(PLAN)


@cache
def items() -> list[dict[str, Any]]:
    return [json.loads(event.body) for event in history().events]


def identifiers(item: dict[str, Any]) -> set[tuple[str, str]]:
    own = own_identifiers(NOTHING_DECLARED, *type_and_name(item))
    return {(found.kind, str(found.value)) for found in extract(item, own)}


def digest(plan: Plan) -> str:
    return sha256(b"\n".join(event.body for event in simulate(plan).events)).hexdigest()


def test_the_same_plan_gives_the_same_bytes_in_any_process() -> None:
    here = digest(Plan(3, date(2026, 6, 1), 40))
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _HASH], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == here
    assert digest(Plan(4, date(2026, 6, 1), 40)) != here
    assert digest(Plan(3, date(2026, 6, 2), 40)) != here


def test_the_history_ends_at_local_midnight_and_is_in_order() -> None:
    end = datetime(2026, 6, 1, tzinfo=ZoneInfo("Europe/Vienna")).astimezone(UTC)
    times = [datetime.fromisoformat(item["timestamp"]) for item in items()]
    assert all(before <= after for before, after in pairwise(times))
    assert times[-1] < end
    assert (end - times[0]).days in range(DAYS - 40, DAYS + 1)
    assert (end - times[-1]).days < 2


def test_about_fifty_events_a_customer_over_every_channel() -> None:
    assert 40 < len(history().events) / PLAN.customers < 70
    assert {event.source for event in history().events} == set(SOURCES)
    types = Counter(type_of(item["event"]) for item in items() if item["type"] == "track")
    assert types[CUSTOM] == 0
    few = "call.received call.completed call.missed complaint.opened complaint.escalated complaint.resolved"
    few += " email.bounced email.unsubscribed survey.answered pos.return purchase.refunded"
    many = "email.sent email.delivered email.opened email.clicked pos.purchase purchase.completed product.viewed"
    many += " cart.item_added checkout.started account.signed_up account.signed_in loyalty.card_added consent.updated"
    assert [name for name in few.split() if types[name] < 5] == []
    assert [name for name in many.split() if types[name] < 100] == []
    calls = Counter(item["type"] for item in items())
    assert calls["page"] > 1_000
    assert calls["identify"] > PLAN.customers * 0.9


def test_message_ids_are_unique_and_the_door_takes_every_item() -> None:
    ids = [item["messageId"] for item in items()]
    assert len(set(ids)) == len(ids)
    assert all(identifiers(item) and "sentAt" not in item for item in items())


def test_some_orders_are_sent_by_web_and_till_alike() -> None:
    sources = defaultdict(set)
    for event, item in zip(history().events, items(), strict=True):
        if item.get("event") in {"Order Completed", "pos.purchase"}:
            sources[item["properties"]["order_id"]].add((event.source, item["properties"]["revenue"]))
    both = [found for found in sources.values() if len(found) == 2]
    assert len(both) > len(sources) * 0.03
    assert all(len({revenue for _, revenue in found}) == 1 for found in both)


@pytest.mark.parametrize(
    ("shared", "kind"), [(("device_id", KIOSK), "user_id"), (("phone", CLERK_PHONE), "loyalty_card")]
)
def test_a_kiosk_and_a_clerks_phone_are_shared_by_many(shared: tuple[str, str], kind: str) -> None:
    seen = {value for item in items() if shared in (ids := identifiers(item)) for at, value in ids if at == kind}
    assert len(seen) > 20
    assert shared in history().shared


def test_every_identifier_sent_belongs_to_one_person_or_is_shared() -> None:
    of = {each: truth.person for truth in history().truths for each in truth.identifiers}
    assert len(of) == sum(len(truth.identifiers) for truth in history().truths)
    shared = set(history().shared)
    sent = set()
    for event, item in zip(history().events, items(), strict=True):
        person = event.message_id.split("-")[2].removeprefix("v")
        for each in identifiers(item) - shared:
            assert of[each][1:] == person
            sent.add(each)
    assert sent == of.keys()
    assert not shared & of.keys()


def test_phones_and_emails_have_a_normal_form_of_their_own() -> None:
    phones = Phones("AT")
    people = cast(7, 2_500)
    numbers = [normalise("phone", person.phone, phone=phones) for person in people if person.phone]
    assert None not in numbers
    assert len(set(numbers)) == len(numbers)
    assert normalise("phone", CLERK_PHONE, phone=phones) not in numbers
    emails = [normalise("email", email, phone=phones) for person in people for email in person.emails]
    assert None not in emails
    assert len(set(emails)) == len(emails)


def test_who_left_is_silent_afterwards_and_who_stays_did_not_leave() -> None:
    ours = {"email.sent", "email.delivered", "email.bounced", "complaint.resolved", "purchase.refunded"}
    last: dict[str, str] = {}
    for event, item in zip(history().events, items(), strict=True):
        if type_of(item.get("event", "")) not in ours:
            last[event.message_id.split("-")[2]] = item["timestamp"]
    left = [truth for truth in history().truths if truth.left_at]
    assert {truth.kind for truth in left} == {"churner", "one_timer"}
    assert all(truth.left_at == last[truth.person[1:]] for truth in left)


def test_batches_hold_every_event_once_and_one_source_each() -> None:
    work = batches(history().events)
    assert work == batches(simulate(PLAN).events)
    assert max(batch.events for batch in work) <= MOST
    sent = [item["messageId"] for batch in work for item in json.loads(batch.body)["batch"]]
    assert sorted(sent) == sorted(event.message_id for event in history().events)


def test_the_trickle_happens_now_with_ids_of_its_own() -> None:
    one, two = Trickle(PLAN, 1_800_000_000), Trickle(PLAN, 1_800_000_001)
    found = [json.loads(story.next(1_800_000_000_123).body) for story in (one, two) for _ in range(300)]
    assert len({item["messageId"] for item in found}) == 600
    assert {item["timestamp"] for item in found} == {"2027-01-15T08:00:00.123Z"}
    gone = {each for truth in history().truths if truth.left_at for each in truth.identifiers}
    assert not any(identifiers(item) & gone for item in found)
    orders = {item["properties"]["order_id"] for item in found if "order_id" in item.get("properties", {})}
    assert orders
    assert not orders & {item["properties"].get("order_id") for item in items() if "properties" in item}


def test_scores_count_pairs_flags_and_days() -> None:
    one, two = history().truths[:2]
    a, b, c, d = (("email", letter) for letter in "abcd")
    truths = [one._replace(identifiers=[a, b, c]), two._replace(identifiers=[d])]
    found = identity_score({a: b"1", b: b"1", d: b"1", c: b"2"}, truths)
    assert (found["pairs_found"], found["pairs_right"]) == (3, 3)
    assert (found["precision"], found["recall"]) == (0.3333, 0.3333)
    flags = [(True, True), (True, False), (False, True), (False, False)]
    assert churn_score(flags) == {"precision": 0.5, "recall": 0.5, "customers": 4, "flagged": 2, "left": 2}
    assert lead_score([-3.0, 1.0, 2.0]) == {"flagged": 3, "median": 1.0, "before_leaving": 0.6667}
    assert lead_score([]) == {"flagged": 0, "median": None, "before_leaving": None}
