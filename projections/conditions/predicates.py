"""Generates comparisons: one leaf against one local variable, for `fold` (where) and `evaluate` (when).

Users' literals enter generated code as named constants of its namespace, never as text.
"""

from datetime import datetime
from decimal import Decimal
from math import ceil, floor
from typing import Any, Final, NamedTuple

from projections.days import LocalDays
from projections.generated import Source
from schemas.conditions import All, AnyOf, Not, Value, parse_time
from schemas.errors import DefinitionsInvalid
from schemas.money import SCALE, scaled
from schemas.record import EPOCH, to_us

INTEGER, SCALED, TIME, DYNAMIC, TEXT, MOMENT = "integer", "scaled", "time", "dynamic", "text", "moment"
_SIGNS: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


class Span(NamedTuple):
    """The integers equal to a literal: low <= v <= high. For 2.5 this is the empty range (3, 2)."""

    low: int
    high: int


# ---------------------------------------------------------------- helpers the generated code calls


def has(value: Any, item: Any) -> bool:
    """`contains`: a substring of a text, or an element of a list."""
    if type(value) is str:
        return type(item) is str and item in value
    return isinstance(value, list | tuple) and any(same(element, item) for element in value)


_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def truth(value: Any) -> bool | None:
    """A boolean as it is or as files and forms write it; None for anything else."""
    kind = type(value)
    if kind is bool:
        return bool(value)
    if kind is int:
        return bool(value) if value in (0, 1) else None
    if kind is str and len(value) <= 8:
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def same(value: Any, item: Any) -> bool:
    """Equality in conditions: numbers by value and booleans by meaning, both also as text; text exactly."""
    if isinstance(item, bool):
        return truth(value) is item
    if isinstance(item, str):
        return value == item if type(value) is str else same_as_text(value, item)
    number = scaled(value)
    return number is not None and number == scaled(item)


def same_as_text(value: Any, item: str) -> bool:
    """Whether a number or boolean is what a text says: `"30"` in quotes finds 30, `"true"` finds true."""
    kind = type(value)
    if kind is bool:
        return item.strip().lower() == ("true" if value else "false")
    if kind is not int and kind is not float and kind is not Decimal:
        return False
    number = scaled(item)
    return number is not None and number == scaled(value)


def moment_reader(days: LocalDays) -> Any:
    """A function: ISO text → µs since 1970, else None. A date is its local midnight."""

    def moment(value: Any) -> int | None:
        try:
            return span_of_time(value, days).low
        except DefinitionsInvalid:
            return None

    return moment


def span_of_time(value: object, days: LocalDays) -> Span:
    """A date is its whole local day; a time without zone is local."""
    parsed = parse_time(value)
    if parsed is None:
        raise DefinitionsInvalid(f"{value!r} is not a date or time")
    if not isinstance(parsed, datetime):
        day = parsed.toordinal() - EPOCH.toordinal()
        return Span(days.start(day), days.start(day + 1) - 1)
    if parsed.tzinfo is None:
        parsed = days.aware(parsed)
    return Span(to_us(parsed), to_us(parsed))


def span_of(value: Any, kind: str, days: LocalDays) -> Span:
    """A literal among values of a kind."""
    if kind in (TIME, MOMENT):
        return span_of_time(value, days)
    exact = Decimal(value)
    if kind in (SCALED, DYNAMIC):
        exact *= SCALE
    return Span(ceil(exact), floor(exact))


# ---------------------------------------------------------------- expressions


def tree(node: Any, leaf: Any) -> str:
    """A condition tree as an expression; `leaf(node)` gives a leaf's expression."""
    if isinstance(node, All):
        return "(" + " and ".join(tree(item, leaf) for item in node.all) + ")"
    if isinstance(node, AnyOf):
        return "(" + " or ".join(tree(item, leaf) for item in node.any) + ")"
    if isinstance(node, Not):
        return f"(not {tree(node.item, leaf)})"
    return str(leaf(node))


