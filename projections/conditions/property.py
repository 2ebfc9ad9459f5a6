"""Compares a property of the event with a value; `revenue` is its derived revenue, `currency` the effective one."""

from collections.abc import Iterator
from typing import Final

from projections.conditions.base import Defined, EventCode, OfEvent
from projections.conditions.comparing import compared
from projections.conditions.predicates import DYNAMIC, SCALED, TEXT, compare, compare_any
from schemas.conditions import Kind, PropertyLeaf, Value, check_leaf
from schemas.errors import Problem
from schemas.paths import path_of

_KINDS: Final[dict[str, Kind]] = {"revenue": "decimal", "currency": "text"}


class Property(OfEvent[PropertyLeaf]):
    model = PropertyLeaf

    def words(self, leaf: PropertyLeaf) -> str:
        return f"whose {compared(leaf.property, leaf.op, leaf.value)}"

    def check(self, path: str, leaf: PropertyLeaf, defined: Defined) -> Iterator[Problem]:
        yield from check_leaf(path, leaf, _KINDS.get(leaf.property, "any"))

    def test(self, leaf: PropertyLeaf, code: EventCode, pinned: bool) -> str:
        if leaf.property == "revenue":
            return compare(code.src, code.number("revenue", pinned), SCALED, leaf.op, leaf.value)
        if leaf.property == "currency":
            return compare(code.src, code.currency(), TEXT, leaf.op, _upper(leaf.value))
        if path_of(leaf.property) is not None:
            return compare_any(code.src, code.nested(leaf.property), leaf.op, leaf.value)
        return compare(code.src, code.opened(leaf.property), DYNAMIC, leaf.op, leaf.value)


def _upper(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(str(item).upper() for item in value)
    return value.upper() if isinstance(value, str) else value


PROPERTY: Final = Property()
