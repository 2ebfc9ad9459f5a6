"""The mapping of a file's columns to touchpoints: YAML in, a frozen model out, every problem with its path. Pure.

`ingest.files.mapped_rows` turns rows into touchpoints; `ingest.files.table_files` reads the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from schemas.errors import DefinitionsInvalid, Problem
from schemas.identifiers import KINDS, check_kind
from schemas.touchpoints import CALL_TYPES, STAFF_TYPES

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: Final[tuple[str, ...]] = get_args(Format)
IDENTIFY: Final = "profile.identified"  # becomes an identify call: the one type that may set traits
TIME_WORDS: Final = ("iso", "epoch_s", "epoch_ms")
ROOTS: Final = ("context", "properties", "traits")
MAX_BYTES: Final = 1_000_000  # of a mapping file
_NOT_MAPPED: Final = frozenset({CALL_TYPES["group"], CALL_TYPES["alias"], *STAFF_TYPES})


class Model(BaseModel):
    """Frozen; an unknown key is refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Name = Annotated[StrictStr, Field(min_length=1, max_length=512)]
Currency = Annotated[StrictStr, Field(pattern="^[A-Z]{3}$")]


class Value(Model):
    """Where a value comes from: one column, or the sum of a column over the lines of an order.

    `money`: the amounts are in this currency; kept as exact decimals, never as floats. `personal: false`: not
    personal, so that it stays in clear: it is declared so before the import (`FileMapping.declared`).
    """

    column: Name | None = None
    sum: Name | None = None
    money: Currency | None = None
    personal: StrictBool | None = None

    @property
    def source(self) -> str:
        """The column, whether read or summed."""
        return self.column or self.sum or ""


class TraitColumn(Model):
    """Where a trait comes from. `personal`: as of a value."""

    column: Name
    personal: StrictBool | None = None


class Time(Model):
    """The column of the time. `format`: iso, epoch_s, epoch_ms, or a strptime pattern such as "%d.%m.%Y %H:%M"."""

    column: Name
    format: Name = "iso"


def _as_column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


AnyValue = Annotated[Value, BeforeValidator(_as_column)]
AnyTrait = Annotated[TraitColumn, BeforeValidator(_as_column)]
AnyTime = Annotated[Time, BeforeValidator(_as_column)]
Scalar = StrictStr | StrictBool | int | float


class FileMapping(Model):
    """How the lines of a file become touchpoints; the keys are those of the YAML."""

    source: Annotated[StrictStr, Field(min_length=1, max_length=64)]
    format: Format
    type: Name
    identifiers: Annotated[dict[Name, Name], Field(min_length=1)]
    occurred_at: AnyTime
    time_zone: StrictStr = "UTC"
    delimiter: Annotated[StrictStr, Field(min_length=1, max_length=1)] = ","
    id: Name | None = None
    group_by: tuple[Name, ...] = ()
    products: dict[Name, AnyValue] = {}
    properties: dict[Name, AnyValue] = {}
    traits: dict[Name, AnyTrait] = {}
    constant: dict[Name, Scalar] = {}
    historical: StrictBool = False

    def columns(self) -> list[tuple[str, str]]:
        """(path in the mapping, column) of every column the mapping names."""
        named = [(f"identifiers.{kind}", column) for kind, column in self.identifiers.items()]
        named.append(("occurred_at.column", self.occurred_at.column))
        if self.id is not None:
            named.append(("id", self.id))
        named += [(f"group_by.{place}", column) for place, column in enumerate(self.group_by)]
        named += [(f"products.{name}", value.source) for name, value in self.products.items()]
        named += [(f"properties.{name}", value.source) for name, value in self.properties.items()]
        return named + [(f"traits.{name}", trait.column) for name, trait in self.traits.items()]

    def declared(self) -> dict[str, Any]:
        """What the mapping declares about personal fields, as a patch to the definitions; {} if nothing."""
        values = {**self.properties, **{f"products.{name}": value for name, value in self.products.items()}}
        properties = {
            name: {"personal": value.personal} for name, value in values.items() if value.personal is not None
        }
        traits = {
            name: {"personal": trait.personal} for name, trait in self.traits.items() if trait.personal is not None
        }
        return {
            **({"properties": {self.type: properties}} if properties else {}),
            **({"traits": traits} if traits else {}),
        }

    def currency(self) -> str | None:
        """The one currency of its amounts."""
        return next((each.money for each in (*self.properties.values(), *self.products.values()) if each.money), None)


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
        raise _invalid(name, [Problem("", "must be an object with source, format, type, identifiers, occurred_at")])
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
        if column not in columns
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
    yield from _check_zone_and_time(mapping)
    for kind in mapping.identifiers:
        why = check_kind(kind)
        if why:
            yield Problem(f"identifiers.{kind}", f"not a kind ({why}): one of {', '.join(KINDS)}, or your own")
    yield from _check_values(mapping)
    yield from _check_constants(mapping)


