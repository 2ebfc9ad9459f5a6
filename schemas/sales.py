"""What an order event says: its order, its amount and currency, its lines. Pure.

The one place that knows the names which senders use for these, in the order in which they are asked; the fold, the
columns of events, SQL and the door all read them here, from what is in the log.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from schemas.amount_text import Amount, read_amount
from schemas.money import LIMIT, SCALE, divide, scaled
from schemas.placeholders import names_nobody
from schemas.touchpoints import BASE_TYPES, ORDER_TYPES, REFUND_TYPES

ORDER_IDS: Final = ("order_id", "orderId", "transaction_id", "transactionId")
"""Names of the order's id. Not among them: `id` and `checkout_id`, which may be those of something else."""
REFUND_IDS: Final = ("refund_id", "refundId")
AMOUNTS: Final = ("revenue", "total", "value")
LINES: Final = ("products", "items")
LINE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "product_id": ("product_id", "item_id"),
    "sku": ("sku",),
    "name": ("name", "item_name"),
    "category": ("category", "item_category"),
    "brand": ("brand", "item_brand"),
    "variant": ("variant", "item_variant"),
}
"""Fields of a line and the names they have; amount, price and quantity have one name each."""
MAX_ID: Final = 128  # characters of an order id kept as is

_MARKS: Final = "\u200b\u200c\u200d\u2060\ufeff"
# Most ids: a few letters and up to eleven digits, of which no placeholder is made. A tenth of the time.
_COMMON: Final = re.compile(r"(?:[A-Za-z#][A-Za-z_-]{0,7})?(?=0*[1-9])[0-9]{1,11}", re.ASCII)
_WHOLE: Final = re.compile(r"(-?\d+)\.0", re.ASCII)
_EXACT: Final = 2**53


def order_id_of(value: object) -> str | None:
    """The normal form of an order or refund id; None if it is none, or a placeholder.

    1001, "1001", "1001.0", 1001.0 and " 1001" are one order, "1.1" and "1.10" two. A long one becomes its hash.
    """
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # kind is str
        if _COMMON.fullmatch(text):
            return text
        if not text.isascii() or not text.isprintable():
            text = text.strip().strip(_MARKS)
        text = text.strip()
        if "." in text:
            whole = _WHOLE.fullmatch(text)
            text = text if whole is None else whole[1]
    elif kind is int:
        if 0 < value < 10**11:  # type: ignore[operator]  # kind is int
            return str(value)
        text = str(value) if abs(value) < 10**MAX_ID else ""  # type: ignore[arg-type]  # kind is int
    elif kind is float:
        text = _float_id(value)  # type: ignore[arg-type]  # kind is float
    else:
        return None
    if not text or names_nobody("order_id", text):
        return None
    return text if len(text) <= MAX_ID else "#" + blake2b(text.encode(), digest_size=16).hexdigest()


def _float_id(value: float) -> str:
    if value - value != 0 or abs(value) > _EXACT:
        return ""
    return str(int(value)) if value.is_integer() else repr(value)


def first_id(values: Iterable[object]) -> str | None:
    """The normal form of the first value that is an id."""
    for value in values:
        found = None if value is None else order_id_of(value)
        if found is not None:
            return found
    return None


def refund_key(order_id: str | None, refund_id: str) -> bytes:
    """The 17 bytes under which copies of a refund are one, whoever sends them; keys of events have 16."""
    text = f"{order_id or ''}\0{refund_id}"
    return b"\1" + blake2b(text.encode(), digest_size=16).digest()


class Worth(NamedTuple):
    """The amount of an event. `amount`: scaled, None if it is unknown. `currency`: as its text names it, None if it
    does not. `unreadable`: an amount is there that could not be read, and none that stands for it."""

    amount: int | None
    currency: str | None = None
    unreadable: bool = False


NOTHING: Final = Worth(None)


