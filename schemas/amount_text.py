"""Amounts as people and shop systems write them: "1,234.50", "1.234,50 €", "(5.00)", "USD 12". Pure.

A text is read where it can mean one number. `1,234` can mean two, so it needs `decimal`: what its source or file says
about itself (`numbers: {decimal: ","}`). Plain decimals ("1234.50", "1.234") are read as every program writes them,
unless a decimal comma is said.
"""

import re
import unicodedata
from typing import Any, Final, NamedTuple

from schemas.money import scaled, to_decimal
from schemas.placeholders import names_nobody

MAX_LETTERS: Final = 64


class Amount(NamedTuple):
    """A number × 10^4, half-even beyond 4 places, and the currency its text names without doubt."""

    scaled: int
    currency: str | None = None


_CODES: Final = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
    HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
    LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR
    PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SYP SZL THB TJS TMT TND TOP
    TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL
"""
CODES: Final = frozenset(_CODES.split())
"""ISO 4217: money that shops are paid in, and what was until lately."""

# A sign that several currencies share names none of them; None: read, without a currency.
_SIGNS: Final[dict[str, str | None]] = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₺": "TRY", "₽": "RUB", "₩": "KRW", "₪": "ILS", "₫": "VND", "฿": "THB",
    "₴": "UAH", "₦": "NGN", "₱": "PHP", "₸": "KZT", "₾": "GEL", "₡": "CRC", "₲": "PYG", "₼": "AZN", "֏": "AMD",
    "zł": "PLN", "kč": "CZK", "ft": "HUF", "руб": "RUB", "руб.": "RUB", "грн": "UAH", "r$": "BRL", "us$": "USD",
    "c$": "CAD", "ca$": "CAD", "can$": "CAD", "a$": "AUD", "au$": "AUD", "nz$": "NZD", "hk$": "HKD", "s$": "SGD",
    "nt$": "TWD", "mx$": "MXN", "euro": "EUR", "euros": "EUR", "元": "CNY", "円": "JPY",
    "$": None, "¥": None, "kr": None, "kr.": None, "rs": None, "rs.": None, "fr.": None, "fr": None, "лв": None,
    "лв.": None, "ƒ": None,
}  # fmt: skip
_ONE_OF: Final[dict[str, frozenset[str]]] = {
    "¥": frozenset({"JPY", "CNY"}),
    "kr": frozenset({"SEK", "NOK", "DKK", "ISK"}),
}
"""For signs above without a currency: which codes may stand beside them; others: any."""

_SAME: Final = str.maketrans(
    {
        **dict.fromkeys(["\xa0", "\u202f", "\u205f", "\u3000", "\t", *map(chr, range(0x2000, 0x200B))], " "),
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u061c\u2060\ufeff", ""),
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufe63\uff0d\u02d7", "-"),
        **dict.fromkeys("\u2019\u2018\u02bc\u2032\xb4`\u066c", "'"),
        **dict.fromkeys("\u066b\uff0e", "."),
        **dict.fromkeys("\uff0c\u060c", ","),
        "\uff0b": "+", "\uff08": "(", "\uff09": ")", "\uffe5": "¥", "\uff04": "$", "\uffe1": "£", "\u20a3": "fr",
    }
)  # fmt: skip
"""Letters that look alike: spaces, marks that are not seen, minus signs, apostrophes, full-width forms."""

_BODY: Final = re.compile(r"((?:[^\d.,]|(?<=[^\W\d_])\.)*)([\d.,][\d.,' ]*(?:e[+-]?\d+)?)(.*)", re.ASCII | re.DOTALL)
_GROUPED: Final = re.compile(r"[1-9]\d{0,2}(?:([., '])\d{3})(?:\1\d{3})*", re.ASCII)
_INDIAN: Final = re.compile(r"[1-9]\d?(?:,\d{2})+,\d{3}", re.ASCII)
_NO_CENTS: Final = re.compile(r"[.,]\s*--?$", re.ASCII)  # "12,-" and "12.--"


def read_amount(value: object, decimal: str | None = None) -> Amount | None:
    """The amount of a JSON number or a text; None if it is none, or if it can mean two numbers.

    `decimal`: "," or ".", if the source says what its decimal mark is.
    """
    if type(value) is not str:
        found = scaled(value)
        return None if found is None else Amount(found)
    if decimal != ",":
        found = scaled(value)
        if found is not None:
            return Amount(found)
    return _read(value, decimal) if len(value) <= MAX_LETTERS else None


def named_currency(value: object) -> str | None:
    """The currency that a text names by code or sign: upper case, at most 16 letters; None if it names none."""
    if type(value) is not str:
        return None
    text = value.strip()
    code = _SIGNS.get(text.lower()) or text.upper()[:16]
    return None if not code or names_nobody("currency", code) else code


def plain_text(value: object, decimal: str | None = None) -> object:
    """A value of a property that holds money: text that is not a plain decimal as one, everything else as it is."""
    if type(value) is not str or (decimal != "," and scaled(value) is not None):
        return value
    found = read_amount(value, decimal)
    return value if found is None else amount_text(found.scaled)


def amount_text(amount: int) -> str:
    """A scaled integer as a plain decimal that is read alike whatever a source says: never with just three places."""
    text = f"{to_decimal(amount):f}".rstrip("0").rstrip(".")
    return text + "0" if len(text.partition(".")[2]) == 3 else text


def _read(text: str, decimal: str | None) -> Amount | None:
    text = _ascii_digits(text.translate(_SAME)).strip()
    negative = text[:1] == "(" and text[-1:] == ")"
    if negative:
        text = text[1:-1].strip()
    parts = _BODY.fullmatch(_NO_CENTS.sub("", _NO_CENTS_INSIDE.sub(r"\1\2", text)).strip().lower())
    if parts is None:
        return None
    before, body, after = parts[1].strip(), parts[2].strip(), parts[3].strip()
    minus, before, after = _sign(before, after)
    currency = _currency(before, after)
    number = (
        None
        if minus is None or (negative and minus) or currency is _UNKNOWN
        else _number(body, decimal, plain=not before and not after)
    )
    if number is None:
        return None
    assert currency is None or isinstance(currency, str)
    return Amount(-number if negative or minus else number, currency)


_NO_CENTS_INSIDE: Final = re.compile(r"(\d)[.,]\s?--?(\s*[^\d\s.,-]+)$", re.ASCII)  # "12,- €"


def _ascii_digits(text: str) -> str:
    """Digits of other scripts as ASCII; letters that only look like digits (², ½) stay what they are."""
    if text.isascii():
        return text
    return "".join([str(unicodedata.decimal(letter)) if letter.isdecimal() else letter for letter in text])


def _sign(before: str, after: str) -> tuple[bool | None, str, str]:
    """Whether there is a minus, and what is around the number without it; None for two signs."""
    signs = ""
    if before[:1] in ("-", "+"):
        signs, before = before[0], before[1:].strip()
    elif before[-1:] in ("-", "+"):
        signs, before = before[-1], before[:-1].strip()
    if after[:1] == "-":
        signs, after = signs + "-", after[1:].strip()
    elif after[-1:] == "-":
        signs, after = signs + "-", after[:-1].strip()
    return (None if len(signs) > 1 else signs == "-"), before, after


_UNKNOWN: Final = object()


def _currency(before: str, after: str) -> Any:
    """The currency that signs and codes beside a number name, None if they name none, _UNKNOWN if they are something
    else or contradict each other."""
    named: list[str] = []
    shared: list[str] = []
    for words in (before, after):
        for word in _words(words):
            code = word.upper()
            if code in CODES:
                named.append(code)
            elif word in _SIGNS:
                sign = _SIGNS[word]
                if sign is None:
                    shared.append(word)
                else:
                    named.append(sign)
            else:
                return _UNKNOWN
    if len(set(named)) > 1 or len(set(shared)) > 1:
        return _UNKNOWN
    if named and any(named[0] not in _ONE_OF.get(word, CODES) for word in shared):
        return _UNKNOWN
    return named[0] if named else None


def _words(text: str) -> list[str]:
    """The signs and codes of "eur", "us$" or "€ eur"."""
    found: list[str] = []
    for word in text.split():
        if word in _SIGNS or word.upper() in CODES:
            found.append(word)
        elif len(word) > 1 and word[-1] in _SIGNS and word[:-1].upper() in CODES:  # "USD$"
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _SIGNS and word[1:].upper() in CODES:  # "€EUR"
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def _number(body: str, decimal: str | None, *, plain: bool) -> int | None:
    """The digits with their separators. `plain`: nothing is beside them, so that a program may have written them."""
    whole, exponent, _ = body.partition("e")
    if exponent:
        return scaled(body) if plain else None
    marks = {letter for letter in whole if letter in ".,"}
    if len(marks) == 2:
        mark = whole[max(whole.rfind("."), whole.rfind(","))]
        head, _, tail = whole.rpartition(mark)
        if mark in head or not _is_grouped(head) or not tail.isdigit():
            return None
        return scaled(f"{_digits(head)}.{tail}")
    if not marks:
        if whole.isdigit():
            return scaled(whole)
        return scaled(_digits(whole)) if _is_grouped(whole) else None
    mark = marks.pop()
    if whole.count(mark) > 1:
        return scaled(_digits(whole)) if _is_grouped(whole) else None
    head, _, tail = whole.partition(mark)
    if len(tail) == 3 and _GROUPED.fullmatch(whole) and not _GROUPED.fullmatch(head):
        if decimal is None and not (mark == "." and plain):
            return None  # 1234 or 1.234
        if decimal is not None and decimal != mark:
            return scaled(head + tail)
    if not (head or tail) or (tail and not tail.isdigit()) or (head and not head.isdigit() and not _is_grouped(head)):
        return None
    return scaled(f"{_digits(head) or '0'}.{tail or '0'}") if tail or mark == "." else None


def _is_grouped(text: str) -> bool:
    return text.isdigit() or _GROUPED.fullmatch(text) is not None or _INDIAN.fullmatch(text) is not None


def _digits(text: str) -> str:
    return "".join([letter for letter in text if letter.isdigit()])
