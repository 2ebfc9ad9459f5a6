"""Log records as Arrow columns, for the archive's files and for SQL over the log's tail. Pure.

An unreadable record keeps its bytes and has no `id`; everything that reads events skips it.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from schemas.amount_text import named_currency
from schemas.archive import join, split
from schemas.clear_view import ClearView, Part, Shown
from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.record import (
    CURRENT,
    Identifier,
    Instant,
    Reader,
    Stored,
    encode,
    identifier_set_of,
    to_us,
    uuid_text,
    version_of,
)
from schemas.record import decode as decode_record
from schemas.sales import Worth, sale_of
from schemas.stamps import within
from schemas.waits import Wait, isolate

UUID: Final = pa.string()  # in UUID form: Arrow cannot compare its own UUID type, and DuckDB needs that
TIME: Final = pa.timestamp("us", tz="UTC")
MONEY: Final = pa.decimal128(18, 4)
_TEXTS: Final = pa.list_(pa.string())

_FIELDS: Final[list["pa.Field[Any]"]] = [
    pa.field("partition", pa.int16(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("id", UUID),
    pa.field("message_id", pa.string()),
    pa.field("type", pa.string()),
    pa.field("name", pa.string()),
    pa.field("source", pa.string()),
    pa.field("signature", UUID),
    pa.field("route_key", UUID),
    pa.field("occurred_at", TIME),
    pa.field("received_at", TIME),
    pa.field("known_at", TIME),
    pa.field("order_id", pa.string()),
    pa.field("revenue", MONEY),
    pa.field("currency", pa.string()),
    pa.field("campaign_id", pa.string()),
    pa.field("product_ids", _TEXTS),
    pa.field("properties", pa.string()),
    pa.field("context", pa.string()),
    pa.field("sealed_names", _TEXTS),
    pa.field("n", pa.int32()),  # null, like the flags, in files of builds that did not know them: 0 and none
    pa.field("flags", _TEXTS),
    pa.field("record", pa.binary(), nullable=False),
    pa.field("sealed", pa.binary()),
]
SCHEMA: Final = pa.schema(_FIELDS)
EVENT_SCHEMA: Final = pa.schema([field for field in SCHEMA if field.name not in ("record", "sealed")])
"""Without the original bytes."""


class _Sealed(msgspec.Struct):
    names: list[str]
    key: str = ""
    data: str = ""


class _Event(msgspec.Struct):
    """A record whose properties and context are left as bytes."""

    v: int
    id: str
    type: str
    source: str
    ids: list[Identifier]
    route_key: str
    occurred_at: Instant
    received_at: Instant
    known_at: Instant
    message_id: str | None = None
    name: str | None = None
    properties: msgspec.Raw = msgspec.Raw(b"{}")
    context: msgspec.Raw = msgspec.Raw(b"{}")
    sealed: _Sealed | None = None
    n: int = 0
    flags: list[str] = []


_DECODER: Final = msgspec.json.Decoder(_Event)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def _decoded(value: bytes, reader: Reader) -> _Event | None:
    """The record, lifted to the current version; None if it cannot be read. Raises ReaderTooOld."""
    try:
        event = _DECODER.decode(value)
        if event.v != reader.version and not reader.reads_as_is(event.v):
            event = _DECODER.decode(encode(decode_record(value, reader)))
        bytes.fromhex(event.id.replace("-", "") + event.route_key)
    except ReaderTooOld:
        raise
    except (msgspec.MsgspecError, RecordUnreadable, RecursionError, ValueError) as err:
        if version_of(value) > reader.version:
            raise ReaderTooOld(f"touchpoint v{version_of(value)}; this build reads v{reader.version}") from err
        return None
    return event


def text_of(value: object) -> str | None:
    """An identifier-like property as text; None if it is not one."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _product_ids(properties: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    own = text_of(properties.get("product_id"))
    found = [own, *[_first_text(line, "product_id", "item_id", "sku") for line in lines]]
    return [product for product in found if product is not None]


def _first_text(line: Mapping[str, Any], *names: str) -> str | None:
    return next((found for name in names if (found := text_of(line.get(name))) is not None), None)


def _campaign(properties: Mapping[str, Any], context: bytes) -> str | None:
    found = text_of(properties.get("campaign_id"))
    if found is None and b'"campaign"' in context:
        campaign = _OBJECT.decode(context).get("campaign")
        found = text_of(campaign.get("id")) if isinstance(campaign, dict) else None
    return found


def _currency(properties: Mapping[str, Any], worth: Worth, default: str) -> str | None:
    given = named_currency(properties.get("currency")) or worth.currency
    return given or (None if worth.amount is None else default)


class _IdentifierSets(dict[tuple[str, ...], str]):
    """Tokens in hex → identifier set, cached for one table."""

    def __missing__(self, tokens: tuple[str, ...]) -> str:
        found = self[tokens] = uuid_text(identifier_set_of([bytes.fromhex(token) for token in tokens]))
        return found


def money_array(amounts: Sequence[int | None]) -> "pa.Array[Any]":
    """DECIMAL(18,4) from scaled integers; ten times faster than through Decimal."""
    data = b"".join([(0 if each is None else each).to_bytes(16, "little", signed=True) for each in amounts])
    missing = pa.array([each is not None for each in amounts], pa.bool_())
    return pa.Array.from_buffers(MONEY, len(amounts), [missing.buffers()[1], pa.py_buffer(data)])


