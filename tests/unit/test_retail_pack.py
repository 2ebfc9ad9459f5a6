"""The retail pack: what it must define, and that it does what it says on a customer's life."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from projections.decide.evaluator import Decision, Evaluator, compile_evaluator
from projections.definitions.checks import warn
from projections.definitions.files import load_pack, parse_documents
from projections.definitions.merge import merge
from projections.fold.fold import compile_fold
from projections.fold.state import State
from schemas.definitions import Definitions
from schemas.record import to_us
from tests.unit.test_fold import NOON, event

PACK = merge(Definitions(), parse_documents(load_pack("retail")))[0]
FOLD = compile_fold(PACK, time_zone="UTC", currency="USD")
EVALUATOR: Evaluator = compile_evaluator(PACK, FOLD, time_zone="UTC")


def life(*records: bytes) -> State:
    state = FOLD.new_state()
    for record in records:
        FOLD.apply(FOLD.decode(record), state, None)
    return state


def after(state: State, days: float) -> Decision:
    return EVALUATOR.decide(state, to_us(NOON + timedelta(days=days)), None)


def test_the_pack_has_the_promised_names_each_with_a_description_and_no_warning() -> None:
    promised = {
        "lifetime_orders", "lifetime_revenue", "last_order_at", "revenue_90d", "orders_90d", "days_since_order",
        "open_complaints",
    }  # fmt: skip
    assert promised <= PACK.computed_traits.keys()
    assert len(PACK.segments) >= 12
    assert set(PACK.stage_names) == {"prospect", "new", "active", "repeat", "at_risk", "lapsed", "won_back"}
    assert PACK.lifecycle is not None
    assert PACK.risk is not None
    described: list[Any] = [
        *PACK.computed_traits.values(),
        *PACK.segments.values(),
        *PACK.lifecycle.stages,
        *PACK.risk.rules,
    ]
    assert all(item.description for item in described)
    assert warn(PACK) == []
    assert "Customers whose" in EVALUATOR.sentence("vip")


def test_a_customer_passes_through_every_stage_with_time_alone_and_with_orders() -> None:
    assert after(life(event("web.page_viewed")), 0).stage == "prospect"
    one = [event("purchase.completed", order_id="o1", revenue="80")]
    assert [after(life(*one), days).stage for days in (0, 29.9, 30, 89.9, 90, 180)] == [
        "new", "new", "active", "active", "at_risk", "lapsed",
    ]  # fmt: skip
    two = [*one, event("pos.purchase", day=20, order_id="o2", revenue="20")]
    assert after(life(*two), 21).stage == "repeat"
    back = [*two, event("pos.purchase", day=220, order_id="o3", revenue="20")]
    assert after(life(*back), 221).stage == "won_back"
    cancelled = [*one, event("purchase.cancelled", day=1, order_id="o1")]
    assert after(life(*cancelled), 2).stage == "prospect"


def test_silence_makes_a_customer_at_risk_at_the_due_time_with_no_event_arriving() -> None:
    state = life(event("purchase.completed", revenue="80", order_id="o1"))
    at = to_us(NOON)
    seen: list[tuple[str, str]] = []
    for _ in range(40):
        decision = EVALUATOR.decide(state, at, None)
        if not seen or seen[-1] != (decision.stage, decision.risk):
            seen.append((decision.stage, decision.risk))
        if decision.due_at_us is None:
            break
        at = decision.due_at_us
    assert seen == [("new", "low"), ("active", "low"), ("at_risk", "medium"), ("lapsed", "medium")]


def test_an_open_complaint_and_silence_make_high_risk_with_reasons_until_it_is_resolved() -> None:
    records = [
        event("purchase.completed", revenue="80", order_id="o1"),
        event("complaint.opened", day=3, complaint_id="c1"),
        event("email.bounced", day=60),
    ]
    decision = after(life(*records), 95)
    assert (decision.risk, decision.points) == ("high", 5)
    assert decision.reasons == (("long_silence", 2), ("unresolved_complaint", 2), ("bounced_email", 1))
    resolved = after(life(*records, event("complaint.resolved", day=4, complaint_id="c1")), 95)
    assert (resolved.risk, [code for code, _ in resolved.reasons]) == ("medium", ["long_silence", "bounced_email"])


def test_revenue_is_net_of_refunds_and_orders_count_once() -> None:
    state = life(
        event("purchase.completed", order_id="o1", revenue="100.00"),
        event("pos.purchase", order_id="o1", revenue="100.00", day=0.1),
        event("purchase.refunded", order_id="o1", revenue="30.00", day=1),
        event("pos.purchase", order_id="o2", revenue="20.00", day=2),
    )
    found = EVALUATOR.values(state, to_us(NOON + timedelta(days=3)))
    assert (found["lifetime_orders"], found["lifetime_revenue"]) == (2, Decimal(90))
    assert (found["orders_90d"], found["revenue_90d"]) == (2, Decimal(90))
    assert (found["average_order"], found["largest_order"]) == (Decimal(60), Decimal(100))
    assert (found["last_order_at"], found["days_since_order"]) == (NOON + timedelta(days=2), 1)
    assert (found["open_complaints"], found["calls_30d"], found["refunds_90d"]) == (0, 0, 1)
