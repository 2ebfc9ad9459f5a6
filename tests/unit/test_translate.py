"""From SDK calls to types, names and sections; which names are whose; what is clear and what is sealed."""

import json
from typing import Any

import pytest

from ingest.accept.canonical import Refused
from ingest.dialects.translate import merge_defaults, translate
from projections.definitions.files import load_pack, parse_documents
from schemas.clear import Parts, decimal_text, ref, split
from schemas.clear_rules import NOTHING_DECLARED, Clear, Declared, clear_rules, declared_of
from schemas.definitions import to_json
from schemas.touchpoint_names import DIALECT_NAMES, SEGMENT_NAMES
from schemas.touchpoints import (
    CUSTOM,
    ORDER_TYPES,
    STAFF_TYPES,
    TOUCHPOINTS,
    TYPES,
    type_of,
)

NO_RULES = clear_rules(NOTHING_DECLARED, CUSTOM, None)
UNKNOWN_CLEAR = NO_RULES._replace(unknown=True)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("Order Completed", "purchase.completed"),
        ("order completed", "purchase.completed"),
        ("order_completed", "purchase.completed"),
        ("  Order   Completed ", "purchase.completed"),
        ("Completed Order", "purchase.completed"),
        ("purchase.completed", "purchase.completed"),
        ("pos.purchase", "pos.purchase"),
        ("call.received", "call.received"),
        ("Call Received", "call.received"),
        ("transaction", "purchase.completed"),
        ("Transaction", CUSTOM),
        ("sale-completed", "purchase.completed"),
        ("message-sent", "email.sent"),
        ("Message Sent", "chat.message_sent"),
        ("email.sent", "email.sent"),
        ("Unsubscribed", "email.unsubscribed"),
        ("Video Playback Started", CUSTOM),
        ("orderCompleted", "purchase.completed"),
        ("OrderCompleted", "purchase.completed"),
        ("ORDER COMPLETED", "purchase.completed"),
        ("Order Placed", "purchase.completed"),
        ("Order Canceled", "purchase.cancelled"),
        ("Added Product", "cart.item_added"),
        ("Opened Email", "email.opened"),
        ("purchase", "purchase.completed"),
        ("view_item", "product.viewed"),
        ("begin_checkout", "checkout.started"),
        ("generate_lead", "lead.generated"),
        ("checkout_completed", "purchase.completed"),
        ("Checkout Completed", CUSTOM),
        ("checkout-completed", "checkout.step_completed"),
        ("product_added_to_cart", "cart.item_added"),
        ("collection_viewed", "product.list_viewed"),
        ("AddToCart", "cart.item_added"),
        ("orders/create", "purchase.completed"),
        ("login", "account.signed_in"),
        ("click", CUSTOM),
        ("view", CUSTOM),
        ("form", CUSTOM),
        ("rating", CUSTOM),
        ("person.erased", CUSTOM),
        ("trait.corrected", CUSTOM),
        ("profile.identified", CUSTOM),
    ],
)
def test_names_of_every_dialect_map_by_the_table(name: str, type_: str) -> None:
    assert type_of(name) == type_


def test_the_first_checkout_step_of_snowplow_starts_the_checkout() -> None:
    assert type_of("checkout_step", 1) == "checkout.started"
    assert type_of("checkout_step", 2) == "checkout.step_viewed"


def test_a_plain_word_is_a_systems_only_where_the_library_says_so() -> None:
    click = {"type": "track", "event": "click", "context": {"library": {"name": "Apache Unomi"}}}
    assert (translate(click).type, translate(click).name) == ("product.clicked", "click")
    assert translate({**click, "context": {"library": {"name": "analytics.js"}}}).type == CUSTOM
    assert translate({**click, "event": "rating", "context": {"library": {"name": "tracardi"}}}).type == (
        "product.reviewed"
    )


def test_every_name_of_the_tables_finds_its_type() -> None:
    for name, type_ in {**SEGMENT_NAMES, **DIALECT_NAMES}.items():
        assert type_of(name) == type_
    for type_ in TOUCHPOINTS:
        assert type_of(type_) == type_
        assert type_ == type_.lower().strip()
        assert "." in type_
    assert not TOUCHPOINTS & {*STAFF_TYPES, CUSTOM}
    assert TOUCHPOINTS < TYPES


