"""The generated evaluator against a slow reference over raw events, and the law of due times."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projections.evaluate import Evaluator, compile_evaluator
from projections.fold import compile_fold
from projections.state import State
from schemas.definitions import Definitions, load_pack, merge, parse_documents
from schemas.record import from_us, to_us

from tests.definition_samples import everything
from tests.property.test_fold_laws import folded
from tests.reference_fold import Reference
from tests.strategies import START, TRICKY, Event, touchpoints

RETAIL = merge(Definitions(), parse_documents(load_pack("retail")))[0]
ZONES = ("America/New_York", "Europe/Berlin")


def evaluator(defs: Definitions, zone: str) -> Evaluator:
    return compile_evaluator(defs, compile_fold(defs, time_zone=zone, currency="USD"), time_zone=zone)


EVALUATORS = {(name, zone): evaluator(defs, zone) for name, defs in
              (("everything", everything()), ("retail", RETAIL)) for zone in ZONES}  # fmt: skip
which = st.sampled_from(sorted(EVALUATORS))
clocks = st.one_of(
    st.sampled_from(TRICKY),
    st.integers(0, 500 * 86_400_000_000).map(lambda us: START + timedelta(microseconds=us)),
)
DIRECT = {"birthday": "1990-05-17", "city": "Oslo"}


def check_against_reference(events: list[Event], at: datetime, which: tuple[str, str]) -> None:
    ev = EVALUATORS[which]
    state = folded(ev.fold, events)
    slow = Reference(ev.definitions, events, at, which[1], "USD")
    expected = {name: slow.value(name) for name in ev.trait_names}
    assert ev.values(state, to_us(at)) == expected
    decision = ev.decide(state, to_us(at), DIRECT)
    segments, stage, codes = slow.decide(DIRECT)
    assert set(ev.names_of(decision.segments)) == segments
    assert (decision.stage, [code for code, _ in decision.reasons]) == (stage, codes)
    assert decision.points == sum(points for _, points in decision.reasons)


def check_due(events: list[Event], at: datetime, which: tuple[str, str], rnd: Random) -> None:
    ev = EVALUATORS[which]
    state = folded(ev.fold, events)
    now = to_us(at)
    start = max(now, state[2][0]) if events else now
    first = ev.decide(state, now, DIRECT)
    due = first.due_at_us
    assert due is None or due > start
    end = due if due is not None else start + 20 * 366 * 86_400_000_000
    for instant in instants(start, end, ev, rnd):
        assert ev.decide(state, instant, DIRECT)[:5] == first[:5], from_us(instant)


def instants(start: int, end: int, ev: Evaluator, rnd: Random) -> list[int]:
    """Between two instants: the last microsecond, local midnights, full days, and some at random."""
    days = ev.fold.days
    picks = [start, end - 1]
    picks += [rnd.randint(start, end - 1) for _ in range(4)]
    for day in range(days.day(start) + 1, min(days.day(start) + 45, days.day(end) + 1)):
        picks += [days.start(day) - 1, days.start(day)]
    picks += [start + k * 86_400_000_000 for k in range(40)]
    return [us for us in picks if start <= us < end]


@given(touchpoints(), clocks, which)
@settings(max_examples=150, deadline=None)
def test_values_and_decisions_equal_the_slow_reference(
    events: list[Event], at: datetime, which: tuple[str, str]
) -> None:
    check_against_reference(events, at, which)


@pytest.mark.long
@given(touchpoints(max_size=40), clocks, which)
@settings(max_examples=5_000, deadline=None)
def test_values_and_decisions_equal_the_slow_reference_at_length(
    events: list[Event], at: datetime, which: tuple[str, str]
) -> None:
    check_against_reference(events, at, which)


@given(touchpoints(), clocks, which, st.randoms())
@settings(max_examples=80, deadline=None)
def test_no_decision_changes_before_it_is_due(
    events: list[Event], at: datetime, which: tuple[str, str], rnd: Random
) -> None:
    check_due(events, at, which, rnd)


@pytest.mark.long
@given(touchpoints(max_size=40), clocks, which, st.randoms())
@settings(max_examples=3_000, deadline=None)
def test_no_decision_changes_before_it_is_due_at_length(
    events: list[Event], at: datetime, which: tuple[str, str], rnd: Random
) -> None:
    check_due(events, at, which, rnd)


@given(touchpoints(), clocks, which, st.randoms(), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_merged_signatures_decide_like_one(
    events: list[Event], at: datetime, which: tuple[str, str], rnd: Random, groups: int
) -> None:
    ev = EVALUATORS[which]
    parts: list[State] = [ev.fold.new_state() for _ in range(groups)]
    for event in events:
        folded(ev.fold, [event], rnd.choice(parts))
    whole, merged = folded(ev.fold, events), ev.fold.merge(parts)
    assert ev.decide(merged, to_us(at), DIRECT) == ev.decide(whole, to_us(at), DIRECT)
    pruned = ev.fold.prune(merged, to_us(at))
    assert ev.values(pruned, to_us(at)) == ev.values(whole, to_us(at))


def test_local_days_change_at_local_midnight_also_when_clocks_do() -> None:
    days = EVALUATORS["retail", "America/New_York"].fold.days
    spring = days.day(to_us(datetime(2024, 3, 10, 12, tzinfo=UTC)))
    assert days.start(spring + 1) - days.start(spring) == 23 * 3_600_000_000
    autumn = days.day(to_us(datetime(2024, 11, 3, 12, tzinfo=UTC)))
    assert days.start(autumn + 1) - days.start(autumn) == 25 * 3_600_000_000
