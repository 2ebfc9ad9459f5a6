"""Finds the dead letters that name a person being erased, by searching opened letters for values. Pure."""

import binascii
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec

from schemas.identifiers import PhoneForm, normalise
from schemas.ports import OpenIdentifier

_LONG_ENOUGH: Final = 5  # characters a value must have to be searched for inside longer texts
_WORD: Final = re.compile(r"\w+")


class Names:
    """Searches texts for the identifiers of any number of people; the time per text does not grow with them."""

    def __init__(self, values: Iterable[OpenIdentifier], phone: PhoneForm) -> None:
        self._phone = phone
        values = list(values)
        self._whole = {(each.kind, each.value) for each in values}
        self._kinds = {each.kind for each in values}
        texts = {form.casefold() for each in values for _, form in each.forms if len(form) >= _LONG_ENOUGH}
        texts |= {each.token.hex() for each in values}  # a letter may contain a whole record
        self._by_word: dict[str, list[tuple[str, int]]] = defaultdict(list)  # -> (text, position of this word in it)
        self._wordless: list[str] = []
        for text in sorted(texts):
            word = _WORD.search(text)
            if word is None:
                self._wordless.append(text)
            else:
                self._by_word[word[0]].append((text, word.start()))

    def __bool__(self) -> bool:
        return bool(self._whole)

    def are_in(self, plain: bytes) -> bool:
        """Whether a dead letter names one of them: as a whole field in normal form, or as a word inside a text.

        Values under 5 characters count only as whole fields: "42" occurs in every other letter.
        """
        fields = _fields(plain)
        phone = self._phone
        if any((kind, normalise(kind, field, phone=phone)) in self._whole for kind in self._kinds for field in fields):
            return True
        return any(self._in_text(field.casefold()) for field in fields if isinstance(field, str))

    def _in_text(self, text: str) -> bool:
        if any(each in text for each in self._wordless):
            return True
        for word in _WORD.finditer(text):
            for each, place in self._by_word.get(word[0], ()):
                start = word.start() - place
                end = start + len(each)
                alone = (start < 1 or not _WORD.match(text[start - 1])) and not _WORD.match(text[end : end + 1])
                if start >= 0 and alone and text.startswith(each, start):
                    return True
        return False


def mentions(plain: bytes, values: Iterable[OpenIdentifier], phone: PhoneForm) -> bool:
    """`Names.are_in`, for one letter."""
    return Names(values, phone).are_in(plain)


def _fields(plain: bytes) -> list[str | int | float]:
    """Every scalar and key of a JSON text; the whole text if it is not JSON, or holds bytes that are not."""
    try:
        item = msgspec.json.decode(plain)
    except (msgspec.MsgspecError, RecursionError):
        return [plain.decode(errors="replace")]
    found: list[str | int | float] = []
    if isinstance(item, dict) and isinstance(item.get("bytes"), str):  # a body that is not JSON
        with suppress(binascii.Error):
            found.append(binascii.a2b_base64(item["bytes"]).decode(errors="replace"))
    stack = [item]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            stack.extend(top)
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
        elif isinstance(top, str | int | float):
            found.append(top)
    return found
