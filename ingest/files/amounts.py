"""Amounts of files as exact decimals: text and the shortest form of a double, rounded half-even to 4 places. Pure.

4 places are the scale of `schemas.money`. What can mean only one thing is read however it is written ("1.234,50 €",
"(5.00)", "$20"); `1,234` alone could mean two and is refused unless the mapping says what a comma is.
"""

import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

from ingest.accept.canonical import Refused
from ingest.files.values import is_missing
from schemas.amount_text import read_amount
from schemas.money import to_decimal

_AMOUNT: Final = re.compile(r"-?\d{1,14}(?:\.\d{1,4})?", re.ASCII)
_PLACES: Final = Decimal("0.0001")
_LARGEST: Final = Decimal(10**14)
_TWO_WAYS: Final = re.compile(r"\d{1,3}[.,]\d{3}", re.ASCII)
_WHOLE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_MINOR: Final = {
    **{_WHOLE[at : at + 3]: 0 for at in range(0, len(_WHOLE), 4)},
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Digits after the point of a currency's smallest unit, where they are not 2 (ISO 4217)."""

AmountOf = Callable[[object, str], "Decimal | None"]


def amount_reader(decimal: str | None = None, minor_of: str | None = None) -> AmountOf:
    """Reads (value, path) as a decimal of at most 4 places; None when missing. The reader raises Refused.

    `decimal`: the decimal sign of text, "." or ","; None: not said. `minor_of`: amounts are in the smallest unit of
    this currency (cents).
    """
    divisor = Decimal(10 ** _MINOR.get(minor_of, 2)) if minor_of is not None else None

    def amount_of(value: object, path: str) -> Decimal | None:
        try:
            amount = _amount(value, decimal)
        except (InvalidOperation, TypeError):  # TypeError: a list or an object
            raise Refused("bad_amount", path, f"is not an amount: {_remedy(value, decimal)}") from None
        if amount is None or divisor is None:
            return amount
        return (amount / divisor).quantize(_PLACES, ROUND_HALF_EVEN)

    return amount_of


def _remedy(value: object, decimal: str | None) -> str:
    if decimal is None and type(value) is str and _TWO_WAYS.fullmatch(value.strip(" $€£-")):
        return 'it could mean two numbers: write numbers: {decimal: "."} (or ",") into the mapping'
    return "write it like 1234,50" if decimal == "," else "write it like 1234.50"


@lru_cache(65_536, typed=True)  # amounts repeat, so this takes a tenth of the time; no amount is personal
def _amount(value: object, decimal: str | None) -> Decimal | None:
    if is_missing(value):
        return None
    kind = type(value)
    if kind is str:
        text = value.strip()  # type: ignore[attr-defined]  # kind is str
        if decimal == "," or not _AMOUNT.fullmatch(text):
            return _written(text, decimal)
    else:
        text = repr(value) if kind is float else str(value)
    if kind is bool or "_" in text:
        raise InvalidOperation
    number = Decimal(text)
    if not number.is_finite() or abs(number) >= _LARGEST:
        raise InvalidOperation
    return number if _AMOUNT.fullmatch(text) else number.quantize(_PLACES, ROUND_HALF_EVEN)


def _written(text: str, decimal: str | None) -> Decimal:
    found = read_amount(text, decimal)
    if found is None:
        raise InvalidOperation
    return to_decimal(found.scaled)


def amount_text(amount: Decimal) -> str:
    """A decimal with two or four places, no exponent: "12.00", "1.2345"; never three, which may be thousands."""
    text = format(amount, "f")
    whole, _, part = text.partition(".")
    part = f"{part.rstrip('0'):0<2}"
    return f"{whole}.{part}" + ("0" if len(part) == 3 else "")
