"""What an event of the timeline comes to, in words: "€42.10", "3 items". Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.amount_text import named_currency, read_amount
from schemas.money import SCALE, to_decimal
from schemas.sales import LINES, lines_of, worth_of

Item = Mapping[str, Any]
SYMBOLS: Final[Mapping[str, str]] = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def money(amount: Any, currency: Any) -> str:
    """An amount with its currency; "" for what is none."""
    try:
        value = Decimal(str(amount))
    except (InvalidOperation, ValueError):
        return ""
    if not value.is_finite():
        return ""
    code = str(currency or "").upper()
    return f"{SYMBOLS.get(code, code + ' ' if code else '')}{value:,.2f}"


def amount_of(properties: Item, currency: str) -> str:
    """What the event is worth, from its amounts or its lines; "" if it says nothing of it."""
    values = [properties.get(name) for name in ("revenue", "total", "amount", "value")]
    worth = worth_of(values, _lines(properties))
    if worth.amount is None:
        return "for an amount that cannot be read" if worth.unreadable else ""
    code = named_currency(properties.get("currency")) or worth.currency or currency
    return money(to_decimal(worth.amount), code)


def _lines(properties: Item) -> Any:
    return next((properties[name] for name in LINES if properties.get(name) is not None), None)


def items_of(properties: Item) -> int:
    """How many items an order has."""
    total = 0
    for line in lines_of(_lines(properties)):
        found = read_amount(line.get("quantity"))
        whole = found is not None and found.scaled % SCALE == 0 and 0 < found.scaled < 10_000 * SCALE
        total += found.scaled // SCALE if found is not None and whole else 1
    return total
