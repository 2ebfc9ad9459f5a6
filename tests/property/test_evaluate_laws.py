"""The generated evaluator against a slow reference over raw events, and the law of due times."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.days import LocalDays
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import load_pack, parse_documents
from projections.definitions.merge import merge
from projections.fold.fold import compile_fold
from projections.fold.state import State
from schemas.definitions import Definitions
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
anywhere = st.one_of(
    st.sampled_from(TRICKY),
    st.integers(0, 500 * 86_400_000_000).map(lambda us: START + timedelta(microseconds=us)),
)
Case = tuple[list[Event], datetime, tuple[str, str]]
DAY_US = 86_400_000_000
EDGES = (1, 2, 3, 5, 7, 10, 29, 30, 31, 40, 41, 90, 180, 365)  # window lengths and thresholds of the definitions


def edges(event: Event, days: LocalDays) -> list[int]:
    """The instants at which an event may leave a window or reach a number of days."""
    at_us = to_us(event["occurred_at"])
    return [us for k in EDGES for us in (at_us + k * DAY_US, days.start(days.day(at_us) + k))]


@st.composite
def cases(draw: st.DrawFn, max_size: int = 14) -> Case:
    """Events, a clock (mostly at an edge of one of them) and an evaluator."""
    events = draw(touchpoints(max_size))
    which = draw(st.sampled_from(sorted(EVALUATORS)))
    if not events or draw(st.integers(0, 3)) == 0:
        return events, draw(anywhere), which
    edge = draw(st.sampled_from(edges(draw(st.sampled_from(events)), EVALUATORS[which].fold.days)))
    return events, from_us(edge + draw(st.integers(-1, 0))), which


DIRECT = {"birthday": "1990-05-17", "city": "Oslo"}


def check_against_reference(events: list[Event], at: datetime, ev: Evaluator) -> None:
    state = folded(ev.fold, events)
    slow = Reference(ev.definitions, events, at, ev.fold.time_zone, "USD")
    expected = {name: slow.value(name) for name in ev.trait_names}
    assert ev.values(state, to_us(at)) == expected
    decision = ev.decide(state, to_us(at), DIRECT)
    segments, stage, codes = slow.decide(DIRECT)
    assert set(ev.names_of(decision.segments)) == segments
    assert (decision.stage, [code for code, _ in decision.reasons]) == (stage, codes)
    assert decision.points == sum(points for _, points in decision.reasons)


def check_due(events: list[Event], at: datetime, ev: Evaluator, rnd: Random, steps: int = 12) -> None:
    """Follow the due times: inside every interval between two of them nothing changes."""
    state = folded(ev.fold, events)
    near = sorted({us for event in events for edge in edges(event, ev.fold.days) for us in (edge - 1, edge)})
    at_us: int | None = to_us(at)
    for _ in range(steps):
        if at_us is None:
            break
        first = ev.decide(state, at_us, DIRECT)
        start = max(at_us, state[2][0]) if state[2] else at_us  # a crawler alone was never seen
        assert first.due_at_us is None or first.due_at_us > start
        end = first.due_at_us or start + 20 * 366 * DAY_US
        for instant in [*instants(start, end, ev, rnd), *near]:
            if start <= instant < end:
                assert ev.decide(state, instant, DIRECT)[:5] == first[:5], from_us(instant)
        at_us = first.due_at_us


def instants(start: int, end: int, ev: Evaluator, rnd: Random) -> list[int]:
    """Between two instants: the last microsecond, local midnights, full days, and some at random."""
    days = ev.fold.days
    picks = [start, end - 1]
    picks += [rnd.randint(start, end - 1) for _ in range(4)]
    for day in range(days.day(start) + 1, min(days.day(start) + 4, days.day(end) + 1)):
        picks += [days.start(day) - 1, days.start(day)]
    picks += [start + k * 86_400_000_000 for k in range(5)]
    return picks


@given(cases())
@settings(max_examples=250, deadline=None)
def test_values_and_decisions_equal_the_slow_reference(case: Case) -> None:
    events, at, which = case
    check_against_reference(events, at, EVALUATORS[which])


@pytest.mark.long
@given(cases(max_size=40))
@settings(max_examples=5_000, deadline=None)
def test_values_and_decisions_equal_the_slow_reference_at_length(case: Case) -> None:
    events, at, which = case
    check_against_reference(events, at, EVALUATORS[which])


@given(cases(), st.randoms())
@settings(max_examples=80, deadline=None)
def test_no_decision_changes_before_it_is_due(case: Case, rnd: Random) -> None:
    events, at, which = case
    check_due(events, at, EVALUATORS[which], rnd)


@pytest.mark.long
@given(cases(max_size=40), st.randoms())
@settings(max_examples=3_000, deadline=None)
def test_no_decision_changes_before_it_is_due_at_length(case: Case, rnd: Random) -> None:
    events, at, which = case
    check_due(events, at, EVALUATORS[which], rnd)


@given(cases(), st.randoms(), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_merged_signatures_decide_like_one(case: Case, rnd: Random, groups: int) -> None:
    events, at, which = case
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
