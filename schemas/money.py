"""Money and other decimals as scaled integers (10^4). Pure.

`scaled` reads plain numbers alone; `schemas.amount_text` reads amounts as people write them, `schemas.sales` what an
event is worth. Sums of floats do not commute, so nothing past these modules holds a float.
"""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

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
