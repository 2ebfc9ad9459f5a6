"""Laws of the fold: order, batches, grouping and partitions do not matter, to the byte."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.fold.fold import Fold, compile_fold
from projections.fold.state import ORDERS, State
from projections.slots.keyed import OVERFLOW
from schemas.record import to_us
from tests.definition_samples import everything
from tests.strategies import START, Event, record_bytes, touchpoints

FOLDS = {zone: compile_fold(everything(), time_zone=zone, currency="USD") for zone in ("America/New_York", "UTC")}
CAPPED = compile_fold(everything(), time_zone="Europe/Berlin", currency="USD", order_cap=2)
UNCAPPED = compile_fold(everything(), time_zone="Europe/Berlin", currency="USD", order_cap=None)


def folded(fold: Fold, events: list[Event], state: State | None = None) -> State:
    state = fold.new_state() if state is None else state
    for event in events:
        decoded = fold.decode(record_bytes(event))
        decoded.partition, decoded.offset = event["partition"], event["offset"]
        fold.apply(decoded, state, None)
    return state


def capped(fold: Fold, events: list[Event], state: State | None = None) -> State:
    """`folded`, as stored: what is over the cap is laid off."""
    state = fold.new_state() if state is None else state
    lifted = fold.lift(state)
    folded(fold, events, state)
    fold.lay_off(state, lifted)
    return state


def in_batches(fold: Fold, events: list[Event], rnd: Random) -> State:
    """As live work does: a few events, the state to bytes and back, now and then pruned by the clock."""
    data = fold.pack(fold.new_state())
    rest = list(events)
    while rest:
        size = rnd.randint(1, 4)
        state = capped(fold, rest[:size], fold.unpack(data))
        data = fold.pack(state)
        rest = rest[size:]
    return fold.unpack(data)


def check_laws(fold: Fold, events: list[Event], rnd: Random, groups: int) -> None:
    whole = fold.pack(capped(fold, events))
    shuffled = rnd.sample(events, len(events))
    assert fold.pack(capped(fold, shuffled)) == whole
    assert fold.pack(in_batches(fold, shuffled, rnd)) == whole
    identifier_sets: list[list[Event]] = [[] for _ in range(groups)]
    for event in shuffled:
        identifier_sets[rnd.randrange(groups)].append(event)
    parts = [capped(fold, part) for part in identifier_sets]
    assert fold.pack(fold.merge(parts)) == whole
    rnd.shuffle(parts)
    cut = rnd.randrange(groups)
    left, right = fold.merge(parts[:cut]), fold.merge(parts[cut:])
    assert fold.pack(fold.merge([left, right])) == fold.pack(fold.merge([right, left])) == whole
    assert fold.pack(fold.merge([fold.new_state(), fold.unpack(whole)])) == whole


@given(touchpoints(), st.randoms(), st.integers(1, 5), st.sampled_from(sorted(FOLDS)))
@settings(max_examples=60, deadline=None)
def test_order_batches_grouping_and_signatures_give_the_same_bytes(
    events: list[Event], rnd: Random, groups: int, zone: str
) -> None:
    check_laws(FOLDS[zone], events, rnd, groups)


@pytest.mark.long
@given(touchpoints(max_size=40), st.randoms(), st.integers(1, 9), st.sampled_from(sorted(FOLDS)))
@settings(max_examples=3_000, deadline=None)
def test_order_batches_grouping_and_signatures_give_the_same_bytes_at_length(
    events: list[Event], rnd: Random, groups: int, zone: str
) -> None:
    check_laws(FOLDS[zone], events, rnd, groups)


@given(touchpoints(), st.randoms(), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_capped_map_overflows_the_same_way_in_any_grouping(events: list[Event], rnd: Random, groups: int) -> None:
    check_laws(CAPPED, events, rnd, groups)
    state = capped(CAPPED, events)
    free = folded(UNCAPPED, events)
    sizes = [len(free[slot]) for slot in (ORDERS, ORDERS + 1, ORDERS + 2)]
    assert (state[ORDERS] == OVERFLOW) == (max(sizes) > 2)


@given(touchpoints(), st.randoms(), st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_pruning_by_the_clock_commutes_with_folding_and_merging(
    events: list[Event], rnd: Random, later_days: int
) -> None:
    fold = FOLDS["America/New_York"]
    at_us = to_us(max((e["occurred_at"] for e in events), default=START) + timedelta(days=later_days))
    whole = folded(fold, events)
    before = fold.pack(whole)
    hashed = fold.canonical(whole, at_us)
    assert fold.pack(whole) == before
    shuffled = rnd.sample(events, len(events))
    state = fold.new_state()
    for event in shuffled:
        folded(fold, [event], state)
        fold.prune(state, at_us - rnd.randint(0, 10**15))
    assert fold.canonical(state, at_us) == hashed
    cut = len(shuffled) // 2
    parts = [fold.prune(folded(fold, part), at_us) for part in (shuffled[:cut], shuffled[cut:])]
    assert fold.canonical(fold.merge(parts), at_us) == hashed
