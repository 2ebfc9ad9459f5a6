"""The normal form of an identifier: what two are compared by, and nothing else. Pure.

What was sent is kept beside it (`as_sent`) and shown. An id is compared as it is, an e-mail by its form, a phone
number by E.164 where it is valid, cards and codes without spaces and dashes. A value without a normal form identifies
nobody.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.email_form import email_form
from schemas.placeholders import PLAIN, PLAIN_ONES, rule_of

MAX_BYTES: Final = 512
EXACT_FLOATS: Final = 2**53  # above this, JSON readers disagree about which integer a float is
CACHED: Final = 50_000  # a form costs 2 to 40 µs, a hit 0.2 µs; about 15 MB when full
EMPTY: Final = "empty"
BLOCKED: Final = "blocked"

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffd]")  # U+FFFD: two names become one
# What copy-and-paste, spreadsheets and bidirectional text leave: soft hyphens, marks of direction, zero-width spaces.
_UNSEEN: Final = re.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
# Joiners belong to words of other scripts; beside ASCII or at an end they are left over, too.
_JOINERS: Final = re.compile(r"(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
_NOT_DIGITS: Final = re.compile(r"\D")
_PRINTED: Final = re.compile(
    r"[\s\u200c\u200d\u2010-\u2015\u2212\ufe58\ufe63\uff0d-]+"
)  # spaces and dashes that cards are printed with
_CODES: Final = re.compile(r"card|bar_?code|voucher|coupon|membership|loyalty|(?:^|[_\s-])code$|Code$")
_AS_THEY_ARE: Final = frozenset({"user_id", "anonymous_id", "device_id"})

PhoneForm = Callable[[str], str | None]


class Normal(NamedTuple):
    """The normal form, or None with the reason: "blocked", "empty", "too_long", "control_character", …"""

    value: str | None
    reason: str = ""


def normalise(kind: str, value: object, *, phone: PhoneForm) -> str | None:
    """The normal form of an identifier, or None if it is blocked or unusable; `examine` says why.

    `phone` gives the E.164 form of a number as written, or None (`infra.adapters.phones`). Idempotent.
    """
    if type(value) is str and len(value) <= MAX_BYTES:
        if kind in _AS_THEY_ARE and PLAIN.fullmatch(value):
            return None if value.lower() in PLAIN_ONES else value  # most ids: a third of the time
        return _cached(kind, value, phone).value
    return examine(kind, value, phone=phone).value


@lru_cache(maxsize=CACHED)
def _cached(kind: str, value: str, phone: PhoneForm) -> Normal:
    return examine(kind, value, phone=phone)


def examine(kind: str, value: object, *, phone: PhoneForm) -> Normal:
    """As `normalise`, with the reason if there is no normal form. Ids are case-sensitive, e-mails are not."""
    text = value if type(value) is str else _as_text(value)
    if text is None:
        return Normal(None, "not_text")
    if not (text.isascii() and text.isprintable()):
        text = _seen(text.strip())
        if CONTROL.search(text):
            return Normal(None, "control_character")
    text = text.strip()
    if not text:
        return Normal(None, EMPTY)
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        return Normal(None, "too_long")
    if rule_of(kind, text):
        return Normal(None, BLOCKED)
    if kind == "email":
        return _email(text)
    if kind == "phone":
        return _phone(text, phone)
    return _code(text) if kind not in _AS_THEY_ARE and is_code(kind) else Normal(text)


def as_sent(value: object) -> str:
    """An identifier as people are shown it: what was sent, without what cannot be seen at its ends."""
    text = value if type(value) is str else _as_text(value) or ""
    return CONTROL.sub("", text).strip().strip("\ufeff\u200b").strip()


@lru_cache(maxsize=1_000)
def is_code(kind: str) -> bool:
    """Whether a kind is printed on something and typed or scanned: a loyalty card, a voucher, a bar code."""
    return _CODES.search(kind) is not None or _CODES.search(kind.lower()) is not None


def _seen(text: str) -> str:
    text = _UNSEEN.sub("", unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", _JOINERS.sub("", text))


def _as_text(value: object) -> str | None:
    """Numbers as senders meant them: 12345 and 12345.0 are "12345". None for booleans and other types."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if -(10**100) < value < 10**100 else None
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOATS:
        return str(int(value))
    return None


def _email(text: str) -> Normal:
    form = email_form(text)
    if form is None:
        return Normal(None, "not_an_email")
    return Normal(None, BLOCKED) if rule_of("email", form) else Normal(form)


def _phone(text: str, phone: PhoneForm) -> Normal:
    if not _NOT_DIGITS.sub("", text).strip("0"):
        return Normal(None, BLOCKED)  # "(000) 000-0000"
    number = phone(text)
    return Normal(None, "not_a_phone") if number is None else Normal(number)


def _code(text: str) -> Normal:
    code = _PRINTED.sub("", unicodedata.normalize("NFKC", text))
    if not code or rule_of("", code):
        return Normal(None, BLOCKED)
    return Normal(code)
