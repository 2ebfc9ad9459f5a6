"""distinct_count where a state does not hold all values: over events exact at any size, over orders to 1,024."""

from datetime import timedelta
from uuid import UUID

import pytest

from projections.decide.evaluator import compile_evaluator
from projections.definitions.files import parse_documents
from projections.fold.fold import compile_fold
from projections.orders import tree
from schemas.errors import DefinitionsInvalid
from schemas.record import to_us
from tests.property.test_fold_laws import capped, folded
from tests.strategies import START, Event

DEFINITIONS = parse_documents([("d.yaml", """
computed_traits:
  coupons: {aggregate: distinct_count, of: coupon, events: [purchase.completed]}
  pages: {aggregate: distinct_count, of: path, events: [web.page_viewed]}
segments:
  readers: {when: {trait: pages, op: gte, value: 100}}
""")])  # fmt: skip
FOLD = compile_fold(DEFINITIONS, time_zone="UTC", currency="USD")
EVALUATOR = compile_evaluator(DEFINITIONS, FOLD, time_zone="UTC")
AT_US = to_us(START + timedelta(days=1))


def event(number: int, type_: str, **properties: object) -> Event:
    return {
        "id": str(UUID(int=number)), "type": type_, "occurred_at": START, "properties": properties, "partition": 0,
        "offset": number,
    }  # fmt: skip


def test_over_events_it_is_exact_beyond_the_cap_of_a_state() -> None:
    events = [event(i, "web.page_viewed", path=f"/{i % 700}") for i in range(1_400)]
    state = capped(FOLD, events)
    assert FOLD.overflowed(state), "700 values are not in the state"
    maps = FOLD.maps(folded(FOLD, events))
    today = FOLD.days.day(AT_US)
    nodes = tree.grown(FOLD.summaries, {}, tree.split(maps), today)
    FOLD.sum_up(state, nodes[tree.ROOT].summary)
    assert EVALUATOR.values(state, AT_US) == {"pages": 700, "coupons": 0}
    assert EVALUATOR.names_of(EVALUATOR.decide(state, AT_US, None).segments) == ["readers"]


@pytest.mark.parametrize(("coupons", "value"), [(1_024, 1_024), (1_025, None)])
def test_over_orders_it_is_unknown_beyond_1024(coupons: int, value: int | None) -> None:
    events = [
        event(i, "purchase.completed", order_id=f"o{i}", revenue=5, coupon=f"C{i % coupons}") for i in range(1_100)
    ]
    state = folded(FOLD, events)
    assert EVALUATOR.values(state, AT_US)["coupons"] == coupons, "of the orders themselves it is exact"
    nodes = tree.grown(FOLD.summaries, {}, tree.split(FOLD.maps(state)), FOLD.days.day(AT_US))
    FOLD.sum_up(state, nodes[tree.ROOT].summary)
    assert EVALUATOR.values(state, AT_US)["coupons"] == value


@pytest.mark.parametrize(
    ("rest", "path", "reason"),
    [
        ("of: occurred_at, events: [a]", "of", "distinct_count does not work on times"),
        ("events: [a]", "of", "is missing; say which property distinct_count is of"),
        ("of: x, events: [a], window_days: 7", "window_days", "distinct_count has no window"),
    ],
)
def test_what_it_does_not_admit(rest: str, path: str, reason: str) -> None:
    with pytest.raises(DefinitionsInvalid) as refused:
        parse_documents([("d.yaml", f"computed_traits: {{x: {{aggregate: distinct_count, {rest}}}}}")])
    assert [problem.path for problem in refused.value.problems] == [f"computed_traits.x.{path}"]
    assert refused.value.problems[0].reason.startswith(reason)
