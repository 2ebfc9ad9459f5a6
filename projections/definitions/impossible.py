"""Conditions that can never hold, whatever arrives: they are refused when applied, with what was probably meant. Pure.

Only of what a patch brings: definitions stored by an earlier build are never refused.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from schemas.conditions import (
    All,
    Kind,
    LifecycleLeaf,
    Not,
    PropertyLeaf,
    SegmentLeaf,
    TraitLeaf,
    children,
    parse_time,
)
from schemas.definitions import Definitions
from schemas.errors import Problem

_ABOVE: Final = ("gt", "gte")
_BELOW: Final = ("lt", "lte")
KindOf = Callable[[str], Kind]


class _Bound(NamedTuple):
    """One end of what a condition admits. `open_`: the value itself is left out."""

    value: Any
    open_: bool
    path: str


def impossible(patch: Definitions, kind: KindOf) -> Iterator[Problem]:
    """Every condition of a patch that nothing can meet. `kind`: of a trait's values, "any" if it is unknown."""
    for root, tree in patch.conditions():
        yield from _of_tree(root, tree, kind)
    for name, trait in patch.computed_traits.items():
        if trait.where is not None:
            yield from _of_tree(f"computed_traits.{name}.where", trait.where, kind)


def _of_tree(path: str, node: Any, kind: KindOf) -> Iterator[Problem]:
    if isinstance(node, TraitLeaf | PropertyLeaf):
        yield from _of_leaf(path, node, kind(node.trait) if isinstance(node, TraitLeaf) else "any")
    if isinstance(node, All):
        yield from _together(path, node)
    for step, child in children(node):
        if not (isinstance(node, All) and isinstance(child, All)):
            yield from _of_tree(path + step, child, kind)
        else:  # its parts were looked at together with ours
            for below, each in children(child):
                yield from _of_tree(path + step + below, each, kind)


def _of_leaf(path: str, leaf: TraitLeaf | PropertyLeaf, kind: Kind) -> Iterator[Problem]:
    value = leaf.value
    if leaf.op == "between" and isinstance(value, tuple) and len(value) == 2:
        low, high = _comparable(value[0]), _comparable(value[1])
        if type(low) is type(high) and low > high:
            yield Problem(
                f"{path}.value", f"can never hold: the lowest comes first; write [{value[1]}, {value[0]}] instead"
            )
    items = value if isinstance(value, tuple) else (value,)
    fractions = [each for each in items if isinstance(each, Decimal) and each != int(each)]
    if leaf.op in ("eq", "in") and kind == "integer" and items and len(fractions) == len(items):
        yield Problem(f"{path}.value", "can never hold: it is a whole number")
    if kind == "integer" and _is_below_zero(leaf.op, items):
        yield Problem(f"{path}.value", "can never hold: it counts, and is never below 0")


def _is_below_zero(op: str, items: tuple[Any, ...]) -> bool:
    if not all(isinstance(each, int | Decimal) and not isinstance(each, bool) for each in items):
        return False
    if op == "lt":
        return bool(items[0] <= 0)
    if op in ("lte", "eq", "in"):
        return all(each < 0 for each in items)
    return op == "between" and len(items) == 2 and items[1] < 0


def _comparable(value: Any) -> Any:
    """A value that compares with others of its type: numbers as Decimal, dates and times without zone as such."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | Decimal):
        return Decimal(value)
    at = parse_time(value)
    if isinstance(at, datetime):
        return value if at.tzinfo is not None else at
    return at if isinstance(at, date) else value


def _together(path: str, node: All) -> Iterator[Problem]:
    """What the parts of an `all` exclude of each other: bounds, values, stages, a segment and its opposite."""
    parts = list(_parts(path, node))
    by_name: dict[tuple[str, str], list[tuple[str, TraitLeaf | PropertyLeaf]]] = {}
    for where, leaf in parts:
        if isinstance(leaf, TraitLeaf):
            by_name.setdefault(("trait", leaf.trait), []).append((where, leaf))
        elif isinstance(leaf, PropertyLeaf) and "[]" not in leaf.property:
            by_name.setdefault(("property", leaf.property), []).append((where, leaf))
    for (_, name), leaves in by_name.items():
        if len(leaves) > 1:
            yield from _of_one(name, leaves)
    stages = [(where, leaf.lifecycle) for where, leaf in parts if isinstance(leaf, LifecycleLeaf)]
    for where, stage in stages[1:]:
        if stage != stages[0][1]:
            yield Problem(where, f"can never hold: nobody is in {stages[0][1]} and in {stage}; use `any`")
    inside = {leaf.segment for _, leaf in parts if isinstance(leaf, SegmentLeaf)}
    for where, leaf in parts:
        if isinstance(leaf, Not) and isinstance(leaf.item, SegmentLeaf) and leaf.item.segment in inside:
            yield Problem(where, f"can never hold: in segment {leaf.item.segment} and not in it")


def _parts(path: str, node: All) -> Iterator[tuple[str, Any]]:
    for step, child in children(node):
        if isinstance(child, All):
            yield from _parts(path + step, child)
        else:
            yield path + step, child


def _of_one(name: str, leaves: list[tuple[str, TraitLeaf | PropertyLeaf]]) -> Iterator[Problem]:
    ops = {leaf.op: where for where, leaf in leaves}
    if "missing" in ops and any(leaf.op not in ("missing", "ne", "not_in") for _, leaf in leaves):
        yield Problem(ops["missing"], f"can never hold: {name} is compared, and yet missing")
        return
    low = high = None
    for where, leaf in leaves:
        for bound, is_low in _bounds(where, leaf):
            if is_low and (low is None or _tighter(bound, low, 1)):
                low = bound
            if not is_low and (high is None or _tighter(bound, high, -1)):
                high = bound
    if low is not None and high is not None and low.path != high.path and _apart(low, high):
        yield Problem(high.path, f"can never hold: another condition on {name} excludes it; use `any`")


def _apart(low: _Bound, high: _Bound) -> bool:
    if type(low.value) is not type(high.value):
        return False
    return bool(low.value > high.value) or (low.value == high.value and (low.open_ or high.open_))


def _tighter(bound: _Bound, than: _Bound, sign: int) -> bool:
    if type(bound.value) is not type(than.value):
        return False
    if bound.value == than.value:
        return bound.open_ and not than.open_
    return bool(bound.value > than.value) if sign > 0 else bool(bound.value < than.value)


def _bounds(path: str, leaf: TraitLeaf | PropertyLeaf) -> Iterator[tuple[_Bound, bool]]:
    value = leaf.value
    if leaf.op == "between" and isinstance(value, tuple) and len(value) == 2:
        yield _Bound(_comparable(value[0]), False, path), True
        yield _Bound(_comparable(value[1]), False, path), False
    elif leaf.op == "eq" and not isinstance(value, tuple):
        yield _Bound(_comparable(value), False, path), True
        yield _Bound(_comparable(value), False, path), False
    elif leaf.op in _ABOVE:
        yield _Bound(_comparable(value), leaf.op == "gt", path), True
    elif leaf.op in _BELOW:
        yield _Bound(_comparable(value), leaf.op == "lt", path), False
