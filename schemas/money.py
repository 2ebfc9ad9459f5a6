"""Money and other decimals as scaled integers (10^4), and the one rule for the revenue of an event. Pure.

`schemas.amount_text.read_amount` reads amounts as people write them; `scaled` reads plain numbers alone. Sums of
floats do not commute, so nothing past this module holds a float.
"""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

SCALE: Final = 10_000
LIMIT: Final = 10**18  # scaled; DECIMAL(18,4), the type of `events.revenue`, ends here
_PLACES: Final = Decimal("0.0001")


def scaled(value: object) -> int | None:
    """A JSON number or decimal string as value × 10^4, half-even beyond 4 places.

    None for anything else (booleans, words, NaN, 10^14 and more): open records carry wrong types, and a
    wrong type is a missing value.
    """
    kind = type(value)
    if kind is str:
        whole, _, part = value.partition(".")  # type: ignore[attr-defined]  # kind is str
        digits = whole[1:] if whole[:1] == "-" else whole
        if len(digits) < 15 and len(part) <= 4 and digits.isdecimal() and digits.isascii():
            if not part:
                return int(whole) * SCALE
            if part.isdecimal() and part.isascii():
                return int(whole + (part + "000")[:4])
        return _scaled_slowly(value)
    if kind is int:
        amount: int = value * SCALE  # type: ignore[operator]  # kind is int
        return amount if -LIMIT < amount < LIMIT else None
    if kind is float or kind is Decimal:
        return _scaled_slowly(repr(value) if kind is float else value)
    return None


def _scaled_slowly(value: object) -> int | None:
    """What the quick path leaves: exponents, signs, long fractions, rubbish."""
    if isinstance(value, str) and (len(value) > 40 or "_" in value or not value.isascii()):
        return None
    try:
        number = Decimal(value)  # type: ignore[arg-type]  # str or Decimal, see `scaled`
        if not number.is_finite() or abs(number) >= LIMIT // SCALE:
            return None
        return int(number.quantize(_PLACES, rounding=ROUND_HALF_EVEN) * SCALE)
    except (InvalidOperation, ValueError):
        return None


def divide(numerator: int, denominator: int) -> int:
    """The nearest integer to the quotient, halves to even. `denominator` > 0."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and whole % 2):
        return whole + 1
    return whole


def to_decimal(amount: int) -> Decimal:
    """A scaled integer as a Decimal with 4 places."""
    return Decimal(amount).scaleb(-4)


def lines_amount(products: object) -> int | None:
    """Σ amount of the order's lines, else Σ price × quantity (1 when absent); None when no line has either."""
    if not isinstance(products, Iterable) or isinstance(products, str | Mapping):
        return None
    lines = [line for line in products if isinstance(line, Mapping)]
    amounts = [a for line in lines if (a := scaled(line.get("amount"))) is not None]
    if amounts:
        return _within(sum(amounts))
    squares = [s for line in lines if (s := _square(line)) is not None]
    return _within(divide(sum(squares), SCALE)) if squares else None


def _square(line: Mapping[str, Any]) -> int | None:
    """price × quantity of one line at 10^8; None without a price."""
    price = scaled(line.get("price"))
    if price is None:
        return None
    quantity = scaled(line.get("quantity"))
    return price * (SCALE if quantity is None else quantity)


def _within(amount: int) -> int | None:
    return amount if -LIMIT < amount < LIMIT else None


def revenue_of(properties: Mapping[str, Any]) -> int | None:
    """The revenue of an event, scaled, in its own currency: `revenue`, else `total`, else from its lines."""
    revenue = scaled(properties.get("revenue"))
    if revenue is None:
        revenue = scaled(properties.get("total"))
    return lines_amount(properties.get("products")) if revenue is None else revenue


def currency_of(value: object, default: str) -> str:
    """The currency of an amount: upper case, at most 16 letters; `default` when it names none."""
    return value.strip().upper()[:16] or default if isinstance(value, str) else default
