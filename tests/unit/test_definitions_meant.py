"""Definitions as people write them: SDKs' names, nested paths, other types as text; and what can never hold."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from projections.aggregates.phrases import chosen
from projections.decide.evaluator import compile_evaluator
from projections.definitions.checks import warn
from projections.definitions.files import from_json, parse_documents
from projections.fold.fold import compile_fold
from schemas.clear_rules import clear_rules, declared_of
from schemas.definitions import Definitions, plain, to_json
from schemas.errors import DefinitionsInvalid
from schemas.record import Sealed, encode, to_us
from tests.records import START, record

AT = to_us(datetime(2026, 3, 1, tzinfo=UTC))


def definitions(text: str) -> Definitions:
    return parse_documents([("d.yaml", text)])


def decided(text: str, *records: Any, opened: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """Computed traits and segments after some records. `opened`: what their sealed parts hold."""
    defs = definitions(text)
    fold = compile_fold(defs, time_zone="UTC", currency="USD")
    state = fold.new_state()
    for each in records:
        event = fold.decode(encode(each))
        event.partition, event.offset = 0, 0
        fold.apply(event, state, opened if fold.needs_sealed(event) else None)
    evaluator = compile_evaluator(defs, fold, time_zone="UTC")
    personal = (opened or {}).get("traits")
    return evaluator.values(state, AT), evaluator.names_of(evaluator.decide(state, AT, personal).segments)


def sealing(found: Any, *names: str) -> Any:
    return msgspec.structs.replace(found, sealed=Sealed(found.route_key, list(names), "AAAA"))


USER = [("user_id", "u")]


# ---------------------------------------------------------------- names of events


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("Signed Up", "account.signed_up"),
        ("signed_up", "account.signed_up"),
        ("login", "account.signed_in"),
        ("page", "web.page_viewed"),
        ("Opened Email", "email.opened"),
        ("view_item", "product.viewed"),
    ],
)
def test_an_events_name_means_its_touchpoint(name: str, type_: str) -> None:
    text = f'computed_traits: {{n: {{aggregate: count, events: ["{name}"]}}}}'
    found, _ = decided(text, record(USER, "1", type_=type_), record(USER, "2", type_="custom", name="other"))
    assert found == {"n": 1}


def test_an_order_by_its_name_is_counted_once_like_any_order() -> None:
    text = 'computed_traits: {n: {aggregate: count, events: ["Order Completed"]}}'
    order = {"order_id": "o", "revenue": "5", "currency": "USD"}
    found, _ = decided(
        text,
        record(USER, "1", type_="purchase.completed", name="Order Completed", properties=order),
        record(USER, "3", type_="purchase.completed", properties=order),
    )
    assert found == {"n": 1}
    trait = definitions(text).computed_traits["n"]
    assert trait.events == ("purchase.completed",)
    assert chosen(trait) == "orders"


def test_what_older_builds_kept_as_custom_under_the_name_counts_too() -> None:
    text = 'computed_traits: {n: {aggregate: count, events: ["Opened Email"]}}'
    found, _ = decided(
        text, record(USER, "1", type_="custom", name="Opened Email"), record(USER, "2", type_="email.opened")
    )
    assert found == {"n": 2}
    assert chosen(definitions(text).computed_traits["n"]) == "email.opened events"
    assert from_json(to_json(definitions(text))) == definitions(text)


def test_a_plain_word_means_a_custom_event() -> None:
    found, _ = decided(
        "computed_traits: {n: {aggregate: count, events: [click]}}",
        record(USER, "1", type_="custom", name="click"),
        record(USER, "2", type_="product.clicked"),
    )
    assert found == {"n": 1}


def test_a_declaration_under_an_events_name_is_of_its_touchpoint() -> None:
    declared = declared_of(plain(definitions('properties: {"Signed Up": {plan: {personal: false}}}')))
    assert "plan" in clear_rules(declared, "account.signed_up", "sign_up").names


# ---------------------------------------------------------------- nested paths


def where(prop: str, op: str, value: str) -> str:
    told = "" if value == "" else f", value: {value}"
    return (
        f'computed_traits: {{n: {{aggregate: count, events: [quoted], where: {{property: "{prop}", op: {op}{told}}}}}}}'
    )


QUOTE = {
    "cart": {"total": 80, "tags": ["a", "b"], "owner": {"plan": "pro"}},
    "products": [{"sku": "A", "price": "5"}, {"sku": "B", "price": "50"}],
    "flat.name": "x",
}


@pytest.mark.parametrize(
    ("prop", "op", "value", "holds"),
    [
        ("cart.total", "gte", "50", True),
        ("cart.total", "lt", "50", False),
        ("cart.owner.plan", "eq", "pro", True),
        ("cart.owner.plan", "ne", "pro", False),
        ("cart.owner.gone", "missing", "", True),
        ("cart.owner.gone", "ne", "pro", True),
        ("cart.tags", "contains", "b", True),
        ("cart.tags", "contains", "c", False),
        ("cart.tags[]", "eq", "b", True),
        ("products[].sku", "eq", "B", True),
        ("products[].sku", "in", "[C, A]", True),
        ("products[].sku", "not_in", "[C, A]", False),
        ("products.sku", "eq", "B", True),
        ("products[].price", "gt", "40", True),
        ("products[].price", "gt", "60", False),
        ("products.0.sku", "eq", "A", True),
        ("products[].gone", "exists", "", False),
        ("flat.name", "eq", "x", True),
    ],
)
def test_a_path_leads_into_objects_and_lists(prop: str, op: str, value: str, holds: bool) -> None:
    quoted = record(USER, "1", type_="custom", name="quoted", properties=QUOTE)
    assert decided(where(prop, op, value), quoted)[0] == {"n": int(holds)}
    sealed = sealing(record(USER, "1", type_="custom", name="quoted"), "properties.cart", "properties.products",
                     "properties.flat.name")  # fmt: skip
    assert decided(where(prop, op, value), sealed, opened={"properties": QUOTE})[0] == {"n": int(holds)}


def test_a_path_joins_what_is_clear_in_a_line_with_what_is_sealed() -> None:
    lines = record(USER, "1", type_="custom", name="quoted", properties={"products": [{"sku": "A"}, {"sku": "B"}]})
    sealed = sealing(lines, "properties.products.1.engraving")
    inside = {"properties": {"products": {"1": {"engraving": "For Ada"}}}}
    text = where("products[].engraving", "starts_with", "For")
    assert decided(text, sealed, opened=inside)[0] == {"n": 1}
    assert decided(where("products[].sku", "eq", "B"), sealed, opened=inside)[0] == {"n": 1}


def test_a_path_leads_into_the_context_clear_or_sealed() -> None:
    text = where("context.campaign.name", "eq", "spring")
    clear = msgspec.structs.replace(
        record(USER, "1", type_="custom", name="quoted"), context={"campaign": {"name": "spring"}}
    )
    assert decided(text, clear)[0] == {"n": 1}
    sealed = sealing(record(USER, "1", type_="custom", name="quoted"), "context.campaign")
    assert decided(text, sealed, opened={"context": {"campaign": {"name": "spring"}}})[0] == {"n": 1}
    assert decided(where("context.locale", "starts_with", "de"), clear)[0] == {"n": 0}


def test_a_value_at_a_path_is_summed_and_a_personal_one_never_kept() -> None:
    quoted = record(USER, "1", type_="custom", name="quoted", properties=QUOTE)
    total = "computed_traits: {n: {aggregate: sum, of: cart.total, events: [quoted]}}"
    assert decided(total, quoted, quoted)[0] == {"n": 160}
    last = "computed_traits: {n: {aggregate: last, of: cart.owner.email, events: [quoted]}}"
    owner = record(USER, "1", type_="custom", name="quoted", properties={"cart": {"owner": {"email": "a@example.com"}}})
    assert decided(last, owner)[0] == {"n": None}


def test_the_name_of_a_page_is_its_property_name() -> None:
    text = "computed_traits: {n: {aggregate: count, events: [page], where: {property: name, op: eq, value: Pricing}}}"
    pages = [record(USER, str(n), name=name) for n, name in enumerate(("Pricing", "Home", "Pricing"))]
    assert decided(text, *pages)[0] == {"n": 2}


ADDRESS = (
    'traits: {"address.city": {personal: %s}}\nsegments: {paris: {when: {trait: "address.city", op: eq, value: Paris}}}'
)


@pytest.mark.parametrize("personal", ["false", "true"])
def test_a_trait_inside_an_object_is_a_trait(personal: str) -> None:
    text = ADDRESS % personal
    sealed = sealing(record(USER, "1", type_="profile.identified"), "traits.address")
    assert decided(text, sealed, opened={"traits": {"address": {"city": "Paris"}}})[1] == (
        ["paris"] if personal == "false" else []  # a direct trait is opened where it is decided
    )
    clear = record(USER, "1", type_="profile.identified", traits={"address": {"city": "Paris", "zip": "75001"}})
    moved = record(USER, "2", type_="profile.identified", traits={"address": {"zip": "0150"}}, at=START.replace(day=2))
    if personal == "false":
        assert decided(text, clear)[1] == ["paris"]
        assert decided(text, moved, clear)[1] == []


# ---------------------------------------------------------------- other types as text


@pytest.mark.parametrize(
    ("sent", "op", "value", "holds"),
    [
        ("true", "eq", "true", True),
        ("TRUE", "eq", "true", True),
        ("1", "eq", "true", True),
        (1, "eq", "true", True),
        ("no", "eq", "false", True),
        ("maybe", "eq", "true", False),
        ("maybe", "eq", "false", False),
        (True, "eq", '"true"', True),
        (False, "in", '["false", "x"]', True),
        (30, "eq", '"30"', True),
        (30.5, "in", '["30.5"]', True),
        ("30", "eq", "30", True),
        ("100", "gte", "30", True),
        ("2024-05-31T08:00:00Z", "eq", "2024-05-31", True),
        ("2024-12-31T23:30:00Z", "between", "[2024-01-01, 2024-12-31]", True),
        ("2025-01-01T00:30:00+01:00", "lte", "2024-12-31", True),
        ("2024-06-01 10:00:00", "gt", "2024-05-31", True),
        ("soon", "gt", "2024-05-31", False),
        ("blue", "eq", "blue", True),
        ("blue", "gt", "apple", True),
    ],
)
def test_booleans_numbers_and_times_compare_as_text_too(sent: object, op: str, value: str, holds: bool) -> None:
    quoted = record(USER, "1", type_="custom", name="quoted", properties={"p": sent, "q": {"p": sent}})
    assert decided(where("p", op, value), quoted)[0] == {"n": int(holds)}
    assert decided(where("q.p", op, value), quoted)[0] == {"n": int(holds)}
    trait = f"traits: {{p: {{personal: false}}}}\nsegments: {{s: {{when: {{trait: p, op: {op}, value: {value}}}}}}}"
    said = record(USER, "1", type_="profile.identified", traits={"p": sent})
    assert decided(trait, said)[1] == (["s"] if holds else [])


def test_a_trait_declared_boolean_reads_its_text() -> None:
    text = "traits: {b: {personal: false, type: boolean}}\nsegments: {s: {when: {trait: b, op: eq, value: true}}}"
    assert decided(text, record(USER, "1", type_="profile.identified", traits={"b": "true"}))[1] == ["s"]


# ---------------------------------------------------------------- what can never hold

COUNTED = "computed_traits: {n: {aggregate: count, events: [a]}, m: {aggregate: sum, of: x, events: [a]}}\n"


@pytest.mark.parametrize(
    ("when", "path"),
    [
        ("{trait: m, op: between, value: [100, 50]}", ".value"),
        ("{not: {trait: m, op: between, value: [100, 50]}}", ".not.value"),
        ("{all: [{trait: m, op: gt, value: 100}, {trait: m, op: lt, value: 50}]}", ".all[1]"),
        ("{all: [{trait: m, op: gt, value: 50}, {trait: m, op: lte, value: 50}]}", ".all[1]"),
        ("{all: [{trait: m, op: eq, value: 1}, {trait: m, op: eq, value: 2}]}", ".all[0]"),
        ("{all: [{trait: m, op: gt, value: 9}, {all: [{trait: m, op: lt, value: 5}]}]}", ".all[1].all[0]"),
        ("{all: [{trait: m, op: missing}, {trait: m, op: gt, value: 5}]}", ".all[0]"),
        ("{trait: n, op: lt, value: 0}", ".value"),
        ("{trait: n, op: eq, value: 2.5}", ".value"),
        ("{all: [{lifecycle: prospect}, {lifecycle: gone}]}", ".all[1]"),
        ("{all: [{segment: t}, {not: {segment: t}}]}", ".all[1]"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(when: str, path: str) -> None:
    plain_ = "{trait: m, op: gt, value: 5}"
    others = f"  t: {{when: {plain_}}}\nlifecycle: {{stages: [{{name: gone, when: {plain_}}}]}}"
    with pytest.raises(DefinitionsInvalid) as refused:
        definitions(f"{COUNTED}segments:\n  s: {{when: {when}}}\n{others}")
    (problem,) = refused.value.problems
    assert problem.path == f"segments.s.when{path}"
    assert "can never hold" in problem.reason


@pytest.mark.parametrize(
    "when",
    [
        "{trait: m, op: between, value: [50, 50]}",
        "{trait: m, op: between, value: [-5, 5]}",
        "{all: [{trait: m, op: gte, value: 50}, {trait: m, op: lte, value: 50}]}",
        "{any: [{trait: m, op: gt, value: 100}, {trait: m, op: lt, value: 50}]}",
        "{all: [{trait: m, op: missing}, {trait: m, op: ne, value: 5}]}",
        "{trait: m, op: lt, value: 0}",
        "{trait: n, op: in, value: [2.5, 3]}",
    ],
)
def test_what_can_hold_is_taken(when: str) -> None:
    assert "s" in definitions(f"{COUNTED}segments: {{s: {{when: {when}}}}}").segments


def test_a_where_is_held_to_the_same_and_lines_may_differ() -> None:
    with pytest.raises(DefinitionsInvalid, match="the lowest comes first"):
        definitions(where("size", "between", "[2024-05-01, 2024-01-01]"))
    both = '{all: [{property: "products[].sku", op: eq, value: A}, {property: "products[].sku", op: eq, value: B}]}'
    text = f"computed_traits: {{n: {{aggregate: count, events: [quoted], where: {both}}}}}"
    quoted = record(USER, "1", type_="custom", name="quoted", properties=QUOTE)
    assert decided(text, quoted)[0] == {"n": 1}


def test_stored_definitions_of_an_earlier_build_are_still_read() -> None:
    stored = (
        '{"computed_traits": {"m": {"aggregate": "sum", "of": "x", "events": ["a"]}},'
        ' "segments": {"s": {"when": {"trait": "m", "op": "between", "value": [100, 50]}}}}'
    )
    assert "s" in from_json(stored).segments


@pytest.mark.parametrize(
    ("prop", "warned"),
    [
        ("products[].sku", False),
        ("products[].engraving", True),
        ("context.campaign.name", False),
        ("context.locale", False),
        ("context.ip", True),
        ("context.page.url", True),
        ("event.flags", False),
        ("cart.total", True),
        ("open.total", False),
    ],
)
def test_a_path_is_said_to_be_sealed_only_where_it_is(prop: str, warned: bool) -> None:
    declared = "properties: {quoted: {open: {personal: false}}}\n"
    found = warn(definitions(declared + where(prop, "exists", "")))
    assert ([each.reason.partition(" is sealed")[0] for each in found] == [f"{prop} of quoted"]) is warned
    assert bool(found) is warned
    page = "computed_traits: {n: {aggregate: count, events: [page], where: {property: ip, op: exists}}}"
    assert [each.path for each in warn(definitions(page))] == ["computed_traits.n.where"]
