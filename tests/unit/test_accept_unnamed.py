"""What a sender gives as an id and names nobody: kept as sealed text, counted by its rule, never an identifier."""

from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pytest

from infra.adapters.phones import Phones
from ingest.accept.accept import Acceptor
from ingest.accept.calls import SourceRules
from schemas.clear_rules import declared_of
from schemas.identifiers import normalise
from schemas.placeholders import Blocked
from schemas.record import Record, decode
from tests.unit.test_accept import PlainVault, daily, letter, one, opened, token

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEB = SourceRules("web")


class Counted:
    """Random bytes that are different each time."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, size: int) -> bytes:
        self.number += 1
        return self.number.to_bytes(size, "big")


@pytest.fixture
def vault() -> PlainVault:
    return PlainVault()


@pytest.fixture
def acceptor(vault: PlainVault) -> Acceptor:
    return Acceptor(vault, vault, partial(normalise, phone=Phones("US")), daily, random_bytes=Counted())


def track(**more: object) -> dict[str, Any]:
    return {"type": "track", "event": "Signed Up", "anonymousId": "a-1", "messageId": "m-1", **more}


def kinds(record: Record) -> list[str]:
    return [each.kind for each in record.ids]


def test_a_placeholder_is_no_identifier_and_is_counted_by_rule(acceptor: Acceptor) -> None:
    accepted = acceptor.accept([track(userId="(not set)"), track(userId="8.2E+17"), track(userId="")], WEB, NOW)
    assert [kinds(decode(each.value)) for each in accepted.pending] == [["anonymous_id"]] * 3
    assert accepted.blocked == [
        Blocked("web", "user_id", "word", "not set"),
        Blocked("web", "user_id", "spreadsheet", ""),
    ]


def test_an_event_of_a_placeholder_alone_is_a_letter_that_says_so(acceptor: Acceptor) -> None:
    accepted = acceptor.accept([{"type": "track", "event": "E", "userId": "{{userId}}"}], WEB, NOW)
    assert letter(accepted).rule == "no_identifier"
    assert "userId" in letter(accepted).reason
    assert accepted.blocked == [Blocked("web", "user_id", "word", "userid")]


def test_a_number_that_identifies_nobody_is_sealed_as_it_was_sent(acceptor: Acceptor) -> None:
    item = {"type": "identify", "userId": "u-1", "traits": {"phone": "030 1234567", "email": "none@till.example"}}
    declared = declared_of({"traits": {"phone": {"personal": False}, "email": {"personal": False}}})
    accepted = acceptor.accept([item], SourceRules("web", declared), NOW)
    record = one(accepted)
    assert kinds(record) == ["user_id"]
    assert record.traits == {}
    assert opened(record)["traits"] == {"phone": "030 1234567", "email": "none@till.example"}
    assert accepted.blocked == [
        Blocked("web", "email", "email", ""),
        Blocked("web", "phone", "not_a_phone", ""),
    ]


def test_a_property_that_identifies_nobody_stays_sealed_whatever_is_declared(acceptor: Acceptor) -> None:
    declared = declared_of({"properties": {"*": {"phone": {"personal": False}}}})
    record = one(acceptor.accept([track(properties={"phone": "555-1234"})], SourceRules("web", declared), NOW))
    assert record.properties == {}
    assert opened(record)["properties"] == {"phone": "555-1234"}


def test_a_new_row_is_given_what_was_sent_where_it_differs(acceptor: Acceptor, vault: PlainVault) -> None:
    item = {
        "type": "identify",
        "userId": 42,
        "traits": {"email": " Eva <Eva@Weiß.example>", "phone": "(202) 555-0123", "loyalty_card": "6035 1234"},
    }
    record = one(acceptor.accept([item], WEB, NOW))
    assert {each.token for each in record.ids} >= {token("email", "eva@xn--wei-7ka.example").hex()}
    assert vault.kept == {
        ("email", "eva@xn--wei-7ka.example"): "Eva <Eva@Weiß.example>",
        ("phone", "+12025550123"): "(202) 555-0123",
        ("loyalty_card", "60351234"): "6035 1234",
        ("user_id", "42"): "42",
    }


def test_a_message_id_that_is_a_placeholder_counts_as_none(acceptor: Acceptor) -> None:
    accepted = acceptor.accept([track(messageId="undefined"), track(messageId="undefined")], WEB, NOW)
    first, second = (decode(each.value) for each in accepted.pending)
    assert first.id != second.id
    assert first.message_id is None
    assert accepted.blocked == [Blocked("web", "message_id", "word", "undefined")] * 2


def test_what_a_definition_blocks_names_nobody_in_any_form(acceptor: Acceptor) -> None:
    declared = declared_of(
        {
            "identifiers": {
                "blocked": [
                    "Walk-In",
                    {"value": "kasse@shop.example", "kinds": ["email"]},
                    {"value": "202 555 0123"},
                    {"value": "T-1", "kinds": ["crm"]},
                ]
            }
        }
    )
    rules = SourceRules("till", declared)
    traits = {"email": "Till <Kasse@Shop.example>", "phone": "+1 (202) 555-0123"}
    crm = {"externalIds": [{"type": "crm", "id": "t-1"}, {"type": "erp", "id": "t-1"}]}
    item = {"type": "identify", "userId": "walk-in", "anonymousId": "a", "traits": traits, "context": crm}
    accepted = acceptor.accept([item, track(userId="kasse@shop.example")], rules, NOW)
    first, second = (decode(each.value) for each in accepted.pending)
    assert kinds(first) == ["erp", "anonymous_id"]
    assert kinds(second) == ["user_id", "anonymous_id"]
    assert {(each.kind, each.rule, each.value) for each in accepted.blocked} == {
        ("user_id", "defined", ""), ("email", "defined", ""), ("phone", "defined", ""), ("external", "defined", ""),
    }  # fmt: skip
    again = acceptor.accept([track(userId="walk-in", messageId="m-2")], WEB, NOW)
    assert kinds(one(again)) == ["user_id", "anonymous_id"]


def test_a_letters_key_is_of_the_day_where_nobody_is_named(acceptor: Acceptor) -> None:
    found = letter(acceptor.accept([{"type": "track", "event": "E", "userId": "N/A"}], WEB, NOW))
    assert found.tokens == ()
    assert found.seal_key == daily(date(2026, 11, 24))
