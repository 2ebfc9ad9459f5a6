"""Turns the lines of a file into public items, as a mapping says. Pure: no file, no clock, no token.

Amounts are exact: text and the shortest form of a double are read as decimals, rounded half-even to 4 places (the
scale of `schemas.money`), and summed as decimals.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from ingest.accept.canonical import Refused
from schemas.mapping import IDENTIFY, FileMapping, Value
from schemas.placeholders import is_no_id
from schemas.record import EPOCH
from schemas.touchpoint_fields import MONEY, identifiers_in, texts_of

_AMOUNT: Final = re.compile(r"-?\d{1,14}(?:\.\d{1,4})?", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,10})?", re.ASCII)
_PLACES: Final = Decimal("0.0001")
_LARGEST: Final = Decimal(10**14)
_ZERO: Final = Decimal(0)
_EXACT_DIGITS: Final = 15
_TIMES_CACHED: Final = 100_000
_ENCODE: Final = msgspec.json.Encoder(order="sorted", decimal_format="string").encode

_TRAIT_KINDS: Final = frozenset(kind for _, kind in identifiers_in("traits"))


class Row(NamedTuple):
    """A line of a file with the values of the mapping's columns, in the Shaper's order.

    `content`: keyed hash of the whole row, or b"" if the mapping has an id.
    """

    file: int
    line: int
    values: tuple[Any, ...]
    content: bytes


class Shaped(NamedTuple):
    """An event to accept: a public item without messageId, or why there is none. `natural`: its id, if mapped."""

    row: Row  # the first line; for a refused event, the line to look at
    item: dict[str, Any] | None
    natural: str | None
    content: bytes
    refused: Refused | None


# ---------------------------------------------------------------- values


def is_missing(value: object) -> bool:
    """Whether a value is missing: null, empty or blank text, NaN (which data frames write for missing values)."""
    return value is None or (type(value) is str and not value.strip()) or value != value  # noqa: PLR0124


def plain_text(value: object) -> str:
    """The same text for the same value, whether from CSV, JSON or Parquet: "12.00", 12.0 and 12 are all "12"."""
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # kind is str
        if _NUMBER.fullmatch(text):
            return text.rstrip("0").rstrip(".") if "." in text else text
        if text in ("True", "False"):
            return text.lower()
        if len(text) > 10 and text[10] == "T" and text[4] == "-":
            return text[:10] + " " + text[11:].replace("Z", "+00:00")
        return text
    if kind is int:
        return str(value)
    if kind is float or kind is Decimal:
        text = format(Decimal(repr(value)) if kind is float else value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if kind is bool:
        return "true" if value else "false"
    if isinstance(value, date):
        return str(value)
    if kind is bytes:
        return str(value.hex())  # type: ignore[attr-defined]  # kind is bytes
    return _ENCODE(value).decode()


def amount_of(value: object, path: str) -> Decimal | None:
    """An amount as a decimal of at most 4 places; None when missing. Raises Refused."""
    try:
        return _amount(value)
    except (InvalidOperation, TypeError):  # TypeError: a list or an object
        raise Refused("bad_amount", path, "is not an amount: write it like 1234.50") from None


@lru_cache(65_536, typed=True)  # amounts repeat, so this takes a tenth of the time; no amount is personal
def _amount(value: object) -> Decimal | None:
    if is_missing(value):
        return None
    kind = type(value)
    text = value.strip() if kind is str else repr(value) if kind is float else str(value)  # type: ignore[attr-defined]
    if kind is bool or "_" in text:
        raise InvalidOperation
    number = Decimal(text)
    if not number.is_finite() or abs(number) >= _LARGEST:
        raise InvalidOperation
    return number if _AMOUNT.fullmatch(text) else number.quantize(_PLACES, ROUND_HALF_EVEN)


def amount_text(amount: Decimal) -> str:
    """A decimal with two to four places, no exponent: "12.00", "1.2345"."""
    text = format(amount, "f")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


def _money(name: str, amount: Decimal) -> str | int | float:
    """An amount as the item carries it: text for the money fields, which the door keeps in clear; else a number, since
    other text is sealed. Up to 15 digits, a double's shortest form is exactly this decimal.
    """
    if name in MONEY or len(amount.as_tuple().digits) > _EXACT_DIGITS:
        return amount_text(amount)
    return float(amount)


def id_text(value: object) -> str | None:
    """An identifier or name as text, numbers the way people write them: 12.0 is "12". None when missing."""
    if is_missing(value):
        return None
    if type(value) is str:
        return value.strip()
    return plain_text(value)


def json_value(value: object, *, untyped: bool, zone: tzinfo) -> Any:
    """A value as JSON; None when missing. `untyped`: a CSV cell, where numbers and booleans come as text."""
    if is_missing(value):
        return None
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # kind is str
        if untyped and _NUMBER.fullmatch(text):
            return float(text) if "." in text else int(text)
        if untyped and text in ("true", "false", "True", "False"):
            return text in ("true", "True")
        return text
    if kind is Decimal:
        return int(value) if value == int(value) else float(value)  # type: ignore[call-overload, arg-type]  # Decimal
    if isinstance(value, datetime):
        return _utc(value, zone).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if kind is bytes:
        return value.decode(errors="replace")  # type: ignore[attr-defined]  # kind is bytes
    return value


def _utc(at: datetime, zone: tzinfo) -> datetime:
    """A time without a zone is in the mapping's zone; if its hour occurs twice, it is the first."""
    return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)


