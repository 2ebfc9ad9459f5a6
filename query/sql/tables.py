"""The tables of people and segments as Arrow: what the live revision decided, traits at the reader's clock. Pure.

Direct traits are in none of them: a profile's state only holds the places of their sealed values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from projections.aggregates.registry import value_kind
from projections.decide.evaluator import Evaluator, compile_evaluator
from projections.definitions.files import from_json
from projections.fold.fold import Fold, compile_fold
from schemas.definitions import Definitions
from schemas.event_columns import MONEY, TIME, UUID
from schemas.record import uuid_text

_REASONS: Final = pa.list_(pa.struct([("code", pa.string()), ("points", pa.int32())]))
_WIDE: Final = pa.decimal128(38, 4)  # for sums beyond DECIMAL(18,4)
_TYPES: Final = {"integer": pa.int64(), "decimal": MONEY, "time": TIME, "text": pa.string(), "boolean": pa.bool_()}


def _schema(*columns: tuple[str, Any]) -> pa.Schema:
    return pa.schema([pa.field(name, type_) for name, type_ in columns])


PROFILES: Final = _schema(
    ("profile_id", UUID),
    ("first_seen_at", TIME),
    ("last_seen_at", TIME),
    ("event_count", pa.int64()),
    ("lifecycle", pa.string()),
    ("risk", pa.string()),
    ("risk_reasons", _REASONS),
    ("attributes", pa.string()),
)
SEGMENTS: Final = _schema(
    ("name", pa.string()), ("version", pa.int32()), ("description", pa.string()), ("size", pa.int64())
)
MEMBERSHIPS: Final = _schema(("profile_id", UUID), ("segment", pa.string()), ("version", pa.int32()), ("since", TIME))


class StoredProfile(NamedTuple):
    """A row of profiles_rN as read; `reasons`: JSON [[code, points], …]."""

    profile_id: bytes
    state: bytes
    first_us: int | None
    last_us: int | None
    event_count: int
    lifecycle: str
    risk: str
    reasons: bytes


@dataclass(frozen=True)
class Reader:
    """The live definitions, compiled for reading."""

    definitions: Definitions
    fold: Fold
    evaluator: Evaluator


def compile_reader(definitions: str | bytes, *, time_zone: str, currency: str) -> Reader:
    """`definitions`: as stored in `revisions`."""
    parsed = from_json(definitions)
    fold = compile_fold(parsed, time_zone=time_zone, currency=currency)
    return Reader(parsed, fold, compile_evaluator(parsed, fold, time_zone=time_zone))


def profiles_table(
    reader: Reader | None, rows: Sequence[StoredProfile], at_us: int, columns: frozenset[str] | None = None
) -> pa.Table:
    """`profiles`: PROFILES plus one column for each computed trait.

    `columns`: the names used; if no computed trait is among them, none is computed (20 µs per profile).
    """
    known = reader.evaluator.trait_names if reader else ()
    trait_names = known if columns is None or not columns.isdisjoint(known) else ()
    reasons_of, encode = msgspec.json.Decoder(list[tuple[str, int]]).decode, msgspec.json.Encoder().encode
    traits: dict[str, list[Any]] = {name: [] for name in trait_names}
    attributes: list[str] = []
    if reader and (trait_names or columns is None or "attributes" in columns):
        evaluator, unpack = reader.evaluator, reader.fold.unpack
        made = list(traits.values())
        for row in rows:
            state = unpack(row.state)
            attributes.append(encode(evaluator.attributes(state)).decode())
            values = evaluator.values(state, at_us).values() if trait_names else ()
            for column, value in zip(made, values, strict=True):
                column.append(value)
    arrays: list[Any] = [
        pa.array([uuid_text(row.profile_id) for row in rows], UUID),
        pa.array([row.first_us for row in rows], TIME),
        pa.array([row.last_us for row in rows], TIME),
        pa.array([row.event_count for row in rows], pa.int64()),
        pa.array([row.lifecycle for row in rows], pa.string()),
        pa.array([row.risk for row in rows], pa.string()),
        pa.array(
            [[{"code": code, "points": points} for code, points in reasons_of(row.reasons)] for row in rows], _REASONS
        ),
        pa.array(attributes or ["{}"] * len(rows), pa.string()),
    ]
    table = pa.Table.from_arrays(arrays, schema=PROFILES)
    for name in trait_names:
        kind = value_kind(reader.definitions.computed_traits[name]) if reader else "any"
        table = table.append_column(name, _trait_array(traits[name], kind))
    return table


def _trait_array(values: list[Any], kind: str) -> Any:
    if kind == "any":
        return pa.array([_text(value) for value in values], pa.string())
    try:
        return pa.array(values, _TYPES[kind])
    except pa.ArrowInvalid:
        if kind != "decimal":
            raise
        return pa.array(values, _WIDE)


def _text(value: object) -> str | None:
    """A first or last value, which may have any type, as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def segments_table(reader: Reader | None, sizes: Mapping[int, int], versions: Mapping[str, int]) -> pa.Table:
    """`segments`; `sizes` by index in the evaluator's order, without an entry for empty segments."""
    names = reader.evaluator.segment_names if reader else ()
    rows = [
        {
            "name": name,
            "version": versions.get(name, 1),
            "description": reader.definitions.segments[name].description if reader else "",
            "size": sizes.get(index, 0),
        }
        for index, name in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, schema=SEGMENTS)


def memberships_table(
    reader: Reader | None, rows: Iterable[tuple[int, bytes, int | None]], versions: Mapping[str, int]
) -> pa.Table:
    """`memberships` from (segment index, profile id, since_us)."""
    names = reader.evaluator.segment_names if reader else ()
    known = [row for row in rows if row[0] < len(names)]
    indices = pa.array([row[0] for row in known], pa.int32())
    labels = (
        pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())) if known else pa.array([], pa.string())
    )
    arrays: list[Any] = [
        pa.array([uuid_text(row[1]) for row in known], UUID),
        labels.cast(pa.string()),
        pa.array([versions.get(names[row[0]], 1) for row in known], pa.int32()),
        pa.array([row[2] for row in known], TIME),
    ]
    return pa.Table.from_arrays(arrays, schema=MEMBERSHIPS)