def test_order_types_are_touchpoints() -> None:
    assert ORDER_TYPES <= TOUCHPOINTS


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("call", "more", "type_", "name"),
    [
        ("track", {"event": " Order Completed "}, "purchase.completed", "Order Completed"),
        ("track", {"event": "Odd One"}, "custom", "Odd One"),
        ("identify", {"traits": {"a": 1}}, "profile.identified", None),
        ("page", {"name": "Home"}, "web.page_viewed", "Home"),
        ("page", {}, "web.page_viewed", None),
        ("screen", {"name": "Cart"}, "app.screen_viewed", "Cart"),
        ("group", {"groupId": "acme"}, "group.joined", None),
        ("alias", {"previousId": "a"}, "identity.aliased", None),
    ],
)
def test_each_call_has_its_type(call: str, more: dict[str, Any], type_: str, name: str | None) -> None:
    fields = translate({"type": call, "userId": "u", **more})
    assert (fields.type, fields.name) == (type_, name)


def test_rudder_keeps_the_traits_of_identify_in_the_context() -> None:
    fields = translate({"type": "identify", "context": {"traits": {"name": "Ada"}, "locale": "de"}})
    assert (fields.traits, fields.context) == ({"name": "Ada"}, {"locale": "de"})
    both = translate({"type": "identify", "traits": {"a": 1}, "context": {"traits": {"b": 2}}})
    assert (both.traits, both.context) == ({"a": 1}, {"traits": {"b": 2}})


def test_the_traits_of_a_group_are_not_the_persons() -> None:
    fields = translate({"type": "group", "groupId": 7, "traits": {"plan": "enterprise"}})
    assert fields.traits == {}
    assert fields.properties == {"group_id": "7", "traits": {"plan": "enterprise"}}


def test_the_category_of_a_page_and_the_channel_find_their_places() -> None:
    fields = translate({
        "type": "page", "name": "Home", "category": "Shop", "channel": "web", "properties": {"name": "Home"},
    })  # fmt: skip
    assert fields.properties == {"category": "Shop"}
    assert fields.context == {"channel": "web"}


def test_of_two_times_the_one_the_caller_gave_is_meant() -> None:
    item = {"type": "page", "timestamp": "2026-01-02T00:00:00Z", "originalTimestamp": "2026-01-01T00:00:00Z"}
    stamps = translate(item).stamps
    assert (str(stamps.original_at), stamps.given) == ("2026-01-02 00:00:00+00:00", True)
    stamps = translate({**item, "originalTimestamp": None}).stamps
    assert (str(stamps.original_at), stamps.given) == ("2026-01-02 00:00:00+00:00", False)


def test_defaults_lie_under_an_item_and_contexts_merge() -> None:
    defaults = {"type": "track", "context": {"ip": "1", "locale": "de"}}
    assert merge_defaults({"event": "E", "context": {"ip": "2"}}, defaults) == {
        "type": "track", "event": "E", "context": {"ip": "2", "locale": "de"},
    }  # fmt: skip
    assert merge_defaults({"type": "page", "context": None}, defaults)["context"] == defaults["context"]


@pytest.mark.parametrize(
    ("item", "rule", "path"),
    [
        ({}, "unknown_type", "type"),
        ({"type": {}}, "unknown_type", "type"),
        ({"type": "track"}, "missing_field", "event"),
        ({"type": "track", "event": 5}, "wrong_type", "event"),
        ({"type": "track", "event": "x" * 513}, "bad_event_name", "event"),
        ({"type": "track", "event": " "}, "bad_event_name", "event"),
        ({"type": "page", "name": 5}, "wrong_type", "name"),
        ({"type": "page", "properties": [1]}, "wrong_type", "properties"),
        ({"type": "page", "context": "x"}, "wrong_type", "context"),
        ({"type": "identify", "traits": "x"}, "wrong_type", "traits"),
        ({"type": "page", "messageId": {}}, "wrong_type", "messageId"),
        ({"type": "alias", "previousId": ""}, "missing_field", "previousId"),
        ({"type": "group", "groupId": None}, "missing_field", "groupId"),
    ],
)
def test_what_is_no_event_is_refused_with_rule_and_path(item: dict[str, Any], rule: str, path: str) -> None:
    with pytest.raises(Refused) as caught:
        translate(item)
    assert (caught.value.rule, caught.value.path) == (rule, path)