def _values(
    event: _Event, identifier_sets: _IdentifierSets, currency: str, shown: Shown | None, decimal: str | None
) -> tuple[Any, ...]:
    """The columns from `id` to `flags`, money scaled and times in microseconds."""
    properties = _OBJECT.decode(event.properties) if shown is None else shown.properties
    sale = sale_of(event.type, properties, decimal)
    context = bytes(event.context) if shown is None else msgspec.json.encode(shown.context)
    raw = bytes(event.properties) if shown is None else msgspec.json.encode(properties)
    names = [] if event.sealed is None else event.sealed.names
    return (
        event.id,
        *(event.message_id, event.type, event.name, event.source),
        identifier_sets[tuple([each.token for each in event.ids])],
        uuid_text(bytes.fromhex(event.route_key)),
        *(to_us(event.occurred_at), to_us(event.received_at), to_us(event.known_at)),
        sale.order_id,
        sale.worth.amount,
        _currency(properties, sale.worth, currency),
        _campaign(properties, context),
        _product_ids(properties, sale.lines),
        raw.decode(),
        context.decode(),
        names if shown is None else shown.names,
        within(event.n),
        event.flags,
    )


def _shown(events: Sequence[_Event | None], view: ClearView | None) -> dict[int, Shown]:
    """By index: the clear views of events, where these differ from the events' own."""
    if view is None:
        return {}
    places: list[int] = []
    parts: list[Part] = []
    for place, event in enumerate(events):
        if event is None:
            continue
        try:
            properties, context = _OBJECT.decode(event.properties), _OBJECT.decode(event.context)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            continue  # a row that says nothing
        sealed = event.sealed
        triple = None if sealed is None else (sealed.key, sealed.data, event.id)
        names = () if sealed is None else sealed.names
        parts.append(Part(event.type, event.name, event.source, properties, context, names, triple))
        places.append(place)
    return {places[number]: shown for number, shown in view.of(parts).items()}


_MISSING: Final = (None,) * 20


def readable_table(
    records: Sequence[Stored],
    currency: str,
    set_aside: Callable[[Wait], bool],
    *,
    originals: bool,
    reader: Reader = CURRENT,
    view: ClearView | None = None,
    decimals: Mapping[str, str] = {},
) -> tuple[pa.Table, Wait | None]:
    """As `event_table`, up to the first record that is of a newer version and not set aside; also returns that record.

    A record that is set aside gets a row like an unreadable one.
    """
    try:
        return event_table(records, currency, originals=originals, reader=reader, view=view, decimals=decimals), None
    except ReaderTooOld:
        found = isolate(records, lambda record: decode_record(record.value, reader), set_aside)
    wait = found.wait
    before = records if wait is None else [each for each in records if each.offset < wait.offset]
    passed = {each.record.offset for each in found.bad}
    table = event_table(
        before, currency, originals=originals, reader=reader, passed=passed, view=view, decimals=decimals
    )
    return table, wait


def event_table(
    records: Sequence[Stored],
    currency: str,
    *,
    originals: bool,
    reader: Reader = CURRENT,
    passed: Container[int] = (),
    view: ClearView | None = None,
    decimals: Mapping[str, str] = {},
) -> pa.Table:
    """Rows of SCHEMA (`originals`: with the record's bytes) or EVENT_SCHEMA. `currency`: for amounts without one.

    `passed`: offsets of records to skip. `view`: what is clear in them; None: what the record itself has in clear.
    `decimals`: source → the decimal mark it writes, where no view says so.
    Raises ReaderTooOld if any other record is of a newer version.
    """
    identifier_sets = _IdentifierSets()
    rows: list[tuple[Any, ...]] = []
    events = [None if record.offset in passed else _decoded(record.value, reader) for record in records]
    shown = _shown(events, view)
    marks = decimals if view is None else view.declared.decimals
    for place, event in enumerate(events):
        try:
            if event is None:
                rows.append(_MISSING)
            else:
                mark = marks.get(event.source)
                rows.append(_values(event, identifier_sets, currency, shown.get(place), mark))
        except (msgspec.MsgspecError, RecursionError, ValueError):
            rows.append(_MISSING)
    schema = SCHEMA if originals else EVENT_SCHEMA
    columns: list[Any] = [[record.partition for record in records], [record.offset for record in records]]
    columns += [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in _MISSING]
    if originals:
        parts = [split(record.value) for record in records]
        columns += [[part.record for part in parts], [part.sealed for part in parts]]
    arrays = [_array(field, column) for field, column in zip(schema, columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(field: "pa.Field[Any]", column: list[Any]) -> "pa.Array[Any]":
    return money_array(column) if field.type == MONEY else pa.array(column, field.type)


def originals(rows: pa.Table) -> list[Stored]:
    """The original records from rows of SCHEMA, byte for byte."""
    columns = [rows.column(name).to_pylist() for name in ("partition", "offset", "record", "sealed")]
    return [Stored(p, offset, join(record, sealed)) for p, offset, record, sealed in zip(*columns, strict=True)]
