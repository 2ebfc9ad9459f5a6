"""The fold: orders, money, traits, wrong types, overflow, sealed properties."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import parse_documents
from projections.definitions.merge import merge
from projections.fold import state as slots
from projections.fold.fold import Fold, compile_fold
from projections.fold.state import State
from projections.orders.tree import joined
from schemas.definitions import Definitions
from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.money import divide, scaled
from schemas.record import Identifier, Record, Sealed, encode, to_us
from tests.strategies import record_bytes

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
ORDERS = "events: [purchase.completed, pos.purchase, purchase.refunded, pos.return]"
SAMPLE = f"""
sources: {{till: {{rank: 1}}}}
rates: [{{currency: EUR, date: 2024-05-01, rate: 1.1}}, {{currency: EUR, date: 2024-05-03, rate: 1.2}}]
computed_traits:
  orders: {{aggregate: count, {ORDERS}}}
  net: {{aggregate: sum, of: revenue, {ORDERS}}}
  mean: {{aggregate: avg, of: revenue, {ORDERS}}}
  last_at: {{aggregate: max, of: occurred_at, {ORDERS}}}
  gap: {{aggregate: gap_days, {ORDERS}}}
  euros: {{aggregate: sum, of: revenue, {ORDERS}, where: {{property: currency, op: eq, value: EUR}}}}
  refunds: {{aggregate: count, events: [purchase.refunded, pos.return]}}
  secret: {{aggregate: count, events: [quiz], where: {{property: answer, op: eq, value: "42"}}}}
  kept: {{aggregate: last, of: answer, events: [quiz]}}
  open: {{aggregate: open_count, key: complaint_id, opens: [complaint.opened, complaint.escalated],
          closes: [complaint.resolved]}}