# ---------------------------------------------------------------- clear and sealed


def properties(value: dict[str, Any], rules: Clear = NO_RULES) -> Parts:
    return split(value, {}, {}, rules, frozenset())


UNKNOWN: dict[str, Any] = {
    "n": 3, "lat": 47.52, "hiv_positive": True, "no": False, "none": None, "date_of_birth": "1984-02-29",
    "at": "2026-12-01T10:00:00.5+01:00", "note": "call me", "empty": "", "zip": 10_115, "pin": 4711,
    "phone_no": 4_155_552_671, "big": 2**60, "geo": {"lat": 1.5, "on": {"2026-12-01": 1}},
    "scores": [1, 2.5, True, None],
    "nothing": {}, "no_list": [], "rows": [{"n": 1}, [2]],
}  # fmt: skip


def test_what_nothing_names_is_sealed_whatever_its_type() -> None:
    parts = properties(UNKNOWN)
    assert parts.properties == {}
    assert parts.sealed == {"properties": {**UNKNOWN, "big": str(2**60)}}
    assert parts.names == sorted(f"properties.{name}" for name in UNKNOWN)


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_no_touchpoint_keeps_an_unknown_value_clear(type_: str) -> None:
    assert properties(UNKNOWN, clear_rules(NOTHING_DECLARED, type_, "Whatever")).properties == {}


def test_an_unknown_value_of_a_line_or_of_the_context_is_sealed_whatever_its_type() -> None:
    line = {"sku": "s-1", "age": 41, "gift_for": {"lat": 1.5}, "since": "2026-12-01", "member": True}
    context = {
        "location": {"latitude": 47.52}, "screen": {"width": 320}, "os": {"name": "Linux", "pin": 4711},
        "app": {"build": "3", "user": {"age": 41}}, "device": {"type": "ios", "year": 1984}, "age": 41, "vip": True,
    }  # fmt: skip
    parts = split({"products": [line, 4711]}, context, {}, NO_RULES, frozenset())
    assert parts.properties == {"products": [{"sku": "s-1"}, None]}
    assert parts.context == {"os": {"name": "Linux"}, "app": {"build": "3"}, "device": {"type": "ios"}}
    assert parts.sealed["properties"] == {
        "products": {"0": {name: value for name, value in line.items() if name != "sku"}, "1": 4711}
    }
    assert {"context.location", "context.screen", "context.os.pin", "context.app.user", "context.age"} < set(
        parts.names
    )


def test_a_name_that_is_an_address_or_a_long_number_is_no_name_in_clear() -> None:
    value: dict[str, Any] = {"ada@example.com": 1, "+14155552671": 2, "4155552671": {"n": 1}, "2026-12-01": 3}
    parts = split(value, {"ada@example.com": {"n": 1}}, {"ada@example.com": 1}, NO_RULES, frozenset())
    assert parts.names == [
        "context.*", *["properties.*"] * 3, "properties.2026-12-01", "traits.*",
    ]  # fmt: skip
    assert (parts.properties, parts.context, parts.traits) == ({}, {}, {})
    assert parts.sealed["properties"] == value


def test_with_unknown_clear_numbers_booleans_and_times_are_clear_and_other_strings_sealed() -> None:
    value = {
        "n": 3, "f": 1.5, "yes": True, "none": None, "day": "2026-12-01", "at": "2026-12-01T10:00:00.5+01:00",
        "note": "call me", "empty": "", "dated": "2026-12-01 call Ada", "mine": 5,
    }  # fmt: skip
    parts = properties(value, UNKNOWN_CLEAR._replace(sealed=frozenset({"mine"})))
    assert parts.properties == {name: value[name] for name in ("n", "f", "yes", "none", "day", "at", "empty")}
    assert parts.sealed == {"properties": {"note": "call me", "dated": "2026-12-01 call Ada", "mine": 5}}
    assert parts.names == ["properties.dated", "properties.mine", "properties.note"]


def test_with_unknown_clear_integers_of_seven_digits_are_sealed() -> None:
    value = {"a": 999_999, "b": -999_999, "c": 1_000_000, "d": 4_155_552_671, "e": 4_155_552_671.0, "f": 2**60}
    parts = properties(value, UNKNOWN_CLEAR)
    assert parts.properties == {"a": 999_999, "b": -999_999}
    assert parts.sealed["properties"] == {
        "c": 1_000_000, "d": 4_155_552_671, "e": 4_155_552_671.0, "f": str(2**60),
    }  # fmt: skip


