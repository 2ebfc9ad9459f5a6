"""A tree of orders says to the byte what the orders themselves say, in whatever order and pieces they came."""

from datetime import datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.decide.evaluator import compile_evaluator
from projections.fold.fold import Fold, compile_fold
from projections.fold.state import State
from projections.orders import tree as order_tree
from projections.orders.tree import Node
from schemas.record import to_us
from tests.property.test_evaluate_laws import EVALUATORS, Case, cases
from tests.property.test_fold_laws import folded
from tests.reference_fold import Reference, visits_of_a_crawler
from tests.strategies import Event

CAPPED = {
    which: compile_evaluator(
        ev.definitions,
        compile_fold(ev.definitions, time_zone=which[1], currency="USD", order_cap=1),
        time_zone=which[1],
    )
    for which, ev in EVALUATORS.items()
}


def summed_up(fold: Fold, events: list[Event], rnd: Random, today: int) -> State:
    """The state of a profile over the cap, grown in pieces; some come twice, as after a restart."""
    nodes: dict[int, Node] = {}
    rest = list(events)
    while rest:
        size = rnd.randint(1, 4)
        pieces = [rest[:size]] + ([events[: rnd.randint(0, len(events))]] if rnd.random() < 0.3 else [])
        rest = rest[size:]
        for piece in pieces:
            added = order_tree.split(fold.maps(folded(fold, piece)))
            known = {node: nodes[node] for node in order_tree.needed(added) if node in nodes}
            nodes |= order_tree.grown(fold.summaries, known, added, today)
    state = folded(fold, events)
    fold.make_room(state)
    root = nodes.get(order_tree.ROOT)
    fold.sum_up(state, fold.summaries.merge([] if root is None else [root.summary], today))
    packed = fold.pack(state)
    return fold.unpack(packed)


def check_tree(events: list[Event], at: datetime, which: tuple[str, str], rnd: Random) -> None:
    free, capped = EVALUATORS[which], CAPPED[which]
    whole = folded(free.fold, events)
    seen = [to_us(event["occurred_at"]) for event in events if not visits_of_a_crawler(event)]
    at_us = max([to_us(at), *seen])
    today = free.fold.days.day(at_us - rnd.choice((0, 0, 10**13)))
    state = summed_up(capped.fold, rnd.sample(events, len(events)), rnd, today)
    slow = Reference(free.definitions, events, at, which[1], "USD")
    assert capped.values(state, at_us) == {name: slow.value(name) for name in free.trait_names}
    personal = {"birthday": "1990-05-17", "city": "Oslo"}
    assert capped.decide(state, at_us, personal) == free.decide(whole, at_us, personal)  # the due time among it
    assert capped.revenue_by_currency(state) == free.revenue_by_currency(whole)
    assert capped.missing_rate(state) == free.missing_rate(whole)


@given(cases(), st.randoms())
@settings(max_examples=150, deadline=None)
def test_a_summary_of_orders_says_what_the_orders_say(case: Case, rnd: Random) -> None:
    check_tree(*case, rnd)


@pytest.mark.long
@given(cases(max_size=40), st.randoms())
@settings(max_examples=4_000, deadline=None)
def test_a_summary_of_orders_says_what_the_orders_say_at_length(case: Case, rnd: Random) -> None:
    check_tree(*case, rnd)


@given(cases(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_tree_of_the_same_orders_is_the_same_tree(case: Case, rnd: Random) -> None:
    events, _, which = case
    fold = CAPPED[which].fold
    today = 0  # nothing is too old to keep
    one = summed_up(fold, events, rnd, today)
    assert fold.pack(one) == fold.pack(summed_up(fold, rnd.sample(events, len(events)), rnd, today))


def _order_at(order_id: str, us: int) -> list[object]:
    """The entry of an order of 0.0001, completed once."""
    stamp = bytes(28)
    return [order_id, 1, 0, us, stamp, 1, "USD", 1, 1, 0, us, us, stamp]


def test_an_order_touches_one_leaf_and_reads_the_nodes_beside_its_way() -> None:
    fold = CAPPED["retail", "Europe/Berlin"].fold
    maps = fold.maps(fold.new_state())
    maps[0] = [_order_at(f"{number:06}", number) for number in range(20_000)]
    nodes = order_tree.grown(fold.summaries, {}, order_tree.split(maps), 0)
    maps[0] = [_order_at("one more", 5)]
    added = order_tree.split(maps)
    needed = order_tree.needed(added)
    assert len(needed) == 3 * order_tree.FANOUT + 1
    changed = order_tree.grown(fold.summaries, {node: nodes[node] for node in needed if node in nodes}, added, 0)
    assert len(changed) == 4
    (leaf,) = added
    assert len((changed[leaf].maps or [[]])[0]) < 40
