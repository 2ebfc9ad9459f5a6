"""The mapping of a file's columns to touchpoints, as a frozen model. Pure.

`schemas.mapping_reading` reads and checks it, `ingest.files.mapped_rows` turns rows into touchpoints by it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

Format = Literal["csv", "jsonl", "parquet", "xlsx"]
FORMATS: Final[tuple[str, ...]] = get_args(Format)
IDENTIFY: Final = "profile.identified"  # becomes an identify call: the one type that may set traits
TIME_WORDS: Final = ("iso", "epoch", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "excel")


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
    """The column of the time. `format`: a word of TIME_WORDS or a strptime pattern such as "%d.%m.%Y %H:%M".

    `epoch` finds out by size whether seconds, milliseconds or microseconds were counted; `excel`: days since 1899.
    `time`: the column of the time of day, where `column` has only the day; the pattern is of both, with a space.
    `at`: one instant for all rows, of a file that has no times.
    """

    column: Name | None = None
    time: Name | None = None
    format: Name = "iso"
    at: AwareDatetime | None = None


class Numbers(Model):
    """How the file writes amounts. `decimal`: the sign before the fraction; left out: amounts speak for themselves.

    `minor_units`: amounts with `money` are in cents (in the currency's smallest unit).
    """

    decimal: Literal[".", ","] | None = None
    minor_units: StrictBool = False


def _keys_as_text(value: object) -> object:
    return {_key_text(key): each for key, each in value.items()} if isinstance(value, dict) else value


def _key_text(key: object) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


class TypeOf(Model):
    """The type by row: by the words of a column, or by the sign of an amount (summed over the lines of an order).

    `map`: word → type; null leaves such rows out. `otherwise`: the type of every other word; without it they are
    refused.
    """

    column: Name | None = None
    map: Annotated[dict[str, Name | None], BeforeValidator(_keys_as_text)] = {}
    otherwise: Name | None = None
    sign_of: Name | None = None
    positive: Name | None = None
    negative: Name | None = None


def _as_column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


AnyValue = Annotated[Value, BeforeValidator(_as_column)]
AnyTrait = Annotated[TraitColumn, BeforeValidator(_as_column)]
AnyTime = Annotated[Time, BeforeValidator(_as_column)]
Scalar = StrictStr | StrictBool | int | float


class FileMapping(Model):
    """How the lines of a file become touchpoints; the keys are those of the YAML."""

    source: Annotated[StrictStr, Field(min_length=1, max_length=64)]
    format: Format | None = None
    type: Name | TypeOf
    identifiers: Annotated[dict[Name, Name], Field(min_length=1)]
    occurred_at: AnyTime
    time_zone: StrictStr = "UTC"
    delimiter: Annotated[StrictStr, Field(min_length=1, max_length=1)] | None = None
    encoding: StrictStr | None = None
    header_row: Annotated[StrictInt, Field(ge=1)] | None = None
    sheet: StrictStr | Annotated[StrictInt, Field(ge=1)] | None = None
    numbers: Numbers = Numbers()
    fill_down: tuple[Name, ...] = ()
    id: Name | None = None
    group_by: tuple[Name, ...] = ()
    lines: Name | None = None
    products: dict[Name, AnyValue] = {}
    properties: dict[Name, AnyValue] = {}
    traits: dict[Name, AnyTrait] = {}
    constant: dict[Name, Scalar] = {}
    historical: StrictBool = False

    def columns(self) -> list[tuple[str, str]]:
        """(path in the mapping, column) of every column the mapping names."""
        named = [(f"identifiers.{kind}", column) for kind, column in self.identifiers.items()]
        single = {"occurred_at.column": self.occurred_at.column, "occurred_at.time": self.occurred_at.time}
        single |= {"id": self.id, "lines": self.lines}
        if isinstance(self.type, TypeOf):
            single |= {"type.column": self.type.column, "type.sign_of": self.type.sign_of}
        named += [(path, column) for path, column in single.items() if column is not None]
        named += [(f"group_by.{place}", column) for place, column in enumerate(self.group_by)]
        named += [(f"fill_down.{place}", column) for place, column in enumerate(self.fill_down)]
        named += [
            (f"{section}.{name}", value.source)
            for section, values in (("products", self.products), ("properties", self.properties))
            for name, value in values.items()
            if not self.in_lines(section, value)
        ]
        return named + [(f"traits.{name}", trait.column) for name, trait in self.traits.items()]

    def in_lines(self, section: str, value: Value) -> bool:
        """Whether a value comes from the objects of the column `lines`, not from a column of the file."""
        return self.lines is not None and (section == "products" or value.sum is not None)

    @property
    def types(self) -> tuple[str, ...]:
        """Every type an event of this file can have."""
        if isinstance(self.type, str):
            return (self.type,)
        named = (*self.type.map.values(), self.type.otherwise, self.type.positive, self.type.negative)
        return tuple(dict.fromkeys(each for each in named if each is not None))

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
            **({"properties": dict.fromkeys(self.types, properties)} if properties else {}),
            **({"traits": traits} if traits else {}),
        }

    def currency(self) -> str | None:
        """The one currency of its amounts."""
        return next((each.money for each in (*self.properties.values(), *self.products.values()) if each.money), None)


class Column(NamedTuple):
    """A column of the file, and the steps into its values."""

    base: str
    steps: tuple[str, ...]


def column_of(name: str, columns: Sequence[str]) -> Column | None:
    """The column that a name means: itself, or the longest that it begins with (`payload.id`: into the JSON of
    `payload`); None if there is none.
    """
    if name in columns:
        return Column(name, ())
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        base = ".".join(parts[:count])
        if base in columns:
            return Column(base, tuple(parts[count:]))
    return None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping, published as `schemas/mapping.schema.json`."""
    schema = FileMapping.model_json_schema()
    for name in ("Value", "TraitColumn", "Time"):
        schema["$defs"][name] = {"anyOf": [{"type": "string", "description": "a column"}, schema["$defs"][name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
