"""The order of the items of one request decides ties, and nothing else; other orders decide nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from projections.decide.evaluator import compile_evaluator
from projections.fold.fold import compile_fold
from projections.fold.state import NAME, TRAITS, VALUE, shown
from schemas.record import to_us
from schemas.stamps import key_of, n_of, order_of, parts_of, place_of
from tests.definition_samples import everything
from tests.property.test_fold_laws import folded
from tests.strategies import START, Event, touchpoints

FOLD = compile_fold(everything(), time_zone="UTC", currency="USD")
EVALUATOR = compile_evaluator(everything(), FOLD, time_zone="UTC")
keys = st.binary(min_size=16, max_size=16)


class Seen(NamedTuple):
    values: dict[str, object]
    traits: dict[str, object]


def seen(events: Sequence[Event]) -> Seen:
    """What a profile of these events shows."""
    state = folded(FOLD, list(events))
    at_us = to_us(START + timedelta(days=400))
    traits = {entry[NAME]: entry[VALUE] for entry in shown(state[TRAITS])}
    return Seen(dict(EVALUATOR.values(state, at_us)), traits)


def of_one_request(events: Sequence[Event]) -> list[Event]:
    received_at = START + timedelta(days=300)
    return [{**event, "received_at": received_at, "n": n} for n, event in enumerate(events)]


@given(touchpoints(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_permuting_items_with_times_of_their_own_changes_nothing(events: list[Event], rnd: Random) -> None:
    apart = [{**each, "occurred_at": START + timedelta(hours=place)} for place, each in enumerate(events)]
    rnd.shuffle(apart)
    assert seen(of_one_request(apart)) == seen(of_one_request(rnd.sample(apart, len(apart))))


@given(touchpoints(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_arrival_of_what_one_request_sent_changes_nothing(events: list[Event], rnd: Random) -> None:
    sent = of_one_request([{**each, "occurred_at": START} for each in events])
    assert FOLD.pack(folded(FOLD, sent)) == FOLD.pack(folded(FOLD, rnd.sample(sent, len(sent))))


@given(st.lists(st.sampled_from(["free", "pro", "max"]), min_size=1, max_size=6), st.randoms())
def test_of_tied_items_the_last_one_sent_is_the_newest(plans: list[str], rnd: Random) -> None:
    def identify(plan: str) -> Event:
        key = f"{rnd.getrandbits(128):032x}"
        id_ = f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"
        event = {"id": id_, "type": "profile.identified", "traits": {"city": plan}}
        return {**event, "occurred_at": START, "partition": 0, "offset": 0}

    sent = of_one_request([identify(plan) for plan in plans])
    assert seen(rnd.sample(sent, len(sent))).traits == {"city": plans[-1]}


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 2**31 - 1), keys), min_size=2, max_size=6))
def test_bytes_sort_as_their_parts(parts: list[tuple[int, int, bytes]]) -> None:
    orders = [order_of(*each) for each in parts]
    assert [parts_of(each) for each in sorted(orders)] == sorted(parts)
    assert [key_of(each) for each in orders] == [key for _, _, key in parts]
    places = [place_of(n, key) for _, n, key in parts]
    assert sorted(places) == [place_of(n, key) for n, key in sorted((n, key) for _, n, key in parts)]
    assert [(n_of(each), key_of(each)) for each in places] == [(n, key) for _, n, key in parts]


@given(st.integers(), keys)
def test_a_place_that_nobody_writes_is_the_first_or_the_last(n: int, key: bytes) -> None:
    at_us = to_us(datetime(1969, 1, 1, tzinfo=UTC))
    assert parts_of(order_of(at_us, n, key)) == (at_us, min(max(n, 0), 2**31 - 1), key)
