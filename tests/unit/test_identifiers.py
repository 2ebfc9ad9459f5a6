"""Normal forms, blocked values and the places where identifiers stand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.adapters.phones import Phones
from schemas.clear_rules import NOTHING_DECLARED, declared_of, own_identifiers
from schemas.errors import BadRequest, SettingsInvalid
from schemas.identifiers import KINDS, Found, examine, extract, normalise, parse_selector

PHONE = Phones("US")


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        ("user_id", " u1 ", "u1"),
        ("user_id", "U1", "U1"),
        ("user_id", 12345, "12345"),
        ("user_id", 12345.0, "12345"),
        ("loyalty_card", 2**70, str(2**70)),
        ("user_id", "Cafe\u0301", "Café"),
        ("anonymous_id", "\ufeffabc", "abc"),
        ("email", " Ada@Example.COM ", "ada@example.com"),
        ("email", "ada@Bücher.example", "ada@xn--bcher-kva.example"),
        ("email", "ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("email", "ada@example.com.", "ada@example.com"),
        ("phone", "(202) 555-0123", "+12025550123"),
        ("phone", "+43 660 1234567", "+436601234567"),
        ("phone", 12025550123, "+12025550123"),
        ("ga_client_id", "GA1.2.3", "GA1.2.3"),
    ],
)
def test_an_identifier_has_one_normal_form(kind: str, value: object, normal: str) -> None:
    assert normalise(kind, value, phone=PHONE) == normal


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("user_id", "", "empty"),
        ("user_id", "  ", "empty"),
        ("user_id", True, "not_text"),
        ("user_id", None, "not_text"),
        ("user_id", {}, "not_text"),
        ("user_id", 1.5, "not_text"),
        ("user_id", 2.0**60, "not_text"),
        ("user_id", float("nan"), "not_text"),
        ("user_id", float("inf"), "not_text"),
        ("user_id", 10**200, "not_text"),
        ("user_id", "a\0b", "control_character"),
        ("user_id", "a\nb", "control_character"),
        ("user_id", "a\ud800", "control_character"),
        ("user_id", "x" * 513, "too_long"),
        ("user_id", "é" * 257, "too_long"),
        ("email", "ada", "not_an_email"),
        ("email", "@example.com", "not_an_email"),
        ("email", "ada@", "not_an_email"),
        ("email", "a@b@c", "not_an_email"),
        ("email", "a b@c", "not_an_email"),
        ("email", "a@.", "not_an_email"),
        ("phone", "12", "not_a_phone"),
        ("phone", "call me", "blocked"),
        ("phone", "202-555-0123 ext 5", "not_a_phone"),
        ("phone", "(000) 000-0000", "blocked"),
        ("phone", "+0000000", "blocked"),
    ],
)
def test_what_is_no_identifier_says_why(kind: str, value: object, reason: str) -> None:
    assert examine(kind, value, phone=PHONE) == (None, reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [
        "0", 0, 0.0, -1, "-1", "--", "00000000-0000-0000-0000-000000000000", "null", "NULL", "None", "anonymous",
        "Guest", "distinct_id", "distinctId", "ID", "not_authenticated", "Email", "undefined", "TRUE", "false",
        "[object Object]", "NaN", '"null"', "'anonymous'", '""', '" guest "', "000-000-0000",
    ],
)  # fmt: skip
def test_a_value_that_points_at_nobody_is_blocked_for_every_kind(kind: str, value: object) -> None:
    assert examine(kind, value, phone=PHONE) == (None, "blocked")


@given(st.sampled_from(KINDS), st.text(max_size=40) | st.emails() | st.integers() | st.floats())
def test_normalising_twice_changes_nothing(kind: str, value: object) -> None:
    once = normalise(kind, value, phone=PHONE)
    assert once is None or normalise(kind, once, phone=PHONE) == once


def test_a_region_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(SettingsInvalid, match="Austria"):
        Phones("Austria")


def test_identifiers_are_found_in_every_place_with_their_path() -> None:
    item: dict[str, Any] = {
        "type": "track",
        "userId": "u1",
        "anonymousId": "a1",
        "traits": {"email": "1@x.y", "loyaltyCard": 77},
        "properties": {"email": "2@x.y", "phone": "2", "loyalty_card": "L"},
        "context": {
            "traits": {"email": "3@x.y", "phone": "3"},
            "device": {"id": "d1"},
            "externalIds": [
                {"id": "g1", "type": "ga_client_id", "collection": "users", "encoding": "none"},
                {"id": "g2", "type": "crm"},
                {"id": "g3", "type": "crm", "collection": "accounts"},
                {"id": "g4", "type": "crm", "encoding": "sha256"},
                {"id": "g5", "type": "with:colon"},
                {"id": "g6", "type": "profile"},
                "rubbish",
            ],
            "externalId": [{"id": "h1", "type": "hubspot"}, {"id": None, "type": "crm"}],
        },
    }
    assert extract(item) == [
        Found("user_id", "u1", ("userId",)),
        Found("anonymous_id", "a1", ("anonymousId",)),
        Found("email", "1@x.y", ("traits", "email")),
        Found("loyalty_card", 77, ("traits", "loyaltyCard")),
        Found("loyalty_card", "L", ("properties", "loyalty_card")),
        Found("email", "3@x.y", ("context", "traits", "email")),
        Found("phone", "3", ("context", "traits", "phone")),
        Found("device_id", "d1", ("context", "device", "id")),
        Found("ga_client_id", "g1", ("context", "externalIds", 0, "id")),
        Found("crm", "g2", ("context", "externalIds", 1, "id")),
        Found("hubspot", "h1", ("context", "externalId", 0, "id")),
    ]


@pytest.mark.parametrize(
    ("type_", "theirs"),
    [
        ("purchase.completed", True),
        ("pos.return", True),
        ("checkout.started", True),
        ("account.signed_up", True),
        ("email.opened", True),
        ("call.missed", True),
        ("survey.answered", True),
        ("cart.shared", False),
        ("product.shared", False),
        ("web.page_viewed", False),
        ("custom", False),
    ],
)
def test_an_address_in_the_properties_is_the_customers_where_only_they_fill_it_in(type_: str, theirs: bool) -> None:
    item = {"userId": "u1", "properties": {"phone": "2", "email": "2@x.y", "note": "3@x.y"}}
    found = extract(item, own_identifiers(NOTHING_DECLARED, type_, None))[1:]
    assert found == (
        [Found("email", "2@x.y", ("properties", "email")), Found("phone", "2", ("properties", "phone"))]
        if theirs
        else []
    )


def test_a_declaration_says_whose_address_it_is_by_type_or_by_name() -> None:
    declared = declared_of(
        {
            "properties": {
                "purchase.completed": {"email": {"identifies": False}},
                "Newsletter Joined": {
                    "email": {"identifies": True},
                    "customer.phone": {"identifies": True},
                    "till_member": {"identifies": "loyalty_card"},
                },
            }
        }
    )
    properties = {"email": "2@x.y", "customer": {"phone": "3"}, "till_member": 4}
    item = {"userId": "u1", "properties": properties}
    assert extract(item, own_identifiers(declared, "purchase.completed", "Order Completed"))[1:] == []
    assert extract(item, own_identifiers(declared, "custom", "Newsletter Joined"))[1:] == [
        Found("email", "2@x.y", ("properties", "email")),
        Found("phone", "3", ("properties", "customer", "phone")),
        Found("loyalty_card", 4, ("properties", "till_member")),
    ]
    assert (
        extract({**item, "properties": "rubbish"}, own_identifiers(declared, "custom", "Newsletter Joined"))[1:] == []
    )


def test_a_groups_traits_are_not_the_persons() -> None:
    item = {"type": "group", "userId": "u1", "traits": {"email": "info@shop.example"}}
    assert extract(item) == [Found("user_id", "u1", ("userId",))]


def test_the_previous_id_of_an_alias_is_an_anonymous_id() -> None:
    item = {"type": "alias", "userId": "u1", "previousId": "a1"}
    assert extract(item)[1] == Found("anonymous_id", "a1", ("previousId",))
    assert extract({**item, "type": "track"}) == [Found("user_id", "u1", ("userId",))]


@pytest.mark.parametrize("odd", [None, [], "text", 5, {"traits": [], "device": "x", "externalIds": {}}])
def test_items_of_the_wrong_shape_hold_no_identifiers(odd: object) -> None:
    assert extract({"userId": None, "traits": odd, "properties": odd, "context": odd}) == []


def test_a_selector_is_split_at_its_first_colon() -> None:
    assert parse_selector("crm:a:b") == ("crm", "a:b")
    assert parse_selector(" email: ada@example.com ") == ("email", "ada@example.com")
    for wrong in ("", "email", "email:", ":x"):
        with pytest.raises(BadRequest):
            parse_selector(wrong)