def time_reader(pattern: str, zone: tzinfo) -> Callable[[object], datetime]:
    """Reads the time column as aware UTC. Raises Refused; repeated values are parsed once."""
    known: dict[object, datetime] = {}

    def read(value: object) -> datetime:
        if isinstance(value, list | dict):
            raise Refused("bad_time", "occurred_at", "is a list or an object")
        found = known.get(value)
        if found is None:
            if is_missing(value):
                raise Refused("bad_time", "occurred_at", "has no time")
            try:
                found = _time(value, pattern, zone)
            except (ValueError, OverflowError, InvalidOperation, TypeError) as err:
                raise Refused("bad_time", "occurred_at", f"is not a time in the format {pattern}") from err
            if len(known) >= _TIMES_CACHED:
                known.clear()
            known[value] = found
        return found

    return read


def _time(value: object, pattern: str, zone: tzinfo) -> datetime:
    if isinstance(value, datetime):
        return _utc(value, zone)
    if isinstance(value, date):
        return _utc(datetime(value.year, value.month, value.day), zone)  # noqa: DTZ001  # _utc gives it the zone
    text = plain_text(value) if type(value) is not str else value.strip()
    if pattern == "iso":
        return _utc(datetime.fromisoformat(text), zone)
    if pattern in ("epoch_s", "epoch_ms"):
        return EPOCH + timedelta(microseconds=int(Decimal(text) * (1_000_000 if pattern == "epoch_s" else 1_000)))
    return _utc(datetime.strptime(text, pattern), zone)  # noqa: DTZ007  # _utc gives it the zone


# ---------------------------------------------------------------- rows


def row_hasher(columns: Sequence[str], secret: bytes) -> Callable[[Sequence[Any]], bytes]:
    """The keyed 128-bit hash of a whole row, independent of the column order and the file's format.

    Missing values do not count, because JSON leaves them out. Keyed, because a row may hold guessable personal values
    and ids are stored in clear.
    """
    order = sorted(range(len(columns)), key=lambda place: columns[place])
    names = list(columns)

    def content(values: Sequence[Any]) -> bytes:
        parts: list[str] = []
        for place in order:
            value = values[place]
            if not is_missing(value):
                parts.append(names[place])
                parts.append(plain_text(value))
        return blake2b(_ENCODE(parts), digest_size=16, key=secret, person=b"tf-import-row").digest()

    return content


