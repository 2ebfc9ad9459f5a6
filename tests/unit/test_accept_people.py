"""Acceptance: whose identifiers an event holds, and whom an alias names."""

from itertools import permutations
from typing import Any

import pytest

from ingest.accept.accept import Acceptor
from ingest.accept.calls import SourceRules
from schemas.clear_rules import declared_of
from schemas.record import decode
from tests.unit.test_accept import NOW, WEB, PlainVault, acceptor, daily, letter, one, opened, token, vault

__all__ = ["acceptor", "vault"]  # fixtures

Pairs = list[tuple[str, str]]


def alias(previous: object, user: str | None = "new", **more: Any) -> dict[str, Any]:
    return {"type": "alias", "previousId": previous, "userId": user, **more}


def ids(acceptor: Acceptor, *items: dict[str, Any]) -> list[set[tuple[str, str]]]:
    """The kinds and tokens of each item's identifiers."""
    accepted = acceptor.accept(items, WEB, NOW)
    assert accepted.dead == []
    return [{(each.kind, each.token) for each in decode(pending.value).ids} for pending in accepted.pending]


def named(*pairs: tuple[str, str]) -> set[tuple[str, str]]:
    return {(kind, token(kind, value).hex()) for kind, value in pairs}


def test_the_recipient_of_a_gift_card_is_not_the_buyer(acceptor: Acceptor) -> None:
    gift = {"email": "eve@x.example", "phone": "+1 415 555 2671", "product_id": "gift-50"}
    record = one(
        acceptor.accept([{"type": "track", "event": "Gift Card Sent", "userId": "ada", "properties": gift}], WEB, NOW)
    )
    assert [each.kind for each in record.ids] == ["user_id"]
    assert record.properties == {"product_id": "gift-50"}
    assert opened(record)["properties"] == {"email": "eve@x.example", "phone": "+1 415 555 2671"}


def test_an_event_with_only_a_strangers_address_is_set_aside_with_the_remedy(acceptor: Acceptor) -> None:
    item = {"type": "track", "event": "Friend Invited", "properties": {"email": "eve@x.example"}}
    found = letter(acceptor.accept([item], WEB, NOW))
    assert found.rule == "no_identifier"
    assert "properties: {EVENT: {email: {identifies: true}}}" in found.reason
    declared = declared_of({"properties": {"Friend Invited": {"email": {"identifies": True}}}})
    record = one(acceptor.accept([item], SourceRules("web", declared), NOW))
    assert [each.kind for each in record.ids] == ["email"]
    assert opened(record)["properties"]["email"]["$token"] == token("email", "eve@x.example").hex()


def test_a_declaration_acts_on_what_is_received_from_then_on(acceptor: Acceptor) -> None:
    item = {"type": "track", "event": "Order Completed", "userId": "ada", "properties": {"email": "eve@x.example"}}
    declared = declared_of({"properties": {"Order Completed": {"email": {"identifies": False}}}})
    kinds = [
        [each.kind for each in one(acceptor.accept([item], rules, NOW)).ids]
        for rules in (WEB, SourceRules("web", declared), WEB)
    ]
    assert kinds == [["user_id", "email"], ["user_id"], ["user_id", "email"]]


@pytest.mark.parametrize("together", [True, False])
def test_the_previous_id_of_an_alias_is_the_user_who_is_known_by_it(acceptor: Acceptor, together: bool) -> None:
    first = {"type": "identify", "userId": "old", "anonymousId": "browser"}
    if together:
        found = ids(acceptor, alias("old"), first)[0]
    else:
        ids(acceptor, first)
        (found,) = ids(acceptor, alias("old"))
    assert found == named(("user_id", "old"), ("user_id", "new"))


def test_the_previous_id_of_an_alias_is_the_visitor_who_is_known_by_it(acceptor: Acceptor) -> None:
    ids(acceptor, {"type": "page", "anonymousId": "browser"})
    assert ids(acceptor, alias("browser")) == [named(("user_id", "new"), ("anonymous_id", "browser"))]


def test_a_second_user_of_a_browser_is_not_aliased_to_the_first(acceptor: Acceptor) -> None:
    ids(acceptor, alias("browser", "ada"))
    assert ids(acceptor, alias("browser", "bob")) == [named(("user_id", "bob"), ("anonymous_id", "browser"))]


@pytest.mark.parametrize("made", ["c0ffee00-1234-4567-89ab-0123456789ab", "C0FFEE001234456789AB0123456789AB"])
def test_an_id_that_an_sdk_made_names_no_user(acceptor: Acceptor, made: str) -> None:
    assert ids(acceptor, alias(made)) == [named(("user_id", "new"), ("anonymous_id", made))]


@pytest.mark.parametrize("together", [True, False])
def test_chains_of_aliases_share_the_user_in_the_middle_in_any_order(together: bool) -> None:
    for chain in permutations([alias("a", "b"), alias("b", "c"), alias("c", "d")]):
        store = PlainVault()
        acceptor = Acceptor(store, store, lambda kind, value: str(value), daily)
        found = ids(acceptor, *chain) if together else [each for item in chain for each in ids(acceptor, item)]
        groups = [set(each) for each in found]
        for _ in chain:
            groups = [set().union(*(other for other in groups if other & each)) for each in groups]
        assert named(("user_id", "b"), ("user_id", "c"), ("user_id", "d"), ("anonymous_id", "a")) <= groups[0]


def test_an_alias_without_previous_id_means_its_anonymous_id(acceptor: Acceptor) -> None:
    item = {"type": "alias", "userId": "ada", "anonymousId": "browser"}
    assert ids(acceptor, item) == [named(("user_id", "ada"), ("anonymous_id", "browser"))]
    assert letter(acceptor.accept([{"type": "alias", "userId": "ada"}], WEB, NOW)).rule == "missing_field"


def test_an_alias_to_itself_says_nothing_new(acceptor: Acceptor) -> None:
    assert ids(acceptor, alias("ada", "ada")) == [named(("user_id", "ada"), ("anonymous_id", "ada"))]


def test_of_two_users_the_smaller_token_routes_the_event(acceptor: Acceptor) -> None:
    ids(acceptor, {"type": "page", "userId": "old"})
    record = one(acceptor.accept([alias("old")], WEB, NOW))
    assert record.route_key == min(token("user_id", "old"), token("user_id", "new")).hex()
    assert [each.token for each in record.ids] == sorted(each.token for each in record.ids)


def test_rudders_external_ids_are_identifiers(acceptor: Acceptor) -> None:
    item = {
        "type": "track", "event": "X", "userId": "ada",
        "context": {"externalId": [{"type": "crm", "id": "c-1"}], "externalIds": [{"type": "ga", "id": "g-1"}]},
    }  # fmt: skip
    record = one(acceptor.accept([item], WEB, NOW))
    assert [each.kind for each in record.ids] == ["user_id", "crm", "ga"]
    assert opened(record)["context"]["externalId"][0]["id"]["$kind"] == "crm"
