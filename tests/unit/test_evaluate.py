"""The evaluator: due times to the microsecond, direct traits, reasons, sentences."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import parse_documents
from projections.definitions.merge import merge
from projections.fold.fold import compile_fold
from projections.fold.state import State
from schemas.definitions import Definitions
from schemas.record import from_us, to_us
from tests.unit.test_fold import NOON, event

NEW_YORK = ZoneInfo("America/New_York")


def build(text: str, zone: str = "UTC") -> Evaluator:
    defs = merge(Definitions(), parse_documents([("t.yaml", text)]))[0]
    return compile_evaluator(defs, compile_fold(defs, time_zone=zone, currency="USD"), time_zone=zone)


def state_of(evaluator: Evaluator, *records: bytes) -> State:
    state = evaluator.fold.new_state()
    for record in records:
        evaluator.fold.apply(evaluator.fold.decode(record), state, None)
    return state


def segments(evaluator: Evaluator, state: State, at: datetime, personal: dict[str, Any] | None = None) -> list[str]:
    return evaluator.names_of(evaluator.decide(state, to_us(at), personal).segments)


SILENT = """
computed_traits: {since: {aggregate: days_since, events: [visit]}}
segments: {silent: {when: {trait: since, op: gt, value: 29}}}
"""


def test_days_since_is_due_to_the_microsecond_and_then_never_again() -> None:
    ev = build(SILENT)
    state = state_of(ev, event("visit"))
    due = ev.decide(state, to_us(NOON), None).due_at_us
    assert due is not None
    assert from_us(due) == NOON + timedelta(days=30)
    assert segments(ev, state, from_us(due - 1)) == []
    assert segments(ev, state, from_us(due)) == ["silent"]
    assert ev.decide(state, due, None).due_at_us is None


def test_a_window_is_due_when_the_oldest_day_leaves_at_local_midnight_across_the_change_of_clocks() -> None:
    ev = build(
        """
        computed_traits: {visits: {aggregate: count, events: [visit], window_days: 3}}
        segments: {here: {when: {trait: visits, op: gte, value: 1}}}
        """,
        "America/New_York",
    )
    at = datetime(2024, 3, 8, 23, 30, tzinfo=NEW_YORK)
    state = state_of(ev, event("visit", day=(at - NOON) / timedelta(days=1)))
    due = ev.decide(state, to_us(at), None).due_at_us
    assert due == to_us(datetime(2024, 3, 11, 0, 0, tzinfo=NEW_YORK))
    assert segments(ev, state, from_us(due - 1)) == ["here"]
    assert segments(ev, state, from_us(due)) == []


def test_a_number_of_days_beyond_the_calendar_is_never_due() -> None:
    ev = build(SILENT.replace("value: 29", "value: 99999999999"))
    assert ev.decide(state_of(ev, event("visit")), to_us(NOON), None).due_at_us is None


def test_what_no_condition_uses_is_never_due() -> None:
    ev = build("computed_traits: {visits: {aggregate: count, events: [visit], window_days: 3}}")
    state = state_of(ev, event("visit"))
    assert ev.decide(state, to_us(NOON), None).due_at_us is None
    assert ev.decide(ev.fold.new_state(), to_us(NOON), None) == (0, "prospect", "low", 0, (), None)


def test_a_condition_on_a_direct_trait_holds_where_its_value_was_opened() -> None:
    ev = build(
        """
        traits: {birthday: {type: time}, city: {personal: false}}
        segments:
          grown: {when: {trait: birthday, op: lt, value: 2006-05-01}}
          oslo: {when: {trait: city, op: eq, value: Oslo}}
        """
    )
    assert ev.needs_personal == {"birthday", "city"}
    record = event("profile.identified", traits={"city": "Oslo"})
    sealed = b'"sealed":{"key":"aa","names":["traits.birthday"],"data":""}}'
    state = state_of(ev, record[:-1] + b"," + sealed)
    assert ev.personal_positions(state) == {"birthday": (0, 0)}
    assert segments(ev, state, NOON) == ["oslo"]
    assert segments(ev, state, NOON, {"birthday": "1990-01-01"}) == ["grown", "oslo"]
    assert segments(ev, state, NOON, {"birthday": "unknown"}) == ["oslo"]


def test_reasons_come_by_points_then_code_and_add_up_to_a_level() -> None:
    ev = build(
        """
        computed_traits: {visits: {aggregate: count, events: [visit]}}
        risk:
          levels: {medium: 2, high: 4}
          rules:
            - {code: one, points: 1, when: {trait: visits, op: gte, value: 1}}
            - {code: alpha, points: 1, when: {trait: visits, op: gte, value: 1}}
            - {code: big, points: 2, when: {trait: visits, op: gte, value: 2}}
        """
    )
    assert ev.decide(state_of(ev, event("visit")), to_us(NOON), None)[2:5] == ("medium", 2, (("alpha", 1), ("one", 1)))
    both = ev.decide(state_of(ev, event("visit"), event("visit")), to_us(NOON), None)
    assert both[2:5] == ("high", 4, (("big", 2), ("alpha", 1), ("one", 1)))


@pytest.mark.parametrize(
    ("op", "value", "holds"),
    [("missing", None, True), ("exists", None, False), ("ne", 3, True), ("not_in", [3], True), ("eq", 3, False),
     ("lt", 3, False), ("gte", 0, False), ("in", [3], False), ("between", [0, 9], False)],
)  # fmt: skip
def test_a_missing_value_is_false_but_for_missing_ne_and_not_in(op: str, value: object, holds: bool) -> None:
    given = "" if value is None else f", value: {value}"
    ev = build(
        f"""
        computed_traits: {{score: {{aggregate: max, of: score, events: [survey.answered]}}}}
        segments: {{it: {{when: {{trait: score, op: {op}{given}}}}}}}
        """
    )
    assert bool(ev.decide(ev.fold.new_state(), to_us(NOON), None).segments) is holds


def test_values_are_integers_decimals_times_and_text_and_published_ones_a_part() -> None:
    ev = build(
        """
        computed_traits:
          orders: {aggregate: count, events: [pos.purchase], publish: true}
          spent: {aggregate: sum, of: revenue, events: [pos.purchase]}
          seen: {aggregate: max, of: occurred_at, events: ["*"]}
          coupon: {aggregate: last, of: coupon, events: [pos.purchase]}
          rating: {aggregate: first, of: rating, events: [pos.purchase]}
          none: {aggregate: min, of: rating, events: [nothing]}
        """
    )
    state = state_of(ev, event("pos.purchase", revenue="2.5", coupon="A", rating=4.5))
    assert ev.values(state, to_us(NOON)) == {
        "orders": 1, "spent": Decimal("2.5"), "seen": NOON, "coupon": "A", "rating": Decimal("4.5"), "none": None,
    }  # fmt: skip
    assert ev.published(state, to_us(NOON)) == {"orders": 1}
    assert not ev.ages("orders")


def test_a_segment_says_itself_in_plain_english() -> None:
    ev = build(
        """
        traits: {city: {personal: false}, member: {personal: false}}
        computed_traits: {revenue_90d: {aggregate: sum, of: revenue, events: [pos.purchase], window_days: 90}}
        segments:
          staff: {when: {trait: city, op: in, value: [Oslo, Rome]}}
          vip:
            when:
              all:
                - {trait: revenue_90d, op: gte, value: 500.5}
                - {not: {segment: staff}}
                - {any: [{lifecycle: prospect}, {not: {trait: member, op: eq, value: true}}]}
        """
    )
    assert ev.sentence("staff") == "Customers whose city is one of Oslo or Rome."
    assert ev.sentence("vip") == (
        "Customers whose revenue 90d is at least 500.5, who are not in segment staff and "
        "(who are in stage prospect or not (whose member is yes))."
    )


def test_an_evaluator_of_another_zone_is_refused() -> None:
    ev = build(SILENT)
    with pytest.raises(ValueError, match="days of UTC"):
        compile_evaluator(ev.definitions, ev.fold, time_zone="Europe/Berlin")
