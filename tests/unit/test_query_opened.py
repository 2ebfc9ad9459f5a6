"""Sealed parts find their way back to where the door took them from."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from query.people.opened import joined, tokens_in, with_values
from schemas.clear import ref, split
from schemas.clear_rules import NOTHING_DECLARED, clear_rules
from schemas.ports import OpenIdentifier

ADA = bytes(range(16))
OPENED = {ADA: OpenIdentifier(ADA, "email", "ada@example.com")}
leaves = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.sampled_from(["", "Ada Lovelace", "2026-01-01", "x"])
)
names = st.sampled_from(["a", "b", "note", "items", "0", "1", "a.b", "a.0"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def parted(properties: dict[str, Any], *, unknown: bool = True) -> tuple[Any, Any]:
    rules = clear_rules(NOTHING_DECLARED, "custom", "thing_happened")._replace(unknown=unknown)
    parts = split(properties, {}, {}, rules, frozenset())
    return parts.properties, parts.sealed.get("properties", {})


@given(st.dictionaries(names, values, max_size=5), st.booleans())
def test_what_the_door_parts_is_joined_again(properties: dict[str, Any], unknown: bool) -> None:
    clear, sealed = parted(properties, unknown=unknown)
    assert joined(clear, sealed) == properties


def test_lists_in_lists_are_told_from_objects_of_numbered_keys() -> None:
    properties = {"rows": [["Ada", "Bob"], {"0": "Ada", "1": "Bob"}, 1, [["Ada", 2]], {}, []]}
    clear, sealed = parted(properties)
    assert clear == {"rows": [None, {}, 1, [[None, 2]], {}, []]}
    assert sealed["rows"]["0"] == ["Ada", "Bob"]
    assert joined(clear, sealed) == properties


def test_a_list_that_the_first_doors_kept_by_place_is_a_list_again() -> None:
    assert joined({"rows": [None, 1]}, {"rows": {"0": {"0": "Ada", "1": "Bob"}}}) == {"rows": [["Ada", "Bob"], 1]}


def test_a_value_comes_back_where_its_token_stands() -> None:
    properties = {"who": ref(ADA, "email"), "others": [1, {"mail": ref(ADA, "email"), "n": 2}]}
    clear, sealed = parted(properties)
    assert set(tokens_in(sealed)) == {ADA}
    whole = joined(clear, with_values(sealed, OPENED))
    assert whole == {"who": "ada@example.com", "others": [1, {"mail": "ada@example.com", "n": 2}]}


def test_an_erased_identifier_leaves_nothing() -> None:
    _, sealed = parted({"who": ref(ADA, "email")})
    assert with_values(sealed, {}) == {"who": None}
