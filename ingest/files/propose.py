"""Proposes a mapping for a file from its first rows: what each column is, and what the rows are. Pure.

The proposal is for a person to look at: it says what it assumed (`remarks`) and what it could not find (`missing`).
Columns that are for nothing known come in as properties or traits under their own names, sealed unless declared clear.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from ingest.accept.canonical import Refused
from ingest.files import column_roles as roles
from ingest.files.column_kinds import Facts, facts_of
from ingest.files.paths import as_data
from ingest.files.sample import Proposal, Sample, Setting
from ingest.files.values import id_text, is_missing
from schemas.errors import Problem
from schemas.mapping import IDENTIFY
from schemas.touchpoint_fields import MONEY
from schemas.touchpoints import CUSTOM, type_of

_MOST_FIELDS: Final = 40
_MOST_TYPES: Final = 40
_NAMED_CURRENCIES: Final = {"dollar": "USD", "usd": "USD", "eur": "EUR", "euro": "EUR", "gbp": "GBP", "chf": "CHF"}


def propose(sample: Sample, setting: Setting) -> Proposal:
    """The mapping that fits the first rows of a file best."""
    return _Proposer(sample, setting).proposal()


class _Proposer:
    def __init__(self, sample: Sample, setting: Setting) -> None:
        self._sample = sample
        self._setting = setting
        self._remarks: list[str] = []
        self._missing: list[Problem] = []
        self._use: dict[str, str] = {}
        self._assumed = False  # whether the currency is only the deployment's
        twice = {name for name in sample.columns if sample.columns.count(name) > 1}
        self._facts = [
            facts_of(name, place, self._values(place), setting.now, roles.full(name))
            for place, name in enumerate(sample.columns)
            if name and name not in twice
        ]

    def _values(self, place: int) -> list[Any]:
        return [row[place] for row in self._sample.rows]

    # ---------------------------------------------------------------- choosing columns

    def _free(self, *kinds: str) -> list[Facts]:
        return [
            each
            for each in self._facts
            if each.name not in self._use and each.kind != "empty" and (not kinds or each.kind in kinds)
        ]

    def _best(self, words: Sequence[str], facts: Iterable[Facts], use: str) -> Facts | None:
        """The free column that fits the names best; it is in use from then on."""
        ranked = [(rank, each.place, each) for each in facts if (rank := roles.rank(each.name, words)) is not None]
        if not ranked:
            return None
        found = min(ranked)[2]
        self._use[found.name] = use
        return found

    # ---------------------------------------------------------------- the parts

    def proposal(self) -> Proposal:
        who, when = self._identifiers(), self._time()
        what = self._purchase() if self._is_purchase else self._other(who)
        mapping: dict[str, Any] = {"source": self._source(), "format": self._sample.format, **self._layout()}
        if any(each.decimal == "," for each in self._facts):
            mapping["numbers"] = {"decimal": ","}
        mapping |= {"time_zone": self._setting.time_zone, "type": what.pop("type")}
        if "id" in what:
            mapping["id"] = what.pop("id")
        mapping |= {"identifiers": who, "occurred_at": when, **what, "historical": True}
        if self._assumed and "'money'" in str(what):
            currency = self._setting.currency
            self._remarks.append(f"no currency was found: amounts are taken as {currency} (TOUCHFOLD_CURRENCY)")
        if not who:
            reason = "no column looks like a customer: an id, an e-mail address, a phone number or a card"
            self._missing.append(Problem("identifiers", reason))
        uses = [{"column": each.name, "kind": each.kind, "use": self._use.get(each.name, "")} for each in self._facts]
        return Proposal(mapping, self._missing, self._remarks, uses)

    def _source(self) -> str:
        return roles.snake(self._sample.name)[:64]

    def _layout(self) -> dict[str, Any]:
        layout, found = self._sample.layout, dict[str, Any]()
        if layout.delimiter not in (None, ","):
            found["delimiter"] = layout.delimiter
        if layout.encoding not in (None, "utf-8-sig"):
            found["encoding"] = "windows-1252" if layout.encoding == "cp1252" else layout.encoding
        if layout.header_row is not None and layout.header_row > 1:
            found["header_row"] = layout.header_row
        if layout.sheet is not None:
            found["sheet"] = layout.sheet
        return found

    def _identifiers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, words in roles.IDENTIFIERS.items():
            fitting = self._free(kind) if kind in ("email", "phone") else self._free("integer", "text")
            best = self._best(words, fitting, f"identifiers.{kind}")
            if best is None and kind == "email" and fitting:
                best = fitting[0]
                self._use[best.name] = "identifiers.email"
            if best is not None:
                found[kind] = best.name
        return found

    def _time(self) -> dict[str, Any]:
        times = [each for each in self._free("time") if not roles.is_personal(each.name)]
        full = [each for each in times if each.filled * 2 > len(self._sample.rows)] or times
        best = self._best(roles.TIME, full, "occurred_at")
        if best is None and full:
            best = full[0]
            self._use[best.name] = "occurred_at"
        if best is None:
            at = self._sample.modified.replace(microsecond=0).isoformat().replace("+00:00", "Z")
            if self._is_purchase:
                self._missing.append(Problem("occurred_at", "no column looks like a time"))
            else:
                self._remarks.append("no column looks like a time: all rows count as of when the file was written")
            return {"at": at}
        if best.ambiguous:
            order = f"day and month could be the other way round; {best.format} was chosen"
            self._remarks.append(f"{best.name}: {order}, so look at the preview")
        clock = next(iter(self._free("clock")), None)
        if clock is not None and not self._has_clock(best):
            self._use[clock.name] = "occurred_at.time"
            day = "%Y-%m-%d" if best.format == "iso" else best.format
            return {"column": best.name, "time": clock.name, "format": f"{day} {clock.format}"}
        return {"column": best.name, "format": best.format}

    def _has_clock(self, facts: Facts) -> bool:
        values = [value for value in self._values(facts.place)[:200] if not is_missing(value)]
        return any(
            (value.hour, value.minute) != (0, 0) if isinstance(value, datetime) else ":" in str(value)
            for value in values
        )

    @cached_property
    def _is_purchase(self) -> bool:
        """Whether rows are purchases: they have an order or an amount of money."""
        numbers = [each for each in self._facts if each.kind in ("integer", "decimal")]
        money = (*roles.TOTAL, *roles.PRICE, *roles.LINE_TOTAL)
        return self._order is not None or any(roles.rank(each.name, money) is not None for each in numbers)

    @cached_property
    def _order(self) -> Facts | None:
        """The column of the order's number: filled in most rows, and never of two customers."""
        half = len(self._sample.rows) / 2
        facts = [each for each in self._free("integer", "text") if each.filled >= half]
        ranked = [(rank, each.place, each) for each in facts if (rank := self._order_rank(each)) is not None]
        found = next((each for _, _, each in sorted(ranked) if self._one_customer_each(each)), None)
        if found is not None:
            self._use[found.name] = "properties.order_id"
        return found

    def _order_rank(self, facts: Facts) -> int | None:
        if roles.plain(facts.name) == "name":  # Shopify names its orders #1001, in a column Name
            values = (str(value) for value in self._values(facts.place) if not is_missing(value))
            return -1 if all(value.lstrip("#").isdigit() for value in values) else None
        return roles.rank(facts.name, roles.ORDER)

    def _one_customer_each(self, order: Facts) -> bool:
        who = [each for each in self._facts if self._use.get(each.name, "").startswith("identifiers.")]
        return all(self._is_constant(order, each) for each in who[:1])

    def _is_constant(self, order: Facts, other: Facts) -> bool:
        """Whether a column has one value in each order, blank lines aside."""
        seen: dict[str, Any] = {}
        for row in self._sample.rows:
            key, value = id_text(row[order.place]), row[other.place]
            if key is not None and not is_missing(value) and seen.setdefault(key, value) != value:
                return False
        return True

    def _is_of_line(self, order: Facts, other: Facts) -> bool:
        return roles.is_of_line(other.name) or not self._is_constant(order, other)

    # ---------------------------------------------------------------- purchases

    def _purchase(self) -> dict[str, Any]:
        order, money = self._order, self._money()
        grouped = order is not None and order.distinct < order.filled
        lines = {each.name for each in self._free() if order and grouped and self._is_of_line(order, each)}
        type_ = self._type_by_word(roles.PURCHASES) or self._type_by_name(roles.EVENT_NAMES)
        properties: dict[str, Any] = {} if order is None else {"order_id": order.name}
        if not money:
            properties["currency"] = next(name for name, use in self._use.items() if use == "properties.currency")
        store = self._best(roles.SHOP, self._free(), "properties.store_id")
        if store is not None:
            properties["store_id"] = store.name
        column, products = self._json_lines(money)
        total = self._best(
            roles.TOTAL, [each for each in self._numbers() if each.name not in lines], "properties.revenue"
        )
        amount = None if column else self._products(products, lines if grouped else None, money)
        signed = total or amount
        if signed is not None:
            how = "sum" if total is None and grouped else "column"
            properties["revenue"] = {how: signed.name, **money}
        base = "purchase.completed" if store is None else "pos.purchase"
        what: dict[str, Any] = {"type": type_ or self._type_by_sign(base, signed)}
        self._identify_events(what, order, grouped)
        if column:
            what["lines"] = column
        self._add_rest(properties, products, lines, money)
        what |= {name: fields for name, fields in (("products", products), ("properties", properties)) if fields}
        return what | ({"constant": {"context.channel": "store"}} if store is not None else {})

    def _numbers(self) -> list[Facts]:
        return self._free("integer", "decimal")

    def _money(self) -> dict[str, str]:
        """{"money": CODE}, or nothing if a column has the currency of each amount."""
        codes = [each for each in self._free("text") if each.codes]
        column = self._best(roles.CURRENCY, codes, "properties.currency")
        if column is not None and column.distinct > 1:
            return {}
        values = () if column is None else self._values(column.place)
        said = next((str(value).strip().upper() for value in values if not is_missing(value)), None)
        beside = next((each.currency for each in self._facts if each.currency), None)
        named = next((code for each in self._facts for code in self._named_currency(each)), None)
        code = said or beside or named
        self._assumed = code is None
        return {"money": str(code or self._setting.currency)}

    def _named_currency(self, facts: Facts) -> list[str]:
        """USD of dollar_value and total_usd."""
        if facts.kind not in ("integer", "decimal"):
            return []
        return [_NAMED_CURRENCIES[word] for word in roles.full(facts.name).split() if word in _NAMED_CURRENCIES]

    def _products(self, products: dict[str, Any], lines: set[str] | None, money: Mapping[str, str]) -> Facts | None:
        """Fill in the fields of a line; the column of its amount. `lines`: the columns that differ within an order."""
        for field, words in roles.PRODUCT.items():
            found = self._best(words, self._free("integer", "text"), f"products.{field}")
            if found is not None:
                products[field] = found.name
        fields = {"quantity": roles.QUANTITY, "price": roles.PRICE, "amount": roles.LINE_TOTAL}
        for field, words in fields.items():
            free = [each for each in self._numbers() if field != "amount" or lines is None or each.name in lines]
            found = self._best(words, free, f"products.{field}")
            if found is not None:
                products[field] = {"column": found.name, **money} if field in MONEY else found.name
        return found

    def _json_lines(self, money: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """The column that holds the lines of an order as a list of objects, and their fields; "" if there is none."""
        column = next(iter(self._free("lines")), None)
        if column is None:
            return "", {}
        fields = _fields_of_lines(self._values(column.place)[:500], money)
        if fields:
            self._use[column.name] = "lines"
        return (column.name, fields) if fields else ("", {})

    def _type_by_sign(self, base: str, signed: Facts | None) -> str | dict[str, Any]:
        used = {name for name, use in self._use.items() if use in ("products.quantity", "products.price")}
        both = [each for each in self._facts if each is signed or each.name in used]
        found = next((each for each in both if 0 < each.negative < each.distinct), None)
        if found is None:
            return base
        self._remarks.append(f"{found.name} has negative values: they are taken as returns")
        back = "pos.return" if base == "pos.purchase" else "purchase.refunded"
        return {"sign_of": found.name, "positive": base, "negative": back}

    def _type_by_word(self, known: Mapping[str, str]) -> dict[str, Any] | None:
        """The type by a column of words, all of which are known."""
        for facts in self._free("text"):
            if facts.distinct > _MOST_TYPES or roles.rank(facts.name, roles.TYPE) is None:
                continue
            words = list(dict.fromkeys(str(v).strip() for v in self._values(facts.place) if not is_missing(v)))
            if all(word.lower() in known for word in words):
                self._use[facts.name] = "type"
                return {"column": facts.name, "map": {word: known[word.lower()] for word in words}}
        return None

    def _identify_events(self, what: dict[str, Any], order: Facts | None, grouped: bool) -> None:
        """`id` and `group_by`: by the order's number, or by a column that is different in every row."""
        if order is not None and grouped:
            by = what["type"].get("column") if isinstance(what["type"], dict) else None
            kind = next((each for each in self._facts if each.name == by), None)
            apart = kind is not None and not self._is_constant(order, kind)
            what["group_by"] = [order.name, *([by] if apart else [])]
            if not apart and order.filled == len(self._sample.rows):
                what["id"] = order.name
            return
        unique = self._best(roles.EVENT_ID, [each for each in self._free("integer", "text") if each.unique], "id")
        if order is not None and order.unique and order.filled == len(self._sample.rows):
            what["id"] = order.name
        elif unique is not None and unique.filled == len(self._sample.rows):
            what["id"] = unique.name

    def _add_rest(
        self, properties: dict[str, Any], products: dict[str, Any], lines: set[str], money: Mapping[str, str]
    ) -> None:
        people = [each.name for each in self._free() if roles.is_personal(each.name)]
        if people:
            self._remarks.append(
                f"{', '.join(people)}: about the person, not the purchase; a second mapping of type {IDENTIFY} brings "
                "them in as traits"
            )
        for facts in self._free():
            if facts.name in people or facts.kind in ("lines", "object"):
                continue
            section = products if facts.name in lines else properties
            if len(section) < _MOST_FIELDS:
                self._add(section, facts, "products" if section is products else "properties", money)

    def _add(self, section: dict[str, Any], facts: Facts, name: str, money: Mapping[str, str]) -> None:
        field = roles.snake(facts.name)
        if field in section:
            field += "_2"
        amount = field in MONEY and facts.kind in ("integer", "decimal")
        section[field] = {"column": facts.name, **money} if amount else facts.name
        self._use[facts.name] = f"{name}.{field}"

    # ---------------------------------------------------------------- everything else

    def _other(self, who: dict[str, str]) -> dict[str, Any]:
        """Customers, one a row, are identified profiles; other rows are events named by a column or by the file."""
        what: dict[str, Any] = {}
        type_ = self._type_by_name(roles.TYPE)
        if type_ is None and "user_id" not in who:
            numbered = self._best(("id", "uuid"), [each for each in self._free("integer", "text") if each.unique], "")
            if numbered is not None:
                self._use[numbered.name] = "identifiers.user_id"
                who |= {"user_id": numbered.name}
        named = [each for each in self._facts if self._use.get(each.name, "").startswith("identifiers.")]
        section = "properties"
        if type_ is not None:
            what["type"] = type_
        elif any(each.unique for each in named):
            what["type"], section = IDENTIFY, "traits"
        else:
            what["type"] = roles.snake(self._sample.name)
        self._identify_events(what, None, grouped=False)
        fields: dict[str, Any] = {}
        for facts in self._free():
            if facts.kind not in ("lines", "object") and len(fields) < _MOST_FIELDS:
                self._add(fields, facts, section, {})
        return what | ({section: fields} if fields else {})

    def _type_by_name(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The type by a column of event names: those of the table of touchpoints, and the file's own for the rest."""
        facts = [each for each in self._free("text") if each.distinct <= _MOST_TYPES]
        found = self._best(names, facts, "type")
        if found is None:
            return None
        words = list(dict.fromkeys(str(v).strip() for v in self._values(found.place) if not is_missing(v)))
        return {"column": found.name, "map": {word: _type_named(word) for word in words}}


def _type_named(word: str) -> str:
    found = type_of(word)
    return roles.PURCHASES.get(word.lower(), word) if found == CUSTOM else found


def _fields_of_lines(values: Sequence[Any], money: Mapping[str, str]) -> dict[str, Any]:
    """The fields of an order's lines, where each value is a list of objects, or JSON of one."""
    objects: list[dict[str, Any]] = []
    for value in values:
        try:
            found = as_data(value, "")
        except Refused:
            continue
        objects += [each for each in found or () if isinstance(each, dict)]
    names = list(dict.fromkeys(name for each in objects for name in each))
    wanted = {**roles.PRODUCT, "quantity": roles.QUANTITY, "price": roles.PRICE, "amount": roles.LINE_TOTAL}
    fields: dict[str, Any] = {}
    for field, words in wanted.items():
        ranked = [(rank, name) for name in names if (rank := roles.rank(name, words)) is not None]
        if ranked and min(ranked)[1] not in fields.values():
            fields[field] = {"column": min(ranked)[1], **money} if field in MONEY else min(ranked)[1]
    return fields