def test_what_is_declared_is_as_it_is_declared() -> None:
    value = {"a": 1, "c": 1_000_000, "f": 2**60, "order_id": "o-1", "address": {"city": "Wien"}}
    declared = Declared({"Bought": {"c": False, "f": False, "order_id": True, "address": False}}, frozenset())
    parts = properties(value, clear_rules(declared, CUSTOM, "Bought"))
    assert parts.properties == {"c": 1_000_000, "f": str(2**60), "address": {"city": "Wien"}}
    assert parts.names == ["properties.a", "properties.order_id"]


def test_a_field_of_the_lines_is_declared_below_products() -> None:
    declared = Declared({"*": {"products.weight": False, "products.name": True}}, frozenset())
    value = {"products": [{"sku": "s", "weight": 4, "name": "Uno", "age": 41}], "weight": 5}
    parts = properties(value, clear_rules(declared, CUSTOM, None))
    assert parts.properties == {"products": [{"sku": "s", "weight": 4}]}
    assert parts.names == ["properties.products.0.age", "properties.products.0.name", "properties.weight"]


def test_what_a_computed_trait_keeps_is_clear_unless_it_is_known_or_declared_to_be_personal() -> None:
    traits = {
        "points": {"aggregate": "sum", "of": "points", "events": ["Played"]},
        "open": {"aggregate": "open_count", "key": "ticket", "opens": ["Played"], "closes": ["Ended"]},
        "born": {"aggregate": "last", "of": "date_of_birth", "events": ["*"]},
        "seen": {"aggregate": "last", "of": "occurred_at", "events": ["Played"]},
        "age": {"aggregate": "max", "of": "age", "events": ["Played"]},
    }
    compared = {"aggregate": "count", "events": ["Played"], "where": {"property": "level", "op": "gt", "value": 3}}
    declared = declared_of({
        "properties": {"Played": {"age": {"personal": True}}}, "computed_traits": {**traits, "compared": compared},
    })  # fmt: skip
    value = {"points": 3, "ticket": "t-1", "date_of_birth": "1984-02-29", "age": 41, "level": 4, "occurred_at": 5}
    parts = properties(value, clear_rules(declared, CUSTOM, "Played"))
    assert parts.properties == {"points": 3, "ticket": "t-1"}
    assert properties({"ticket": "t-1", "points": 3}, clear_rules(declared, CUSTOM, "Ended")).properties == {
        "ticket": "t-1"
    }
    nested = properties({"points": {"lat": 1.5}}, clear_rules(declared, CUSTOM, "Played"))
    assert nested.properties == {}, "a trait keeps no objects: nothing of one is made clear for it"


def test_money_becomes_decimal_strings_without_float_noise() -> None:
    value = {
        "revenue": 25.0, "total": 18.99, "tax": 3, "discount": "2.50", "price": 1e22, "shipping": float("nan"),
        "products": [{"price": 0.1, "quantity": 2, "amount": 1e-7, "name": "Uno", "note": "for Ada"}],
    }  # fmt: skip
    parts = properties(value)
    assert parts.properties == {
        "revenue": "25.0", "total": "18.99", "tax": "3", "discount": "2.50", "price": "10000000000000000000000",
        "shipping": None,
        "products": [{"price": "0.1", "quantity": 2, "amount": "0.0000001", "name": "Uno"}],
    }  # fmt: skip
    assert parts.names == ["properties.products.0.note"]
    assert parts.sealed["properties"] == {"products": {"0": {"note": "for Ada"}}}


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "0.1"), (1e16, "10000000000000000"), (-2.5, "-2.5"), (1e-5, "0.00001")]
)
def test_decimal_text_has_no_exponent(value: float, text: str) -> None:
    assert decimal_text(value) == text


def test_a_products_name_is_clear_where_the_event_is_about_a_product() -> None:
    value = {"name": "Monopoly", "product_id": "p-1", "url": "https://shop.example/p-1"}
    assert properties(value, clear_rules(NOTHING_DECLARED, "product.viewed", "Product Viewed")).properties == value
    assert properties(value).properties == {"product_id": "p-1"}