def worth_of(amounts: Sequence[object], lines: object, decimal: str | None = None) -> Worth:
    """The first of some amounts that can be read, else what the lines come to. `decimal`: of the source's numbers."""
    bad = False
    for value in amounts:
        if value is None:
            continue
        found = read_amount(value, decimal)
        if found is not None:
            return Worth(*found)
        bad = bad or not _is_blank(value)
    of_lines = lines_worth(lines, decimal)
    return Worth(None, None, bad or of_lines.unreadable) if of_lines.amount is None else of_lines


def _is_blank(value: object) -> bool:
    """Whether a value says that there is none."""
    return type(value) is str and not value.strip()


def lines_of(value: object) -> list[Mapping[str, Any]]:
    """The lines of an order: the objects in a list."""
    return [line for line in value if isinstance(line, Mapping)] if isinstance(value, list) else []


def lines_worth(value: object, decimal: str | None = None) -> Worth:
    """Σ over the lines of the amount, else price × quantity (1 if it has none). Lines with neither add nothing; where
    one cannot be read, the sum is of the others, and says so."""
    amount: int | None = None
    square = 0
    bad = False
    named: set[str] = set()
    for line in lines_of(value):
        found, squared, unreadable = _line(line, decimal)
        bad = bad or unreadable
        if found is not None:
            amount = (amount or 0) + (0 if squared else found.scaled)
            square += found.scaled if squared else 0
            if found.currency is not None:
                named.add(found.currency)
    if amount is None:
        return Worth(None, None, bad)
    total = amount + divide(square, SCALE)
    if not -LIMIT < total < LIMIT or len(named) > 1:
        return Worth(None, None, True)
    return Worth(total, named.pop() if named else None, bad)


def line_amount(line: Mapping[str, Any], decimal: str | None = None) -> int | None:
    """What one line comes to, scaled."""
    found, squared, _ = _line(line, decimal)
    if found is None:
        return None
    return divide(found.scaled, SCALE) if squared else found.scaled


def _line(line: Mapping[str, Any], decimal: str | None) -> tuple[Amount | None, bool, bool]:
    """(the amount of a line; whether it is price × quantity, at 10^8; whether something in it could not be read)"""
    given = line.get("amount")
    if given is not None:
        found = read_amount(given, decimal)
        if found is not None:
            return found, False, False
    price = line.get("price")
    if price is None:
        return None, False, given is not None and not _is_blank(given)
    each, quantity = read_amount(price, decimal), line.get("quantity")
    many = Amount(SCALE) if quantity is None or _is_blank(quantity) else read_amount(quantity, decimal)
    if each is None or many is None:
        return None, False, not _is_blank(price) or (given is not None and not _is_blank(given))
    return Amount(each.scaled * many.scaled, each.currency), True, False


class Sale(NamedTuple):
    """What an event says of an order, read from its properties as they are in clear."""

    order_id: str | None
    worth: Worth
    lines: list[Mapping[str, Any]]


def sale_of(type_: str, properties: Mapping[str, Any], decimal: str | None = None) -> Sale:
    """The order, amount and lines of any event. The names of other dialects count in order events alone: elsewhere
    `value` and `transaction_id` may mean anything."""
    get = properties.get
    if type_ not in ORDER_TYPES:
        worth = worth_of((get("revenue"), get("total")), get("products"), decimal)
        return Sale(order_id_of(get("order_id")), worth, lines_of(get("products")))
    lines = get("products")
    lines = get("items") if lines is None else lines
    order_id = first_id(map(get, ORDER_IDS))
    return Sale(order_id, worth_of([get(name) for name in AMOUNTS], lines, decimal), lines_of(lines))


def unreadable(type_: str, properties: Mapping[str, Any], decimal: str | None = None) -> bool:
    """Whether an order event has an amount that cannot be read, and so is worth an unknown amount."""
    if type_ not in _WITH_AMOUNTS or (decimal is None and scaled(properties.get("revenue")) is not None):
        return False
    sale = sale_of(type_, properties, decimal)
    if sale.worth.unreadable or type_ not in REFUND_TYPES:
        return sale.worth.unreadable
    return sale.worth.amount is None and bool(sale.lines)  # a part was returned, whose price nobody says


_WITH_AMOUNTS: Final = frozenset(BASE_TYPES + REFUND_TYPES)
