"""Turns the lines of a file into public items, as a mapping says. Pure: no file, no clock, no token."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from ingest.accept.canonical import Refused
from ingest.files.amounts import AmountOf, amount_reader, amount_text
from ingest.files.items import base_item, merged, put_identifier
from ingest.files.notes import Notes
from ingest.files.paths import as_data, step_into
from ingest.files.row_parts import TimeOf, TypeBy
from ingest.files.values import id_text, is_destroyed, is_missing, json_value, plain_text
from schemas.mapping import Column, FileMapping, Value
from schemas.money import scaled
from schemas.placeholders import is_no_id, names_nobody
from schemas.touchpoint_fields import MONEY, texts_of

_ZERO: Final = Decimal(0)
_EXACT_DIGITS: Final = 15
_ID_FIELDS: Final = frozenset({"sku", "till", "transaction_id"})


class Row(NamedTuple):
    """A line of a file with the values of the mapping's columns, in the Shaper's order.

    `content`: keyed hash of the whole row, or b"" if the mapping has an id.
    """

    file: int
    line: int
    values: tuple[Any, ...]
    content: bytes


class Shaped(NamedTuple):
    """An event to accept: a public item without messageId, or why there is none. `natural`: its id, if mapped.

    `at`: when it occurred; None for a refused one.
    """

    row: Row  # the first line; for a refused event, the line to look at
    item: dict[str, Any] | None
    natural: str | None
    content: bytes
    refused: Refused | None
    at: datetime | None = None


def _money(name: str, amount: Decimal) -> str | int | float:
    """An amount as the item carries it: text for the money fields, which the door keeps in clear; else a number, since
    other text is sealed. Up to 15 digits, a double's shortest form is exactly this decimal.
    """
    if name in MONEY or len(amount.as_tuple().digits) > _EXACT_DIGITS:
        return amount_text(amount)
    return float(amount)


def _is_id(name: str) -> bool:
    """Whether a text field numbers or names a thing, so that 1001.0 is 1001."""
    return name.endswith("_id") or name in _ID_FIELDS


class _Read(NamedTuple):
    """One value of an item: its path, its column, and how to read it. `place`: of the column, in a row or a line."""

    name: str
    path: str
    place: int
    money: bool
    text: bool
    sum: bool
    untyped: bool  # of CSV, where numbers come as text


class Shaper:
    """Turns rows into items. A row's values come in the order of `columns`: those the mapping names, each once.

    `now`: nothing occurred a day later; None: not known. What was noticed is in `notes`, the amounts by currency in
    `currencies`: [how many events, the earliest].
    """

    def __init__(self, mapping: FileMapping, now: datetime | None = None) -> None:
        self._mapping = mapping
        self.notes = Notes()
        self.currencies: dict[str, list[Any]] = {}
        self._line_at = 0  # for notes
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(column for _, column in mapping.columns()))
        self._zone = ZoneInfo(mapping.time_zone)
        self._untyped = mapping.format in ("csv", "xlsx")
        minor_of = mapping.currency() if mapping.numbers.minor_units else None
        self._amount: AmountOf = amount_reader(mapping.numbers.decimal, minor_of)
        self._text_amount: AmountOf = amount_reader(mapping.numbers.decimal)
        self._time = TimeOf(mapping.occurred_at, self.columns, self._zone, now)
        self._id_place = None if mapping.id is None else self._place(mapping.id)
        self._group_places = [self._place(column) for column in mapping.group_by]
        self._identifiers = [(kind, self._place(column)) for kind, column in mapping.identifiers.items()]
        self._lines_place = None if mapping.lines is None else self._place(mapping.lines)
        self._line_columns = self._columns_of_lines()
        self._texts = frozenset[str]().union(*(texts_of(type_) for type_ in mapping.types))
        self._properties = self._reads("properties", mapping.properties)
        self._sums = [read for read in self._properties if read.sum]
        self._products = self._reads("products", mapping.products)
        self._traits = [(name, self._place(trait.column)) for name, trait in mapping.traits.items()]
        self._type = None if isinstance(mapping.type, str) else TypeBy(mapping.type, self.columns, self._amount)
        self._bases = {type_: base_item(mapping, type_) for type_ in mapping.types}
        self._same = list(self._identifiers)
        if self._id_place is not None:
            self._same.append(("id", self._id_place))
        self._shared = self._places_of_the_order()
        self._gathers = bool(self._products or self._sums or mapping.group_by)

    def _place(self, column: str) -> int:
        return self.columns.index(column)

    def _columns_of_lines(self) -> tuple[str, ...]:
        """The fields of a line that the mapping names, where lines are objects in one column."""
        if self._mapping.lines is None:
            return ()
        named = [value.source for value in self._mapping.products.values()]
        named += [value.sum for value in self._mapping.properties.values() if value.sum is not None]
        return tuple(dict.fromkeys(named))

    def _places_of_the_order(self) -> tuple[int, ...]:
        """What belongs to an order as a whole: exports leave it blank on all its lines but one."""
        places = {place for _, place in self._same} | {read.place for read in self._properties if not read.sum}
        places |= {place for _, place in self._traits}
        return tuple(sorted(places | (set() if self._type is None else self._type.places)))

    def _reads(self, section: str, values: Mapping[str, Value]) -> list[_Read]:
        return [
            _Read(
                name=name,
                path=f"{section}.{name}",
                place=self._line_columns.index(value.source)
                if self._mapping.in_lines(section, value)
                else self._place(value.source),
                money=value.money is not None,
                text=name in self._texts,
                sum=value.sum is not None,
                untyped=self._untyped and not self._mapping.in_lines(section, value),
            )
            for name, value in values.items()
        ]

    def group_of(self, row: Row) -> tuple[str, ...] | str:
        """The value that the lines of one order share. Raises Refused for a line without it."""
        values = row.values
        if len(self._group_places) == 1:
            value = values[self._group_places[0]]
            if not is_missing(value):
                return self._group_text(value)
        else:
            found = tuple(["" if is_missing(values[at]) else self._group_text(values[at]) for at in self._group_places])
            if any(found):
                return found
        raise Refused("no_group", "group_by", f"has no {' or '.join(self._mapping.group_by)}")

    def _group_text(self, value: object) -> str:
        """1001, 1001.0 and "1001.0" are one order, 1.1 and 1.10 two."""
        if type(value) is int:
            return str(value)
        if is_destroyed(value):
            raise Refused("destroyed_id", "group_by", "its digits are lost (a spreadsheet wrote it like 8.2E+17)")
        return id_text(value) or ""

    def shape(self, rows: Sequence[Row]) -> Shaped:
        """One event from its lines (just one without group_by). One bad line refuses it: part of an order is wrong."""
        first, single = rows[0], len(rows) == 1
        self._line_at = first.line
        bad = [first]  # the line to look at, should one be refused
        try:
            values = first.values if single else self._order_of(rows)
            occurred_at = self._time(values) if single else self._earliest(rows)
            natural = self._natural(values)
            own = self._of_lines(rows, values, bad) if self._gathers else {}
            item = self._item(first.line, self._type_of(rows, values), values)
            properties = dict(item.get("properties", ()))
            for read in self._properties:
                if not read.sum:
                    _set(properties, read.name, self._value(read, values))
        except Refused as refused:
            if not single:
                refused = Refused(refused.rule, refused.path, f"{refused.args[0]}; its {len(rows)} lines are one event")
            return Shaped(bad[-1], None, None, _joined(rows), refused)
        item["timestamp"] = occurred_at.isoformat()
        properties |= own
        if properties:
            item["properties"] = properties
            if "currency" in properties:
                self._count(properties["currency"], occurred_at)
        content = first.content if single else _joined(rows)
        return Shaped(first, item, natural, content, None, occurred_at)

    def _of_lines(self, rows: Sequence[Row], values: Sequence[Any], bad: list[Row]) -> dict[str, Any]:
        """The sums and the lines of an order. `bad` gets each row as it is read."""
        lines: list[dict[str, Any]] = []
        totals: dict[str, Decimal] = {}
        for at in rows:
            bad.append(at)
            self._line_at = at.line
            if len(rows) > 1:
                self._must_agree(values, at, rows[0])
            for line in self._lines_of(at):
                if self._products:
                    lines.append(self._line(line))
                self._add(totals, line)
        own: dict[str, Any] = {name: _money(name, total) for name, total in totals.items()}
        if lines:
            own["products"] = lines
        bad.append(rows[0])
        self._line_at = rows[0].line
        return own

    def _order_of(self, rows: Sequence[Row]) -> tuple[Any, ...]:
        """The first line's values; what it lacks of the order as a whole comes from the first line that has it."""
        values = list(rows[0].values)
        for place in self._shared:
            if is_missing(values[place]):
                values[place] = next((each.values[place] for each in rows if not is_missing(each.values[place])), None)
        return tuple(values)

    def _earliest(self, rows: Sequence[Row]) -> datetime:
        timed = [row for row in rows if self._time.is_there(row.values)] or rows[:1]
        return min(self._time(row.values) for row in timed)

    def _natural(self, values: Sequence[Any]) -> str | None:
        if self._id_place is None:
            return None
        value = values[self._id_place]
        natural = id_text(value)
        if natural is None:
            raise Refused("no_id", "id", f"has no {self._mapping.id}")
        if is_destroyed(value):
            raise Refused("destroyed_id", "id", "its digits are lost (a spreadsheet wrote it like 8.2E+17)")
        return None if is_no_id(natural) else natural

    def _lines_of(self, row: Row) -> Sequence[Sequence[Any]]:
        """The row itself, or the objects in its column of lines."""
        if self._lines_place is None:
            return (row.values,)
        name = self._mapping.lines or ""
        found = as_data(row.values[self._lines_place], name)
        if isinstance(found, dict):
            found = [found]
        if found is not None and not isinstance(found, list):
            raise Refused("bad_lines", "lines", "is not a list of lines")
        return [[_at(line, column) for column in self._line_columns] for line in found or () if isinstance(line, dict)]

    def _add(self, totals: dict[str, Decimal], values: Sequence[Any]) -> None:
        for read in self._sums:
            amount = self._amount(values[read.place], read.path)
            if amount is not None:
                totals[read.name] = totals.get(read.name, _ZERO) + amount

    def _must_agree(self, values: Sequence[Any], other: Row, first: Row) -> None:
        for name, place in self._same:
            one, two = values[place], other.values[place]
            if one != two and not is_missing(two) and id_text(one) != id_text(two):
                reason = f"{self.columns[place]} differs from that of line {first.line}"
                raise Refused("mixed_group", name, reason)

    def _value(self, read: _Read, values: Sequence[Any]) -> Any:
        value = values[read.place]
        if read.money:
            amount = self._amount(value, read.path)
            return None if amount is None else _money(read.name, amount)
        if read.text:
            return self._text(read, value)
        if type(value) is str:
            if read.name in MONEY:
                return self._money_text(read, value)
            if read.name == "quantity":
                return self._quantity(value)
        return json_value(value, untyped=read.untyped, zone=self._zone)

    def _quantity(self, text: str) -> Any:
        """As a number, with the decimal sign of the file's amounts: "1,5" is 1.5."""
        try:
            amount = self._text_amount(text, "quantity")
        except Refused:
            return text.strip() or None
        return json_value(amount, untyped=False, zone=self._zone)

    def _text(self, read: _Read, value: object) -> str | None:
        if not _is_id(read.name):
            return None if is_missing(value) else value.strip() if type(value) is str else plain_text(value)
        if is_destroyed(value):
            self.notes.add("destroyed_id", _DESTROYED.format(read.path), self._line_at)
            return None
        return id_text(value)

    def _money_text(self, read: _Read, text: str) -> str | None:
        """The text of an amount in a column without `money`: in a plain form if it has one meaning, else as it is."""
        if scaled(text) is not None and self._mapping.numbers.decimal != ",":
            return text
        try:
            amount = self._text_amount(text, read.path)
        except Refused:
            self.notes.add("unreadable_amount", _UNREADABLE.format(read.path), self._line_at)
            return text.strip() or None
        return None if amount is None else amount_text(amount)

    def _line(self, values: Sequence[Any]) -> dict[str, Any]:
        line: dict[str, Any] = {}
        for read in self._products:
            value = self._value(read, values)
            if value is not None:
                line[read.name] = value
        return line

    def _type_of(self, rows: Sequence[Row], values: Sequence[Any]) -> str:
        return self._mapping.types[0] if self._type is None else self._type.of([row.values for row in rows], values)

    def _item(self, line: int, type_: str, values: Sequence[Any]) -> dict[str, Any]:
        """The item with its identifiers and traits; sections that vary between events are copied."""
        item = dict(self._bases[type_])
        traits = dict(item.get("traits", ()))
        for name, place in self._traits:
            _set(traits, name, json_value(values[place], untyped=self._untyped, zone=self._zone))
        context: dict[str, Any] = {}
        own_traits = traits if item["type"] == "identify" else {}
        for kind, place in self._identifiers:
            value = self._identifier(kind, values[place], line)
            if value is not None:
                put_identifier(item, context, own_traits, kind, value)
        if own_traits:
            if item["type"] == "identify":
                item["traits"] = own_traits
            else:
                context["traits"] = own_traits
        if context:
            item["context"] = merged(item.get("context", {}), context)
        return item

    def _identifier(self, kind: str, value: object, line: int) -> str | None:
        text = id_text(value)
        if text is None:
            return None
        if is_destroyed(value):
            self.notes.add("destroyed_id", _DESTROYED.format(f"identifiers.{kind}"), line)
            return None
        if names_nobody(kind, text):
            self.notes.add("placeholder", f"identifiers.{kind}: a filler such as N/A or 0, which names nobody", line)
        return text

    def _count(self, currency: object, at: datetime) -> None:
        """One more event with amounts in a currency."""
        known = self.currencies.get(currency) if type(currency) is str else None
        if known is None:
            if isinstance(currency, str):
                self.currencies[currency] = [1, at]
            return
        known[0] += 1
        known[1] = min(known[1], at)


_DESTROYED: Final = "{}: its digits are lost (a spreadsheet wrote it like 8.2E+17), so it is left out"
_UNREADABLE: Final = (
    "{}: an amount that cannot be read, so it counts nowhere: say numbers: {{decimal: …}} in the mapping"
)


def _at(line: Mapping[str, Any], column: str) -> Any:
    return line[column] if column in line else step_into(line, Column(column, tuple(column.split("."))))


def _set(section: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        section[name] = value


def _joined(rows: Iterable[Row]) -> bytes:
    """The content hash of an event: of its one line, or of all its lines in any order."""
    contents = sorted([row.content for row in rows])
    return contents[0] if len(contents) == 1 else blake2b(b"".join(contents), digest_size=16).digest()
