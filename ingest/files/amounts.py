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

_AMOUNT: Final = re.compile(r"-?\d{1,14}(?:\.\d{1,4})?", re.ASCII)
_PLACES: Final = Decimal("0.0001")
_LARGEST: Final = Decimal(10**14)
_MOST_LETTERS: Final = 40
_WRITTEN: Final = re.compile(r"(?P<before>[^\d.,]*)(?P<digits>[.,]?\d(?:[\d.,\s'\u2019]*\d)?[.,]?)(?P<after>[^\d.,]*)")
_AROUND: Final = re.compile(
    r"[\s()+\-\u2013\u2014]*(?:[^\W\d_]{1,4}\.?|[^\W\d_]{0,3}[$\u00a2-\u00a5\u20a0-\u20cf])?[\s()+\-\u2013\u2014]*"
)
_EXPONENT: Final = re.compile(r"[+-]?\d+(?:\.\d+)?[eE][+-]?\d+", re.ASCII)
_GROUPED: Final = re.compile(r"\d{1,3}(?:([.,\s'\u2019])\d{3})(?:\1\d{3})*", re.ASCII)
_INDIAN: Final = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}", re.ASCII)
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
    if decimal is None and type(value) is str and _GROUPED.fullmatch(value.strip(" $€£-")):
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
            text = plain_amount(text, decimal)
    else:
        text = repr(value) if kind is float else str(value)
    if kind is bool or "_" in text:
        raise InvalidOperation
    number = Decimal(text)
    if not number.is_finite() or abs(number) >= _LARGEST:
        raise InvalidOperation
    return number if _AMOUNT.fullmatch(text) else number.quantize(_PLACES, ROUND_HALF_EVEN)


def plain_amount(text: str, decimal: str | None) -> str:
    """An amount as people write it, in the form of a decimal: "1.234,50 €" is "1234.50". Raises InvalidOperation.

    `decimal`: the sign before the fraction, or None where the amount must speak for itself.
    """
    text = text.replace("\u2212", "-").strip()
    if text[-1:] == "." and text[-2:-1].isalpha():
        text = text[:-1]  # "20 kr."
    found = _WRITTEN.fullmatch(text) if len(text) <= _MOST_LETTERS else None
    if found is None or _EXPONENT.fullmatch(text):
        return text
    before, digits, after = found["before"], found["digits"], found["after"]
    if not (_AROUND.fullmatch(before) and _AROUND.fullmatch(after)):
        raise InvalidOperation
    if digits[-1] in ".,":  # "1'000.-" has no cents, and is not negative
        digits, after = digits[:-1], after.lstrip(" -\u2013\u2014")
    negative = "-" in before or "-" in after or ("(" in before and ")" in after)
    return ("-" if negative else "") + _digits(digits, decimal)


def _digits(text: str, decimal: str | None) -> str:
    if text.isdecimal():
        return text
    if decimal is None:
        decimal = _decimal_sign(text)
    whole, sign, part = text.rpartition(decimal) if decimal in text else (text, "", "")
    if sign and not whole:
        whole = "0"
    if decimal in whole or not _is_grouped(whole) or not (part.isdecimal() or not part):
        raise InvalidOperation
    whole = "".join(letter for letter in whole if letter.isdecimal())
    return f"{whole}.{part}" if part else whole


def _decimal_sign(text: str) -> str:
    """Which of the two signs is the decimal one, if there is only one way to read it."""
    comma, point = text.rfind(","), text.rfind(".")
    if comma >= 0 and point >= 0:
        return "," if comma > point else "."
    sign = "," if comma >= 0 else "."
    if text.count(sign) > 1:
        return "." if sign == "," else ","  # 1,234,567: only groups
    whole, _, part = text.partition(sign)
    if sign == "," and len(part) == 3 and 0 < len(whole) <= 3 and whole.strip("0"):
        raise InvalidOperation  # 1,234: a thousand and more, or one and a bit
    return sign


def _is_grouped(whole: str) -> bool:
    return whole.isdecimal() or bool(_GROUPED.fullmatch(whole) or _INDIAN.fullmatch(whole))


def amount_text(amount: Decimal) -> str:
    """A decimal with two to four places, no exponent: "12.00", "1.2345"."""
    text = format(amount, "f")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"