class _Read(NamedTuple):
    """One value of an item: its path, its column, and how to read it."""

    name: str
    path: str
    place: int
    money: bool
    text: bool
    sum: bool


class Shaper:
    """Turns rows into items. A row's values come in the order of `columns`: those the mapping names, each once."""

    def __init__(self, mapping: FileMapping) -> None:
        self._mapping = mapping
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(column for _, column in mapping.columns()))
        self._zone = ZoneInfo(mapping.time_zone)
        self._untyped = mapping.format == "csv"
        self._time = time_reader(mapping.occurred_at.format, self._zone)
        self._time_place = self._place(mapping.occurred_at.column)
        self._id_place = None if mapping.id is None else self._place(mapping.id)
        self._group_places = [self._place(column) for column in mapping.group_by]
        self._identifiers = [(kind, self._place(column)) for kind, column in mapping.identifiers.items()]
        self._properties = self._reads("properties", mapping.properties)
        self._sums = [read for read in self._properties if read.sum]
        self._products = self._reads("products", mapping.products)
        self._traits = [(name, self._place(trait.column)) for name, trait in mapping.traits.items()]
        self._base = _base(mapping)
        self._same = list(self._identifiers)
        if self._id_place is not None:
            self._same.append(("id", self._id_place))

    def _place(self, column: str) -> int:
        return self.columns.index(column)

    def _reads(self, section: str, values: Mapping[str, Value]) -> list[_Read]:
        texts = texts_of(self._mapping.type)
        return [
            _Read(
                *(name, f"{section}.{name}", self._place(value.source)),
                *(value.money is not None, name in texts, value.sum is not None),
            )
            for name, value in values.items()
        ]

    def group_of(self, row: Row) -> tuple[str, ...] | str:
        """The value that the lines of one order share. Raises Refused for a line without it."""
        values = row.values
        if len(self._group_places) == 1:
            value = values[self._group_places[0]]
            if not is_missing(value):
                return plain_text(value)
        else:
            found = tuple(["" if is_missing(values[at]) else plain_text(values[at]) for at in self._group_places])
            if any(found):
                return found
        raise Refused("no_group", "group_by", f"has no {' or '.join(self._mapping.group_by)}")

    def shape(self, rows: Sequence[Row]) -> Shaped:
        """One event from its lines (just one without group_by). One bad line refuses it: part of an order is wrong."""
        first = at = rows[0]
        lines: list[dict[str, Any]] = []
        totals: dict[str, Decimal] = {}
        try:
            occurred_at = self._time(first.values[self._time_place])
            natural = self._natural(first.values)
            item = self._item(first, occurred_at)
            properties = dict(item.get("properties", ()))
            for read in self._properties:
                if not read.sum:
                    _set(properties, read.name, self._value(read, first.values))
            for at in rows:
                if at is not first:
                    self._must_agree(first, at)
                    occurred_at = min(occurred_at, self._time(at.values[self._time_place]))
                if self._products:
                    lines.append(self._line(at.values))
                self._add(totals, at.values)
        except Refused as refused:
            if len(rows) > 1:
                refused = Refused(refused.rule, refused.path, f"{refused.args[0]}; its {len(rows)} lines are one event")
            return Shaped(at, None, None, _joined(rows), refused)
        item["timestamp"] = occurred_at.isoformat()
        properties |= {name: _money(name, total) for name, total in totals.items()}
        if lines:
            properties["products"] = lines
        if properties:
            item["properties"] = properties
        return Shaped(first, item, natural, _joined(rows), None)

    def _natural(self, values: Sequence[Any]) -> str | None:
        if self._id_place is None:
            return None
        natural = id_text(values[self._id_place])
        if natural is None:
            raise Refused("no_id", "id", f"has no {self._mapping.id}")
        return None if is_no_id(natural) else natural

    def _add(self, totals: dict[str, Decimal], values: Sequence[Any]) -> None:
        for read in self._sums:
            amount = amount_of(values[read.place], read.path)
            if amount is not None:
                totals[read.name] = totals.get(read.name, _ZERO) + amount

    def _must_agree(self, first: Row, other: Row) -> None:
        if other is first:
            return
        for name, place in self._same:
            one, two = first.values[place], other.values[place]
            if one != two and not (is_missing(one) and is_missing(two)):
                reason = f"{self.columns[place]} differs from that of line {first.line}"
                raise Refused("mixed_group", name, reason)

    def _value(self, read: _Read, values: Sequence[Any]) -> Any:
        value = values[read.place]
        if read.money:
            amount = amount_of(value, read.path)
            return None if amount is None else _money(read.name, amount)
        if read.text:
            return id_text(value)
        if self._untyped and read.name in MONEY and type(value) is str and _AMOUNT.fullmatch(value):
            return value
        return json_value(value, untyped=self._untyped, zone=self._zone)

    def _line(self, values: Sequence[Any]) -> dict[str, Any]:
        line: dict[str, Any] = {}
        for read in self._products:
            value = self._value(read, values)
            if value is not None:
                line[read.name] = value
        return line

    def _item(self, row: Row, occurred_at: datetime) -> dict[str, Any]:
        """The item with its time, identifiers and traits; sections that vary between events are copied."""
        item = {**self._base, "timestamp": occurred_at.isoformat()}
        values = row.values
        traits = dict(item.get("traits", ()))
        for name, place in self._traits:
            _set(traits, name, json_value(values[place], untyped=self._untyped, zone=self._zone))
        context: dict[str, Any] = {}
        own_traits = traits if item["type"] == "identify" else {}
        for kind, place in self._identifiers:
            value = id_text(values[place])
            if value is not None:
                _put_identifier(item, context, own_traits, kind, value)
        if own_traits:
            if item["type"] == "identify":
                item["traits"] = own_traits
            else:
                context["traits"] = own_traits
        if context:
            item["context"] = _merged(item.get("context", {}), context)
        return item


