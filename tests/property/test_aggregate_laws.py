"""Every aggregate of the registry against the slow reference: in any order, split, merged, pruned and summed up.

One that has no reference fails here: `tests/reference_fold.py` has to say what it is without any of our code.
"""

from datetime import datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.aggregates.registry import AGGREGATES
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.fold.fold import compile_fold
from projections.fold.state import State
from schemas.record import to_us
from tests.aggregate_samples import definitions_of
from tests.property.test_evaluate_laws import cases, check_against_reference, check_due
from tests.property.test_fold_laws import folded, in_batches
from tests.reference_fold import Reference
from tests.strategies import Event

ZONE = "America/New_York"


def _evaluator(name: str) -> Evaluator:
    defs = definitions_of(AGGREGATES[name])
    return compile_evaluator(defs, compile_fold(defs, time_zone=ZONE, currency="USD"), time_zone=ZONE)


EVALUATORS = {name: _evaluator(name) for name in AGGREGATES}
names = pytest.mark.parametrize("name", sorted(AGGREGATES))


@names
@given(case=cases(), rnd=st.randoms(), groups=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_an_aggregate_is_what_the_reference_says_in_any_order_and_grouping(
    name: str, case: tuple[list[Event], datetime, tuple[str, str]], rnd: Random, groups: int
) -> None:
    check(EVALUATORS[name], case[0], case[1], rnd, groups)


@pytest.mark.long
@names
@given(case=cases(max_size=40), rnd=st.randoms(), groups=st.integers(1, 9))
@settings(max_examples=1_000, deadline=None)
def test_an_aggregate_is_what_the_reference_says_in_any_order_and_grouping_at_length(
    name: str, case: tuple[list[Event], datetime, tuple[str, str]], rnd: Random, groups: int
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
    last = state[2][0] if events else at_us
    expected = ev.values(state, at_us), ev.decide(state, at_us, None)
    today = ev.fold.days.day(max(at_us, last))
    ev.fold.sum_up(state, ev.fold.summaries.of(ev.fold.maps(state), today))
    assert (ev.values(state, at_us), ev.decide(state, at_us, None)) == expected


@names
@given(case=cases(max_size=8), rnd=st.randoms())
@settings(max_examples=8, deadline=None)
def test_an_aggregate_does_not_change_before_it_is_due(
    name: str, case: tuple[list[Event], datetime, tuple[str, str]], rnd: Random
) -> None:
    check_due(case[0], case[1], EVALUATORS[name], rnd, steps=4)


def test_an_aggregate_without_a_reference_is_noticed() -> None:
    defs = definitions_of(AGGREGATES["count"])
    unheard = defs.model_copy(
        update={"computed_traits": {"x": defs.computed_traits["t0"].model_copy(update={"aggregate": "unheard"})}}
    )
    slow = Reference(unheard, [], datetime.fromisoformat("2024-01-01T00:00:00Z"), ZONE, "USD")
    with pytest.raises(KeyError, match="unheard"):
        slow.value("x")
