"""Laws of what follows an order: its owner against the rule's words, and an event in two parts against the whole."""

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from projections.fold.fold import compile_fold
from projections.orders.owners import Holder, Owner, owner_of
from projections.orders.parts import Part, named_order
from schemas.touchpoints import ORDER_TYPES
from tests.definition_samples import everything
from tests.strategies import Event, record_bytes, touchpoints

FOLD = compile_fold(everything(), time_zone="Europe/Berlin", currency="USD")
PEOPLE = [b"ada", b"bob", b"cyd"]
people = st.sampled_from([*PEOPLE, None])
holders = st.builds(Holder, st.integers(0, 2), people)


def by_the_words(sender: bytes | None, source: int, has_it: Sequence[tuple[int, bytes | None]]) -> Owner:
    """ "Its own customer if they have the order; else the only customer who has it in the same source; else the only
    one in any; two, none or an erased one: it stays with its own identifiers." None among those who have it: erased.
    """
    for person in PEOPLE:
        if person == sender and [1 for _, owner in has_it if owner == person]:
            return Owner(person, True)
    for place in (True, False):
        ones = []
        for where, owner in has_it:
            if (where == source or not place) and owner not in ones:
                ones.append(owner)
        if ones in ([b"ada"], [b"bob"], [b"cyd"]):
            return Owner(ones[0], True)
    return Owner(sender, False)


@given(people, st.integers(0, 2), st.lists(holders, max_size=5), st.randoms())
@settings(max_examples=500, deadline=None)
def test_the_owner_is_who_the_rule_says_in_whatever_order_holders_come(
    sender: bytes | None, source: int, has_it: list[Holder], random: Random
) -> None:
    expected = by_the_words(sender, source, has_it)
    assert owner_of(sender, source, has_it) == expected
    random.shuffle(has_it)
    assert owner_of(sender, source, [*has_it, *has_it]) == expected


def test_the_owner_by_hand() -> None:
    assert owner_of(b"ada", 1, [Holder(2, b"ada"), Holder(1, b"bob")]) == (b"ada", True)
    assert owner_of(b"cyd", 1, [Holder(2, b"ada"), Holder(1, b"bob")]) == (b"bob", True)
    assert owner_of(None, 1, [Holder(2, b"ada")]) == (b"ada", True)
    assert owner_of(b"cyd", 3, [Holder(2, b"ada"), Holder(1, b"bob")]) == (b"cyd", False)
    assert owner_of(b"cyd", 1, [Holder(1, None)]) == (b"cyd", False)
    assert owner_of(None, 1, [Holder(1, None), Holder(2, b"ada")]) == (None, False)
    assert owner_of(None, 1, []) == (None, False)


@given(touchpoints())
@settings(max_examples=60, deadline=None)
def test_both_parts_of_an_event_are_the_whole(events: list[Event]) -> None:
    whole, own, order = FOLD.new_state(), FOLD.new_state(), FOLD.new_state()
    for event in events:
        decoded = FOLD.decode(record_bytes(event))
        decoded.partition, decoded.offset = event["partition"], event["offset"]
        FOLD.parts[Part.WHOLE](decoded, whole, None)
        if decoded.type in ORDER_TYPES:
            FOLD.parts[Part.OWN](decoded, own, None)
            FOLD.parts[Part.ORDER](decoded, order, None)
        else:
            FOLD.parts[Part.WHOLE](decoded, own, None)
    assert order[0] == 0
    assert order[1] is None
    assert own[4:7] == [[], [], []]
    assert FOLD.pack(FOLD.merge([own, order])) == FOLD.pack(whole)
    assert FOLD.pack(FOLD.merge([order, own])) == FOLD.pack(whole)


def test_an_order_set_is_of_one_sender_one_source_and_one_order() -> None:
    def named(sender: bytes = b"s" * 16, source: str = "web", order: str = "1001") -> bytes | None:
        return named_order(source, order, sender, follows=True).order_set

    assert named() == named()
    assert len({named(), named(b"t" * 16), named(source="till"), named(order="1002")}) == 4
    held = named_order("web", "1001", b"s" * 16, follows=False)
    told = named_order("till", "1001", b"t" * 16, follows=True)
    assert held.order_set is None
    assert held.key == told.key
    assert held.source != told.source