def _put_identifier(
    item: dict[str, Any], context: dict[str, Any], traits: dict[str, Any], kind: str, value: str
) -> None:
    """Put an identifier where Segment's SDKs put it."""
    if kind == "user_id":
        item["userId"] = value
    elif kind == "anonymous_id":
        item["anonymousId"] = value
    elif kind == "device_id":
        context["device"] = {"id": value}
    elif kind in _TRAIT_KINDS:
        traits[kind] = value
    else:
        context.setdefault("externalIds", []).append(
            {"id": value, "type": kind, "collection": "users", "encoding": "none"}
        )


def _base(mapping: FileMapping) -> dict[str, Any]:
    """What all items share: call, name, constants, the currency of the amounts."""
    base: dict[str, Any] = (
        {"type": "identify"} if mapping.type == IDENTIFY else {"type": "track", "event": mapping.type}
    )
    currency = mapping.currency()
    constants: dict[str, Any] = deepcopy(dict(mapping.constant))
    if currency is not None:
        constants.setdefault("properties.currency", currency)
    for path, value in constants.items():
        *parents, leaf = path.split(".")
        node = base
        for step in parents:
            node = node.setdefault(step, {})
        node[leaf] = value
    return base


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The constants' context overlaid with the event's own; objects in both (device) are merged."""
    merged = {**base, **own}
    for name in base.keys() & own.keys():
        if isinstance(base[name], dict) and isinstance(own[name], dict):
            merged[name] = {**base[name], **own[name]}
    return merged


def _set(section: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        section[name] = value


def _joined(rows: Iterable[Row]) -> bytes:
    """The content hash of an event: of its one line, or of all its lines in any order."""
    contents = sorted([row.content for row in rows])
    return contents[0] if len(contents) == 1 else blake2b(b"".join(contents), digest_size=16).digest()