def compare(src: Source, var: str, kind: str, op: str, value: Value) -> str:
    """The expression of one comparison. For a `var` of None it is false, except for missing, ne and not_in."""
    if op == "exists":
        return f"({var} is not None)"
    if op == "missing":
        return f"({var} is None)"
    if op == "ne":
        return f"(not {compare(src, var, kind, 'eq', value)})"
    if op == "not_in":
        return f"(not {compare(src, var, kind, 'in', value)})"
    items: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    if op == "in":
        if all(isinstance(item, str) and not _means_more(item, kind) for item in items) and kind in (DYNAMIC, TEXT):
            return f"({var} in {src.constant(items)})"
        return "(" + " or ".join(compare(src, var, kind, "eq", item) for item in items) + ")"
    if kind in (DYNAMIC, TEXT):
        return _dynamic(src, var, op, items, kind)
    if kind == MOMENT:
        return f"((m := moment({var})) is not None and {_integers('m', op, items, kind, src.days)})"
    return f"({var} is not None and {_integers(var, op, items, kind, src.days)})"


def _integers(var: str, op: str, items: tuple[Any, ...], kind: str, days: LocalDays) -> str:
    """A comparison of an integer variable that is not None."""
    first, last = span_of(items[0], kind, days), span_of(items[-1], kind, days)
    if op in ("eq", "between"):
        return f"{first.low} <= {var} <= {last.high}"
    edge = first.low if op in ("lt", "gte") else first.high
    return f"{var} {_SIGNS[op]} {edge}"


def _means_more(item: str, kind: str) -> bool:
    """Whether a text may also be the text of a time, a number or a boolean."""
    return kind == DYNAMIC and (parse_time(item) is not None or scaled(item) is not None or truth(item) is not None)


def _of_text(src: Source, var: str, op: str, items: tuple[Any, ...], kind: str) -> str:
    """A comparison with a text. One that is a date or time compares instants with whatever can be read as one."""
    first = src.constant(items[0])
    if kind == DYNAMIC and all(parse_time(item) is not None for item in items):
        instant = f"((m := moment({var})) is not None and {_integers('m', op, items, MOMENT, src.days)})"
        return f"({var} == {first} or {instant})" if op == "eq" else instant
    if op == "eq":
        if not _means_more(items[0], kind):
            return f"({var} == {first})"
        return f"({var} == {first} or (type({var}) is not str and same_as_text({var}, {first})))"
    if op == "between":
        return f"(type({var}) is str and {first} <= {var} <= {src.constant(items[1])})"
    return f"(type({var}) is str and {var} {_SIGNS[op]} {first})"


def compare_any(src: Source, var: str, op: str, value: Value) -> str:
    """As `compare`, for a local that holds the values at a path: true if it is of one of them."""
    if op == "missing":
        return f"(not {var})"
    if op in ("ne", "not_in"):
        return f"(not {compare_any(src, var, 'eq' if op == 'ne' else 'in', value)})"
    return f"any([{compare(src, 'x', DYNAMIC, op, value)} for x in {var}])"


def _dynamic(src: Source, var: str, op: str, items: tuple[Any, ...], kind: str) -> str:
    """A comparison of a value of any type, by the type of the literal."""
    item = items[0]
    if op == "contains":
        return f"has({var}, {src.constant(item)})"
    if op == "starts_with":
        return f"(type({var}) is str and {var}.startswith({src.constant(item)}))"
    if isinstance(item, bool):
        return f"(truth({var}) is {item})"
    if isinstance(item, str):
        return _of_text(src, var, op, items, kind)
    return f"((n := scaled({var})) is not None and {_integers('n', op, items, DYNAMIC, src.days)})"


def flips(op: str, value: Value, kind: str, days: LocalDays) -> set[int]:
    """The integers at which a growing value changes the result of a comparison."""
    if op in ("exists", "missing"):
        return set()
    items: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    spans = [span_of(item, kind, days) for item in items]
    if op == "between":
        return {spans[0].low, spans[1].high + 1}
    if op in ("lt", "gte"):
        return {spans[0].low}
    if op in ("lte", "gt"):
        return {spans[0].high + 1}
    return {edge for span in spans for edge in (span.low, span.high + 1)}


HELPERS: Final[dict[str, Any]] = {"has": has, "scaled": scaled, "truth": truth, "same_as_text": same_as_text}
