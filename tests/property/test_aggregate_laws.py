"""Every aggregate of the registry against the slow reference: in any order, split, merged, pruned and summed up.

One that has no reference fails here: `tests/reference_fold.py` has to say what it is without any of our code.
"""

from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.aggregates.registry import AGGREGATES
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.fold.fold import compile_fold
from projections.fold.state import State
from schemas.record import from_us, to_us
from tests.aggregate_samples import definitions_of
from tests.property.test_evaluate_laws import check_against_reference, check_due
from tests.property.test_fold_laws import folded, in_batches
from tests.reference_fold import Reference
from tests.strategies import TRICKY, Event, touchpoints

ZONE = "America/New_York"


def _evaluator(name: str) -> Evaluator:
    defs = definitions_of(AGGREGATES[name])
    return compile_evaluator(defs, compile_fold(defs, time_zone=ZONE, currency="USD"), time_zone=ZONE)


# Few kinds of events on few days, most of them at an edge of a window of another: what an aggregate tells apart.
_THEMES = (
    ("survey.answered", "web.page_viewed"),
    ("purchase.completed", "pos.purchase", "purchase.updated", "purchase.refunded", "pos.return", "purchase.cancelled"),
    ("complaint.opened", "complaint.escalated", "complaint.resolved"),
)
_days = st.builds(
    lambda days, us: TRICKY[0] + timedelta(days=days, microseconds=us),
    st.sampled_from((0, 0, 1, 2, 29, 30)),
    st.sampled_from((-1, 0, 0, 1)),
)
_later = st.sampled_from((0, 1, 2, 29, 29, 30, 60))
Dense = tuple[list[Event], datetime]


@st.composite
def dense(draw: st.DrawFn, max_size: int = 12) -> Dense:
    """Events, and a clock at an edge of one of them."""
    events = draw(touchpoints(max_size, _THEMES, _days))
    begin = draw(st.sampled_from(events))["occurred_at"] if events else TRICKY[0]
    edge = begin + timedelta(days=draw(_later))
    if draw(st.booleans()):  # the local midnight of that day
        days = EVALUATORS["count"].fold.days
        edge = from_us(days.start(days.day(to_us(edge))))
    return events, edge + timedelta(microseconds=draw(st.integers(-1, 0)))


EVALUATORS = {name: _evaluator(name) for name in AGGREGATES}
names = pytest.mark.parametrize("name", sorted(AGGREGATES))


@names
@given(case=dense(), rnd=st.randoms(), groups=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_an_aggregate_is_what_the_reference_says_in_any_order_and_grouping(
    name: str, case: Dense, rnd: Random, groups: int
) -> None:
    check(EVALUATORS[name], case[0], case[1], rnd, groups)


@pytest.mark.long
@names
@given(case=dense(max_size=40), rnd=st.randoms(), groups=st.integers(1, 9))
@settings(max_examples=1_000, deadline=None)
def test_an_aggregate_is_what_the_reference_says_in_any_order_and_grouping_at_length(
    name: str, case: Dense, rnd: Random, groups: int
) -> None:
    check(EVALUATORS[name], case[0], case[1], rnd, groups)


def check(ev: Evaluator, events: list[Event], at: datetime, rnd: Random, groups: int) -> None:
    check_against_reference(events, at, ev)
    fold, at_us = ev.fold, to_us(at)
    whole = folded(fold, events)
    expected, decision = ev.values(whole, at_us), ev.decide(whole, at_us, None)
    shuffled = rnd.sample(events, len(events))
    assert fold.pack(in_batches(fold, shuffled, rnd)) == fold.pack(whole)
    parts: list[State] = [fold.new_state() for _ in range(groups)]
    for event in shuffled:
        folded(fold, [event], rnd.choice(parts))
    merged = fold.merge(parts)
    assert fold.pack(merged) == fold.pack(whole)
    assert ev.values(fold.prune(merged, at_us), at_us) == expected
    check_summary(ev, events, at_us)
    assert ev.decide(merged, at_us, None) == decision


def check_summary(ev: Evaluator, events: list[Event], at_us: int) -> None:
    """What is over the cap is summed up, and says the same: values, decisions and when these may change."""
    state = folded(ev.fold, events)
    last = state[2][0] if state[2] else at_us
    expected = ev.values(state, at_us), ev.decide(state, at_us, None)
    today = ev.fold.days.day(max(at_us, last))
    ev.fold.sum_up(state, ev.fold.summaries.of(ev.fold.maps(state), today))
    assert (ev.values(state, at_us), ev.decide(state, at_us, None)) == expected


@names
@given(case=dense(max_size=8), rnd=st.randoms())
@settings(max_examples=8, deadline=None)
def test_an_aggregate_does_not_change_before_it_is_due(name: str, case: Dense, rnd: Random) -> None:
    check_due(case[0], case[1], EVALUATORS[name], rnd, steps=4)


def test_an_aggregate_without_a_reference_is_noticed() -> None:
    defs = definitions_of(AGGREGATES["count"])
    unheard = defs.model_copy(
        update={"computed_traits": {"x": defs.computed_traits["t0"].model_copy(update={"aggregate": "unheard"})}}
    )
    slow = Reference(unheard, [], datetime.fromisoformat("2024-01-01T00:00:00Z"), ZONE, "USD")
    with pytest.raises(KeyError, match="unheard"):
        slow.value("x")
