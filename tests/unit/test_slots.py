"""Kinds of slots by themselves: what properties of whole states do not reach."""

from random import Random

import pytest

from projections.slots.different import DIFFERENT, MOST
from projections.slots.keyed import OVERFLOW, merge_keyed
from projections.slots.values import storable, text_key


@pytest.mark.parametrize(
    ("value", "key"),
    [(9, "9"), (9.0, "9"), ("9", "9"), (0, "0"), (100.0, "100"), (2.5, "2.5"), (True, "true"), ("Ö", "Ö"),
     ("", None), (None, None), ([1], None), ({"a": 1}, None)],
)  # fmt: skip
def test_equal_values_have_one_key(value: object, key: str | None) -> None:
    assert text_key(storable(value)) == key


def test_a_summary_holds_so_many_different_values_in_whatever_order_they_come() -> None:
    assert DIFFERENT.put is not None
    values = [f"v{i}" for i in range(MOST)]
    slots = [DIFFERENT.empty()]
    for value in Random(1).sample(values * 2, 2 * MOST):
        DIFFERENT.put(slots, 0, 0, value)
    assert slots[0] == sorted([value] for value in values)
    half = [[value] for value in sorted(values[:600])], [[value] for value in sorted(values[500:])]
    assert DIFFERENT.merge(*half) == DIFFERENT.merge(*reversed(half)) == slots[0]
    DIFFERENT.put(slots, 0, 0, "one more")
    assert slots[0] == OVERFLOW
    DIFFERENT.put(slots, 0, 0, "v1")
    assert slots[0] == OVERFLOW == DIFFERENT.merge(slots[0], half[0]) == DIFFERENT.merge([], slots[0])


def test_a_state_has_the_cap_of_its_fold() -> None:
    assert DIFFERENT.merger(2) is merge_keyed(2)
    assert DIFFERENT.merger(2)([["a"], ["b"]], [["c"]]) == OVERFLOW
    assert DIFFERENT.merger(None)([["a"], ["b"]], [["c"]]) == [["a"], ["b"], ["c"]]
    assert DIFFERENT.number([["a"], ["b"]]) == 2