def _check_type(mapping: FileMapping) -> Iterator[Problem]:
    if mapping.type in _NOT_MAPPED:
        yield Problem(
            "type", f"{mapping.type} cannot come from a file: a touchpoint such as purchase.completed, or {IDENTIFY}"
        )
    if mapping.traits and mapping.type != IDENTIFY:
        yield Problem("traits", f"only events of type {IDENTIFY} set traits: import them with a separate mapping")
    if mapping.products and mapping.type == IDENTIFY:
        yield Problem("products", f"{IDENTIFY} has no order lines: remove it")
    if not mapping.source.isprintable() or mapping.source != mapping.source.strip():
        yield Problem("source", "must have 1 to 64 printable characters, with no spaces at either end")


def _check_zone_and_time(mapping: FileMapping) -> Iterator[Problem]:
    try:
        ZoneInfo(mapping.time_zone)
    except (KeyError, ValueError, OSError):
        yield Problem("time_zone", f"{mapping.time_zone!r} is not a time zone: write one such as UTC or Europe/Berlin")
    pattern = mapping.occurred_at.format
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
            elif value.sum is not None and not mapping.group_by:
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
        elif root == "traits" and mapping.type != IDENTIFY:
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


def _problems_of(err: ValidationError) -> list[Problem]:
    """One problem per path; the members of a union count as one."""
    found: dict[str, Problem] = {}
    for detail in err.errors(include_url=False):
        loc = detail["loc"]
        if loc[0] == "constant" and len(loc) > 1:
            found[f"constant.{loc[1]}"] = Problem(f"constant.{loc[1]}", "must be text, a number, true or false")
            continue
        path = ".".join(str(step) for step in loc if step != "[key]")
        reason = _FRIENDLY.get(detail["type"], detail["msg"])
        if isinstance(detail["input"], bool) and detail["type"] in ("string_type", "model_type"):
            reason = "YAML reads no, yes, on and off as false and true: put the column's name in quotes"
        if detail["type"] == "extra_forbidden":
            known = _fields_at(loc)
            reason = f"is not a key of a mapping{_did_you_mean(str(loc[-1]), known)}; the keys are {', '.join(known)}"
        found.setdefault(path, Problem(path, reason))
    return list(found.values())


def _fields_at(loc: Sequence[Any]) -> list[str]:
    own: dict[Any, type[Model]] = {"occurred_at": Time, "traits": TraitColumn}
    model = FileMapping if len(loc) == 1 else own.get(loc[0], Value)
    return list(model.model_fields)


def _invalid(name: str, problems: Sequence[Problem]) -> DefinitionsInvalid:
    first = problems[0]
    place = f"{first.path}: " if first.path else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DefinitionsInvalid(f"{name}: {place}{first.reason}{more}", problems)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping, published as `schemas/mapping.schema.json`."""
    schema = FileMapping.model_json_schema()
    for name in ("Value", "TraitColumn", "Time"):
        schema["$defs"][name] = {"anyOf": [{"type": "string", "description": "a column"}, schema["$defs"][name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