def test_with_unknown_clear_lists_and_objects_are_parted_or_sealed_whole() -> None:
    value = {
        "keywords": ["ada", "bob"],
        "mixed": ["ada", 5, [1, "x"]],
        "place": {"street": "Main St", "geo": {"lat": 1.5}},
        "contact": {"name": "Ada", "since": {"who": "Bob"}},
        "empty": {}, "none": [], "deep": [[["x"]]],
    }  # fmt: skip
    parts = properties(value, UNKNOWN_CLEAR)
    assert parts.properties == {
        "mixed": [None, 5, [1, None]],
        "place": {"geo": {"lat": 1.5}},
        "empty": {},
        "none": [],
    }
    assert parts.sealed["properties"] == {
        "keywords": ["ada", "bob"],
        "mixed": {"0": "ada", "2": {"1": "x"}},
        "place": {"street": "Main St"},
        "contact": value["contact"],
        "deep": [[["x"]]],
    }
    assert parts.names == [
        *("properties.contact", "properties.deep", "properties.keywords", "properties.mixed.0"),
        *("properties.mixed.2.1", "properties.place.street"),
    ]
    assert value["mixed"] == ["ada", 5, [1, "x"]]


def test_of_the_context_only_the_named_parts_are_clear() -> None:
    context = {
        "ip": "203.0.113.42", "userAgent": "Mozilla", "locale": "de", "timezone": "UTC", "channel": "web",
        "library": {"name": "x", "version": "1"}, "os": {"name": "Linux"}, "app": {"build": "3"},
        "campaign": {"name": "spring", "term": "kaffee"},
        "device": {"type": "ios", "id": "x", "model": "iPhone", "adTrackingEnabled": True},
        "page": {"path": "/c", "url": "https://x/?q=ada", "title": "Ada's cart"},
        "screen": {"width": 320, "density": 2.5}, "traits": {"email": "ada@example.com", "age": 36},
        "externalIds": [{"id": "x", "type": "crm"}], "sessionId": 1_664_525_400_000,
    }  # fmt: skip
    parts = split({}, context, {}, NO_RULES, frozenset())
    assert parts.context == {
        "locale": "de", "timezone": "UTC", "channel": "web", "library": {"name": "x", "version": "1"},
        "os": {"name": "Linux"}, "app": {"build": "3"}, "campaign": {"name": "spring", "term": "kaffee"},
        "device": {"type": "ios"}, "page": {"path": "/c"},
    }  # fmt: skip
    assert parts.names == [
        *("context.device.adTrackingEnabled", "context.device.id", "context.device.model", "context.externalIds"),
        *("context.ip", "context.page.title", "context.page.url", "context.screen", "context.sessionId"),
        *("context.traits", "context.userAgent"),
    ]
    assert parts.sealed["context"]["traits"] == {"email": "ada@example.com", "age": 36}


def test_traits_are_sealed_unless_they_are_attributes() -> None:
    traits = {"city": "Wien", "age": 36, "vip": True, "plan": None, "name": None, "address": {"zip": "1010"}}
    parts = split({}, {}, traits, NO_RULES, frozenset({"city", "plan"}))
    assert parts.traits == {"city": "Wien", "plan": None}
    assert parts.sealed["traits"] == {"age": 36, "vip": True, "name": None, "address": {"zip": "1010"}}
    assert parts.names == ["traits.address", "traits.age", "traits.name", "traits.vip"]


def test_what_stands_for_an_identifier_is_always_sealed() -> None:
    stand_in = ref(bytes(16), "email")
    declared = Declared({CUSTOM: {"email": False}}, frozenset({"email"}))
    rules = clear_rules(declared, CUSTOM, None)
    parts = split(
        {"email": stand_in, "list": [stand_in, 5]}, {"device": {"id": stand_in, "type": "ios"}}, {"email": stand_in},
        rules, declared.attributes,
    )  # fmt: skip
    assert (parts.properties, parts.traits) == ({}, {})
    assert parts.names == ["context.device.id", "properties.email", "properties.list", "traits.email"]


def test_declarations_of_the_retail_pack_are_read() -> None:
    declared = declared_of(json.loads(to_json(parse_documents(load_pack("retail")))))
    assert declared.properties["complaint.opened"]["topic"] is False
    assert {"city", "plan"} <= declared.attributes
    assert "topic" in clear_rules(declared, "complaint.opened", "Complaint Opened").names
    assert declared_of({}) == NOTHING_DECLARED
