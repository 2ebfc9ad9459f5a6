"""Removes other people's data from what a person is given: their identifiers, addresses and numbers. Pure.

Data is known to be somebody else's if the log says so (a token of another profile). An address or number that is not
the person's own, and anything under a word for somebody else (recipient, friend, …), is assumed to be another
person's: better to leave out too much than to give away a friend's address.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schemas.identifiers import PhoneForm, normalise
from schemas.ports import OpenIdentifier

OTHERS: Final = "[another person's]"
_EMAIL: Final = re.compile(r"[^\s@<>()\[\],;:\"']+@[^\s@<>()\[\],;:\"']+\.[^\s@<>()\[\],;:\"']+")
# Not a part of an id such as W007-0007-4001: digits joined to others by a hyphen are not a phone number.
_NUMBER: Final = re.compile(r"(?<![\w.])(?<!\w-)(?:\+|00)\d[\d\s()./-]{5,18}\d(?!-?\w)")
_PHONE_NAMES: Final = re.compile(r"phone|mobile|telephone|\btel\b|fax", re.IGNORECASE)
_IDS: Final = re.compile(
    r"(^|_)(id|ids|sku|code|number|ref|reference)$|[a-z]Ids?$"
)  # an order's number, never a phone number
_OTHERS_NAMES: Final = re.compile(
    r"^(gift|recipient|receiver|giftee|friend|referee|referred|invitee|invited|beneficiary|companion|emergency_contact)"
    r"s?(_?(name|first_?name|last_?name|email|e_?mail|phone|mobile|address|street|city|zip|postcode|to|person|details))?$",
    re.IGNORECASE,
)


class Own(NamedTuple):
    """What belongs to the person: their tokens, opened, and how to read their numbers."""

    opened: Mapping[bytes, OpenIdentifier]
    values: frozenset[tuple[str, str]]  # (kind, normal form)
    phone: PhoneForm

    @classmethod
    def of(cls, opened: Mapping[bytes, OpenIdentifier], phone: PhoneForm) -> "Own":
        return cls(opened, frozenset((each.kind, each.value) for each in opened.values()), phone)

    def has(self, kind: str, text: str) -> bool:
        return (kind, normalise(kind, text, phone=self.phone)) in self.values


def own_values(value: Any, own: Own) -> Any:
    """An opened object with the person's own identifiers in place of their tokens, and nobody else's."""
    if isinstance(value, dict):
        token = value.get("$token")
        if isinstance(token, str):
            found = own.opened.get(bytes.fromhex(token))
            return OTHERS if found is None else found.shown
        return {key: own_values(each, own) for key, each in value.items()}
    return [own_values(each, own) for each in value] if isinstance(value, list) else value


def without_others(value: Any, own: Own, name: str = "", *, others: bool = False) -> Any:
    """The same value with OTHERS in place of what is somebody else's. `name`: the field it is in."""
    if isinstance(value, Mapping):
        return {
            key: without_others(each, own, str(key), others=others or _is_others(str(key)))
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_others(each, own, name, others=others) for each in value]
    if isinstance(value, str):
        return OTHERS if others and not _is_own(value, own) else _text(value, own, name)
    return OTHERS if others and isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_others(name: str) -> bool:
    return (
        _OTHERS_NAMES.match(re.sub(r"[\s.-]+", "_", name)) is not None or _OTHERS_NAMES.match(_snake(name)) is not None
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _is_own(text: str, own: Own) -> bool:
    return own.has("email", text) or own.has("phone", text)


def _text(text: str, own: Own, name: str) -> str:
    if (
        _PHONE_NAMES.search(name)
        and normalise("phone", text, phone=own.phone) is not None
        and not own.has("phone", text)
    ):
        return OTHERS
    if any(text in (each.value, each.shown) for each in own.opened.values()):
        return text
    if "@" in text:
        text = _EMAIL.sub(lambda found: found[0] if own.has("email", found[0].rstrip(".")) else OTHERS, text)
    if _IDS.search(name):
        return text
    return _NUMBER.sub(lambda found: found[0] if own.has("phone", found[0]) else OTHERS, text)