"""


def build(text: str = SAMPLE, cap: int | None = 8_192) -> tuple[Fold, Evaluator]:
    defs = merge(Definitions(), parse_documents([("t.yaml", text)]))[0]
    fold = compile_fold(defs, time_zone="UTC", currency="USD", order_cap=cap)
    return fold, compile_evaluator(defs, fold, time_zone="UTC")


FOLD, EVALUATOR = build()
_COUNTER = iter(range(1, 10**9))


def event(kind: str, day: float = 0, source: str = "web", traits: Any = None, **properties: Any) -> bytes:
    return record_bytes({
        "id": str(UUID(int=next(_COUNTER))), "type": kind, "source": source, "traits": traits or {},
        "occurred_at": NOON + timedelta(days=day), "properties": properties,
    })  # fmt: skip


def fold_all(*records: bytes, fold: Fold = FOLD) -> State:
    state = fold.new_state()
    for offset, record in enumerate(records):
        decoded = fold.decode(record)
        decoded.partition, decoded.offset = 3, offset
        fold.apply(decoded, state, None)
    fold.lay_off(state)
    return fold.unpack(fold.pack(state))


def values(*records: bytes) -> dict[str, Any]:
    return EVALUATOR.values(fold_all(*records), to_us(NOON + timedelta(days=400)))


def test_the_same_order_from_web_and_till_counts_once_by_the_higher_source() -> None:
    found = values(
        event("pos.purchase", source="till", order_id="o1", revenue="10.00"),
        event("purchase.completed", day=1, order_id="o1", revenue="12.00"),
    )
    assert (found["orders"], found["net"]) == (1, Decimal(10))


def test_between_equal_sources_the_later_stamp_holds() -> None:
    found = values(
        event("purchase.updated", day=1, order_id="o1", revenue="12.00"),
        event("purchase.completed", order_id="o1", revenue="10.00"),
        event("purchase.updated", day=2, order_id="o1", status="sent"),
    )
    assert (found["orders"], found["net"], found["last_at"]) == (1, Decimal(12), NOON)


def test_a_refund_lowers_sums_and_never_counts_also_without_its_base() -> None:
    assert values(event("purchase.refunded", order_id="o9", revenue="4"))["net"] == Decimal(-4)
    found = values(
        event("purchase.completed", order_id="o1", revenue="10"),
        event("pos.return", order_id="o1", revenue="-3"),
        event("purchase.refunded", day=1, order_id="o1", total="2.5"),
    )
    assert (found["orders"], found["net"], found["refunds"]) == (1, Decimal("4.5"), 2)
    assert found["mean"] == Decimal("4.5")


def test_a_cancelled_order_is_in_neither_sums_nor_counts_nor_are_its_refunds() -> None:
    found = values(
        event("purchase.cancelled", day=1, order_id="o1"),
        event("purchase.completed", order_id="o1", revenue="10"),
        event("purchase.refunded", order_id="o1", revenue="10"),
        event("purchase.completed", order_id="o2", revenue="1"),
        event("purchase.cancelled"),
    )
    assert (found["orders"], found["net"]) == (1, Decimal(1))


def test_an_order_lives_from_its_first_completion_whatever_changes_it_later() -> None:
    found = values(
        event("purchase.completed", day=3, source="till", order_id="o1", revenue="10"),
        event("purchase.completed", order_id="o1", revenue="12"),
        event("purchase.updated", day=9, order_id="o1", revenue="15"),
    )
    assert (found["orders"], found["net"], found["last_at"]) == (1, Decimal(10), NOON)
    assert values(event("purchase.updated", order_id="o1", revenue="15"))["orders"] == 0
    assert values(event("purchase.completed", order_id="o1", revenue=0))["orders"] == 0
    free = values(event("purchase.completed", order_id="o1", revenue=0, products=[{"sku": "a"}]))
    assert (free["orders"], free["net"]) == (1, Decimal(0))
    known = values(
        event("purchase.completed", order_id="o1", revenue="12"),
        event("purchase.completed", day=1, source="till", order_id="o1"),
    )
    assert (known["orders"], known["net"], known["last_at"]) == (1, Decimal(12), NOON)


def test_the_newest_of_cancels_and_completions_decides() -> None:
    bought, again = (event("purchase.completed", day=day, order_id="o1", revenue="10") for day in (0, 4))
    cancelled = event("purchase.cancelled", day=2, order_id="o1")
    refunded = event("purchase.refunded", day=1, order_id="o1", revenue="4")
    assert values(bought, cancelled, refunded)["net"] == 0
    assert values(bought, cancelled, refunded)["orders"] == 0
    found = values(bought, again, cancelled, refunded)
    assert (found["orders"], found["net"], found["last_at"]) == (1, Decimal(6), NOON)


def test_refunds_take_what_is_left_of_an_order_in_its_currency() -> None:
    order = event("purchase.completed", order_id="o1", revenue="100", currency="EUR")

    def euros(*refunds: bytes) -> dict[str, object]:
        found = values(order, *refunds)
        return {key: found[key] for key in ("net", "euros")}

    assert euros(event("purchase.refunded", day=4, order_id="o1", revenue="40")) == {"net": 66, "euros": 60}
    assert euros(event("purchase.refunded", day=4, order_id="o1")) == {"net": 0, "euros": 0}
    twice = [event("purchase.refunded", day=day, order_id="o1", revenue="70") for day in (1, 2)]
    assert euros(*twice) == {"net": 0, "euros": 0}
    dollars = event("purchase.refunded", day=4, order_id="o1", revenue="55", currency="USD")
    assert euros(dollars) == {"net": 55, "euros": 50}
    assert euros(dollars, twice[0]) == {"net": 0, "euros": 0}
    unknown = event("purchase.refunded", order_id="o1", products=[{"sku": "a", "quantity": 1}])
    assert euros(unknown) == {"net": Decimal(110), "euros": 100}
    assert EVALUATOR.unreadable_amounts(fold_all(order, unknown)) == 1


def test_copies_of_a_refund_count_once_by_the_higher_source() -> None:
    order = event("purchase.completed", order_id="o1", revenue="100")
    web = event("purchase.refunded", day=2, order_id="o1", refund_id="r1", revenue="30")
    assert values(order, web, web)["net"] == 70
    assert (
        values(order, event("purchase.refunded", day=3, order_id="o1", refund_id="r2", revenue="30"), web)["net"] == 40
    )
    till = event("pos.return", day=1, source="till", order_id=" o1", refund_id=" r1", revenue="20")
    assert values(order, web, till)["net"] == 80


def test_a_negative_sale_is_a_refund() -> None:
    order = event("pos.purchase", order_id="o1", revenue="100")
    found = values(order, event("pos.purchase", day=3, order_id="o1", revenue="-30"))
    assert (found["orders"], found["net"], found["last_at"]) == (1, Decimal(70), NOON)
    found = values(order, event("purchase.completed", day=3, revenue="(30.00)"))
    assert (found["orders"], found["net"], found["refunds"]) == (1, Decimal(70), 0)


def test_an_amount_that_cannot_be_read_is_unknown_and_counted() -> None:
    state = fold_all(
        event("purchase.completed", order_id="o1", revenue="9,999"),
        event("purchase.completed", order_id="o2", revenue="gratis"),
        event("purchase.completed", order_id="o3", revenue="9,99"),
        event("purchase.completed", order_id="o4", revenue="?"),
        event("purchase.completed", order_id="o4", revenue="5"),
    )
    assert EVALUATOR.unreadable_amounts(state) == 2
    found = EVALUATOR.values(state, to_us(NOON))
    assert (found["orders"], found["net"]) == (4, Decimal("14.99"))
    comma, evaluator = build(SAMPLE.replace("{rank: 1}", '{rank: 1}, web: {numbers: {decimal: ","}}'))
    assert comma.layout_hash != FOLD.layout_hash
    state = fold_all(event("purchase.completed", revenue="9.999"), event("pos.purchase", revenue="1.5"), fold=comma)
    assert evaluator.values(state, to_us(NOON))["net"] == Decimal("10000.5")


def test_what_an_earlier_door_sealed_of_an_order_is_read() -> None:
    token = "ab" * 16
    record = Record(
        v=1, id=str(UUID(int=77)), type="purchase.completed", source="web", ids=[Identifier("user_id", token)],
        route_key=token, occurred_at=NOON, received_at=NOON, known_at=NOON, digest="00" * 16,
        sealed=Sealed(token, ["properties.items", "properties.transaction_id", "properties.value"], ""),
    )  # fmt: skip
    decoded = FOLD.decode(encode(record))
    assert FOLD.needs_sealed(decoded)
    state = FOLD.new_state()
    FOLD.apply(decoded, state, {"properties": {"transaction_id": 1001, "value": "20", "items": [{"price": 4}]}})
    assert [(each[slots.O_ID], each[slots.O_OWN]) for each in state[slots.ORDERS]] == [("1001", 200000)]
    state = FOLD.new_state()
    FOLD.apply(decoded, state, {"properties": {"transaction_id": "ada@example.com", "items": [{"price": 4}]}})
    assert [(each[slots.O_ID], each[slots.O_OWN]) for each in state[slots.ORDERS]] == [(record.id, 40000)]


def test_orders_without_an_id_are_orders_of_their_own() -> None:
    found = values(event("pos.purchase", revenue=1), event("pos.purchase", revenue=2, day=3))
    assert (found["orders"], found["net"], found["gap"]) == (2, Decimal(3), 3)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"revenue": "5.5", "total": 9}, "5.5"),
        ({"total": 9}, "9"),
        ({"revenue": "x", "total": 9}, "9"),
        ({"products": [{"amount": "1.10", "price": 9}, {"amount": 2}, {"price": 7}]}, "10.1"),
        ({"products": [{"price": "1.10", "quantity": 3}, {"price": 2}, {"sku": "a"}]}, "5.3"),
        ({"products": [{"price": "0.33335", "quantity": "1.5"}]}, "0.5001"),
        ({"products": "none", "total": [1]}, "0"),
        ({"products": {"price": 3}}, "0"),
        ({"revenue": {"amount": 3}}, "0"),
        ({"revenue": True, "total": None}, "0"),
        ({"revenue": 1e300}, "0"),
    ],
)
def test_revenue_is_revenue_else_total_else_from_the_lines_and_wrong_types_are_missing(
    properties: dict[str, Any], expected: str
) -> None:
    found = values(event("purchase.completed", **properties))
    assert (found["orders"], found["net"]) == (1, Decimal(expected))


def test_money_is_converted_by_the_newest_rate_of_its_day_and_a_missing_rate_is_counted() -> None:
    state = fold_all(
        event("purchase.completed", day=-1, revenue="10", currency="EUR"),
        event("purchase.completed", day=0, revenue="10", currency="eur"),
        event("purchase.completed", day=4, revenue="10", currency="EUR"),
        event("purchase.refunded", day=4, revenue="1", currency="EUR"),
        event("purchase.completed", revenue="7", currency="JPY"),
        event("purchase.completed", revenue="5"),
    )
    found = EVALUATOR.values(state, to_us(NOON))
    assert found["net"] == Decimal("5") + Decimal("11") + Decimal("12") - Decimal("1.2")
    assert found["euros"] == Decimal(29)
    assert found["orders"] == 5
    assert EVALUATOR.revenue_by_currency(state) == [
        ("EUR", Decimal(29)), ("JPY", Decimal(7)), ("USD", Decimal(5)),
    ]  # fmt: skip
    assert EVALUATOR.missing_rate(state) == 2


def test_a_map_over_its_cap_becomes_overflow_for_good_and_folds_without_cap() -> None:
    records = [event("pos.purchase", order_id=f"o{i}", revenue=1) for i in range(4)]
    capped, evaluator = build(cap=3)
    state = fold_all(*records, fold=capped)
    assert capped.overflowed(state)
    assert capped.overflowed(capped.merge([capped.new_state(), state]))
    assert evaluator.values(state, to_us(NOON))["orders"] is None
    half = [fold_all(*part, fold=capped) for part in (records[:2], records[2:])]
    assert not capped.overflowed(half[0])
    assert capped.pack(capped.merge(half)) == capped.pack(state)
    free, evaluator = build(cap=None)
    assert evaluator.values(fold_all(*records, fold=free), to_us(NOON))["orders"] == 4


def test_what_is_laid_off_with_what_is_folded_later_is_all_there_is() -> None:
    records = [event("pos.purchase", order_id=f"o{i}", revenue=1) for i in range(6)]
    capped, evaluator = build(cap=3)
    state = capped.new_state()
    laid = []
    for part in (records[:4], records[4:5], records[4:]):
        lifted = capped.lift(state)
        for record in part:
            capped.apply(capped.decode(record), state, None)
        laid.append(capped.lay_off(state, lifted))
    assert [maps and len(maps[0]) for maps in laid] == [4, 1, 2]
    lifted = capped.lift(state)
    assert capped.lay_off(state, lifted) is None
    whole = joined([maps for maps in laid if maps], len(capped.maps(state)))
    capped.sum_up(state, capped.summaries.of(whole, 0))
    assert evaluator.values(capped.unpack(capped.pack(state)), to_us(NOON))["orders"] == 6


def test_a_complaint_is_open_until_its_newest_event_resolves_it() -> None:
    opened = event("complaint.opened", complaint_id="c1")
    resolved = event("complaint.resolved", day=1, complaint_id="c1")
    assert values(opened)["open"] == 1
    assert values(resolved, opened)["open"] == 0
    assert values(resolved, opened, event("complaint.escalated", day=2, complaint_id="c1"))["open"] == 1
    assert values(event("complaint.opened"), event("complaint.opened", complaint_id=["x"]))["open"] == 1


def test_the_newest_stamp_sets_a_trait_null_unsets_it_and_sealed_ones_keep_their_position() -> None:
    old = event("profile.identified", day=-1, traits={"city": "Oslo", "plan": "gold", "tags": {"b": 1.5, "a": 2}})
    new = event("profile.identified", traits={"plan": None})
    token = "ab" * 16
    record = Record(
        v=1, id=str(UUID(int=next(_COUNTER))), type="profile.identified", source="web",
        ids=[Identifier("user_id", token)], route_key=token, occurred_at=NOON, received_at=NOON, known_at=NOON,
        digest="00" * 16, sealed=Sealed(token, ["traits.first_name", "traits.address.street", "context.ip"], ""),
    )  # fmt: skip
    for order in ([new, old, encode(record)], [encode(record), old, new]):
        state = fold_all(*order)
        assert EVALUATOR.attributes(state) == {"city": "Oslo", "tags": {"a": 2, "b": Decimal("1.5")}}
        assert EVALUATOR.personal_names(state) == ["address.street", "first_name"]
        where = order.index(encode(record))
        assert EVALUATOR.personal_positions(state, frozenset({"first_name"})) == {"first_name": (3, where)}
    assert EVALUATOR.first_seen(state) == NOON - timedelta(days=1)
    assert EVALUATOR.last_seen(state) == NOON
    assert EVALUATOR.event_count(state) == 3


def sealed_quiz() -> Record:
    token = "ab" * 16
    return Record(
        v=1, id=str(UUID(int=5)), type="custom", name="quiz", source="web", ids=[Identifier("user_id", token)],
        route_key=token, occurred_at=NOON, received_at=NOON, known_at=NOON, digest="00" * 16,
        sealed=Sealed(token, ["properties.answer"], ""),
    )  # fmt: skip


def test_a_sealed_property_counts_as_a_clear_one_does() -> None:
    """What was received sealed is not missing where a definition reads it: the states are those of clear ones."""
    decoded = FOLD.decode(encode(sealed_quiz()))
    assert FOLD.needs_sealed(decoded)
    states = [FOLD.new_state(), FOLD.new_state()]
    FOLD.apply(decoded, states[0], {"properties": {"answer": "42"}})
    clear = sealed_quiz()
    clear.sealed, clear.properties = None, {"answer": "42"}
    FOLD.apply(FOLD.decode(encode(clear)), states[1], None)
    assert states[0] == states[1]
    found = EVALUATOR.values(states[0], to_us(NOON))
    assert (found["secret"], found["kept"]) == (1, "42")
    assert not FOLD.needs_sealed(FOLD.decode(event("pos.purchase", answer="42")))


@pytest.mark.parametrize("event_name", ["quiz", "*"])
def test_a_property_that_is_declared_personal_is_compared_when_opened_and_never_kept(event_name: str) -> None:
    fold, evaluator = build(SAMPLE + f'properties: {{"{event_name}": {{answer: {{personal: true}}}}}}\n')
    decoded = fold.decode(encode(sealed_quiz()))
    assert fold.needs_sealed(decoded)
    state = fold.new_state()
    fold.apply(decoded, state, {"properties": {"answer": "42"}})
    found = evaluator.values(state, to_us(NOON))
    assert (found["secret"], found["kept"]) == (1, None)
    assert b"42" not in fold.pack(state)
    assert fold.layout_hash != FOLD.layout_hash, "the past is folded again"


def test_what_is_no_record_is_unreadable_and_a_newer_one_stops_the_reader() -> None:
    with pytest.raises(RecordUnreadable):
        FOLD.decode(b'{"v": 1}')
    with pytest.raises(RecordUnreadable):
        FOLD.decode(event("pos.purchase").replace(b'"id":"', b'"id":"x'))
    with pytest.raises(ReaderTooOld):
        FOLD.decode(event("pos.purchase").replace(b'"v":2', b'"v":3'))
    with pytest.raises(ReaderTooOld):
        FOLD.decode(b'{"v": 3, "ids": {"another": "shape"}}')


def test_sums_beyond_64_bits_survive_their_bytes() -> None:
    records = [event("quiz_money", amount="99999999999999") for _ in range(30)]
    fold, evaluator = build("computed_traits: {total: {aggregate: sum, of: amount, events: [quiz_money]}}")
    state = fold_all(*records, fold=fold)
    assert evaluator.values(state, to_us(NOON))["total"] == 30 * Decimal("99999999999999")
    assert fold.merge([state, fold.new_state()]) == state


def test_equal_layouts_have_equal_hashes_and_a_segment_does_not_change_them() -> None:
    segment = "segments: {some: {when: {trait: orders, op: gte, value: 1}}}"
    assert build(SAMPLE + segment)[0].layout_hash == FOLD.layout_hash
    assert build(SAMPLE.replace("rank: 1", "rank: 2"))[0].layout_hash != FOLD.layout_hash
    assert FOLD.new_state()[slots.EVENT_COUNT] == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12.345", 123450), ("-0.5", -5000), (".5", 5000), ("1e3", 10_000_000), (2.55, 25500), ("0.00005", 0),
     ("0.00015", 2), ("1_0", None), ("٣", None), ("", None), ("-", None), ("nan", None), (10**14, None),
     (True, None), (None, None), ([1], None), ("+3", 30000), ("1.23456", 12346)],
)  # fmt: skip
def test_scaled_reads_numbers_and_decimal_text_alone(value: object, expected: int | None) -> None:
    assert scaled(value) == expected


def test_division_rounds_halves_to_even() -> None:
    assert [divide(n, 2) for n in (1, 3, 5, -1, -3)] == [0, 2, 2, 0, -2]


def correction(name: str, day: float = 0, sealed: bool = False, **traits: Any) -> bytes:
    return record_bytes({
        "id": str(UUID(int=next(_COUNTER))), "type": "trait.corrected", "name": name, "traits": traits,
        "occurred_at": NOON + timedelta(days=day), "sealed": [name] if sealed else [],
    })  # fmt: skip


def test_a_correction_outranks_every_source_until_a_newer_one_or_its_withdrawal() -> None:
    said = event("profile.identified", traits={"city": "Oslo"})
    later = event("profile.identified", day=9, traits={"city": "Rome"})
    corrected, newer = correction("city", 2, city="Bern"), correction("city", 3, city="Graz")
    withdrawn, unset = correction("city", 4), correction("city", 5, city=None)

    def city(*records: bytes) -> Any:
        found = EVALUATOR.attributes(fold_all(*records))
        assert EVALUATOR.attributes(fold_all(*reversed(records))) == found
        return found.get("city")

    assert city(said, corrected, later) == "Bern"
    assert city(said, corrected, newer, later) == "Graz"
    assert city(said, corrected, newer, withdrawn, later) == "Rome"
    assert city(said, corrected, withdrawn) == "Oslo"
    assert city(said, corrected, unset, later) is None
    assert city(correction("city", city="Bern")) == "Bern"


def test_a_sealed_correction_keeps_its_position_under_the_traits_own_name() -> None:
    record = correction("last_name", 2, sealed=True)
    state = fold_all(event("profile.identified", traits={"city": "Oslo"}), record)
    assert EVALUATOR.personal_names(state) == ["last_name"]
    assert EVALUATOR.personal_positions(state, frozenset({"last_name"})) == {"last_name": (3, 1)}
