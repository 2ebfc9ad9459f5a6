"""Reads the mapping of a file from YAML and checks it; every problem is told with its path. Pure."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, Final
from zoneinfo import ZoneInfo

import yaml
from pydantic import ValidationError

from schemas.errors import DefinitionsInvalid, Problem
from schemas.identifiers import KINDS, check_kind
from schemas.mapping import (
    FORMATS,
    IDENTIFY,
    TIME_WORDS,
    FileMapping,
    Model,
    Numbers,
    Time,
    TraitColumn,
    TypeOf,
    Value,
    column_of,
)
from schemas.touchpoints import CALL_TYPES, STAFF_TYPES

MAX_BYTES: Final = 1_000_000  # of a mapping file
ROOTS: Final = ("context", "properties", "traits")
_NOT_MAPPED: Final = frozenset({CALL_TYPES["group"], CALL_TYPES["alias"], *STAFF_TYPES})


def read_mapping(text: str, name: str = "mapping") -> FileMapping:
    """A mapping from YAML text; `name` appears in error messages. Raises DefinitionsInvalid with every problem."""
    if len(text) > MAX_BYTES:
        raise DefinitionsInvalid(f"{name}: larger than {MAX_BYTES} bytes, so it is not a mapping")
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        raise _invalid(
            name, [Problem(where, f"not YAML: {getattr(err, 'problem', None) or 'nested too deep'}")]
        ) from err
    if not isinstance(raw, dict):
        raise _invalid(name, [Problem("", "must be an object with source, type, identifiers, occurred_at")])
    if raw.get("id") == "none":
        raw = {**raw, "id": None}
    try:
        mapping = FileMapping.model_validate(raw)
    except ValidationError as err:
        raise _invalid(name, _problems_of(err)) from err
    problems = list(_check(mapping))
    if problems:
        raise _invalid(name, problems)
    return mapping


def check_columns(mapping: FileMapping, columns: Sequence[str], file: str) -> None:
    """Raise DefinitionsInvalid unless the file has every column the mapping names."""
    problems = [
        Problem(path, f"{file} has no column {column!r}{_did_you_mean(column, columns)}; {_columns_text(columns)}")
        for path, column in mapping.columns()
        if column_of(column, columns) is None
    ]
    problems += [
        Problem(path, f"{file} has the column {column!r} twice: rename one of them in the file")
        for path, column in mapping.columns()
        if columns.count(column) > 1
    ]
    if problems:
        raise _invalid(f"the mapping does not fit {PurePath(file).name}", problems)


def _columns_text(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:40])
    return f"it has: {shown}" + (f" and {len(columns) - 40} more" if len(columns) > 40 else "")


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), list(by_lower), 1, 0.6)
    return f": did you mean {by_lower[close[0]]!r}?" if close else ""


def _check(mapping: FileMapping) -> Iterator[Problem]:
    """Problems that no single field shows by itself."""
    yield from _check_type(mapping)
    yield from _check_type_of(mapping.type)
    yield from _check_zone_and_time(mapping)
    yield from _check_layout(mapping)
    for kind in mapping.identifiers:
        why = check_kind(kind)
        if why:
            yield Problem(f"identifiers.{kind}", f"not a kind ({why}): one of {', '.join(KINDS)}, or your own")
    yield from _check_values(mapping)
    yield from _check_constants(mapping)


def _check_type(mapping: FileMapping) -> Iterator[Problem]:
    for type_ in mapping.types:
        if type_ in _NOT_MAPPED:
            reason = f"{type_} cannot come from a file: a touchpoint such as purchase.completed, or {IDENTIFY}"
            yield Problem("type", reason)
    if IDENTIFY in mapping.types and len(mapping.types) > 1:
        yield Problem("type", f"{IDENTIFY} needs a mapping of its own: it sets traits, the others have properties")
    if mapping.traits and IDENTIFY not in mapping.types:
        yield Problem("traits", f"only events of type {IDENTIFY} set traits: import them with a separate mapping")
    if mapping.products and IDENTIFY in mapping.types:
        yield Problem("products", f"{IDENTIFY} has no order lines: remove it")
    if not mapping.source.isprintable() or mapping.source != mapping.source.strip():
        yield Problem("source", "must have 1 to 64 printable characters, with no spaces at either end")


def _check_type_of(type_: str | TypeOf) -> Iterator[Problem]:
    if isinstance(type_, str):
        return
    if (type_.column is None) == (type_.sign_of is None):
        yield Problem("type", "needs either a column with a map, or sign_of with positive and negative")
    elif type_.column is not None:
        if not any(type_.map.values()) and type_.otherwise is None:
            yield Problem("type.map", "must name at least one type, such as {sale: pos.purchase, return: pos.return}")
        if type_.positive or type_.negative:
            yield Problem("type", "positive and negative belong to sign_of")
    else:
        if type_.positive is None or type_.negative is None:
            yield Problem("type", "sign_of needs positive and negative, such as pos.purchase and pos.return")
        if type_.map or type_.otherwise:
            yield Problem("type", "map and otherwise belong to a column")


def _check_layout(mapping: FileMapping) -> Iterator[Problem]:
    if mapping.encoding is not None:
        try:
            codecs.lookup(mapping.encoding)
            "a".encode(mapping.encoding)
        except (LookupError, ValueError):
            reason = f"{mapping.encoding!r} is not an encoding: write one such as utf-8, windows-1252 or shift_jis"
            yield Problem("encoding", reason)
    if mapping.lines is not None and mapping.group_by:
        yield Problem("lines", "one row is a whole order, so group_by has nothing to gather: leave one out")
    if mapping.lines is not None and not mapping.products:
        yield Problem("lines", "needs products: which field of a line is which")
    if mapping.numbers.minor_units and mapping.currency() is None:
        yield Problem("numbers.minor_units", "needs amounts with money: the currency says how small its units are")


def _check_zone_and_time(mapping: FileMapping) -> Iterator[Problem]:
    try:
        ZoneInfo(mapping.time_zone)
    except (KeyError, ValueError, OSError):
        yield Problem("time_zone", f"{mapping.time_zone!r} is not a time zone: write one such as UTC or Europe/Berlin")
    at = mapping.occurred_at
    if (at.column is None) == (at.at is None):
        yield Problem("occurred_at", "needs a column, or at: one instant for all rows, such as 2024-01-31T12:00:00Z")
    if at.time is not None and at.column is None:
        yield Problem("occurred_at.time", "needs the column of the day, too")
    pattern = at.format
    if "%" not in pattern and pattern not in TIME_WORDS:
        yield Problem("occurred_at.format", f"must be {', '.join(TIME_WORDS)}, or a pattern such as %Y-%m-%d %H:%M:%S")


def _check_values(mapping: FileMapping) -> Iterator[Problem]:
    currency = mapping.currency()
    for section, values in (("products", mapping.products), ("properties", mapping.properties)):
        for name, value in values.items():
            path = f"{section}.{name}"
            if (value.column is None) == (value.sum is None):
                yield Problem(path, "needs a column, or (in properties) the sum of one")
            if value.sum is not None and section == "products":
                yield Problem(f"{path}.sum", "a line has nothing to sum: write column")
            elif value.sum is not None and not mapping.group_by and mapping.lines is None:
                yield Problem(f"{path}.sum", "sums the lines of an order: group_by must say which belong together")
            if value.money is not None and value.money != currency:
                yield Problem(f"{path}.money", f"an event has one currency, and the other amounts are in {currency}")
    if mapping.products and "products" in mapping.properties:
        yield Problem("properties.products", "is given as well as products: leave one out")
    if currency and "currency" in mapping.properties:
        yield Problem("properties.currency", f"the amounts are already in {currency}: leave out money, or this column")


def _check_constants(mapping: FileMapping) -> Iterator[Problem]:
    taken = {f"properties.{name}" for name in mapping.properties} | {f"traits.{name}" for name in mapping.traits}
    taken |= {"properties.products"} if mapping.products else set()
    for path, value in mapping.constant.items():
        root, _, rest = path.partition(".")
        if root not in ROOTS or not all(rest.split(".")):
            yield Problem(f"constant.{path}", f"must be a dotted path in {', '.join(ROOTS)}, such as context.channel")
        elif root == "traits" and IDENTIFY not in mapping.types:
            yield Problem(f"constant.{path}", f"only events of type {IDENTIFY} set traits")
        elif path in taken:
            yield Problem(f"constant.{path}", "is also read from a column: leave one out")
        elif path == "properties.currency" and mapping.currency() not in (None, value):
            yield Problem(f"constant.{path}", f"the amounts are already in {mapping.currency()}")
        elif any(other != path and other.startswith(path + ".") for other in mapping.constant):
            yield Problem(f"constant.{path}", "is both a value and an object: leave one out")


# ---------------------------------------------------------------- messages

_FRIENDLY: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text: put it in quotes",
    "dict_type": "must be an object, such as {loyalty_card: household_id}",
    "model_type": "must be a column, or an object such as {column: sales_value, money: USD}",
    "tuple_type": "must be a list of columns, such as [basket_id]",
    "bool_type": "must be true or false",
    "literal_error": f"must be one of {', '.join(FORMATS)}",
    "too_short": "must name at least one, such as {user_id: customer}",
    "string_pattern_mismatch": "must be a currency of three capital letters, such as USD",
}


_UNION_STEPS: Final = frozenset({"TypeOf", "constrained-str", "constrained-int", "str", "int"})


def _problems_of(err: ValidationError) -> list[Problem]:
    """One problem per path; the members of a union count as one."""
    found: dict[str, Problem] = {}
    for detail in err.errors(include_url=False):
        loc = detail["loc"]
        if loc[0] == "constant" and len(loc) > 1:
            found[f"constant.{loc[1]}"] = Problem(f"constant.{loc[1]}", "must be text, a number, true or false")
            continue
        path = ".".join(str(step) for step in loc if step != "[key]" and step not in _UNION_STEPS)
        reason = _FRIENDLY.get(detail["type"], detail["msg"])
        if isinstance(detail["input"], bool) and detail["type"] in ("string_type", "model_type"):
            reason = "YAML reads no, yes, on and off as false and true: put the column's name in quotes"
        if detail["type"] == "extra_forbidden":
            known = _fields_at(loc)
            reason = f"is not a key of a mapping{_did_you_mean(str(loc[-1]), known)}; the keys are {', '.join(known)}"
        found.setdefault(path, Problem(path, reason))
    return list(found.values())


def _fields_at(loc: Sequence[Any]) -> list[str]:
    own: dict[Any, type[Model]] = {"occurred_at": Time, "traits": TraitColumn, "numbers": Numbers, "type": TypeOf}
    model = FileMapping if len(loc) == 1 else own.get(loc[0], Value)
    return list(model.model_fields)


def _invalid(name: str, problems: Sequence[Problem]) -> DefinitionsInvalid:
    first = problems[0]
    place = f"{first.path}: " if first.path else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DefinitionsInvalid(f"{name}: {place}{first.reason}{more}", problems)
