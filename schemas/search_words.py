"""What a customer is found by: words of names and addresses, and the ends of numbers. Pure; nothing here is stored.

A term is "w:" and a whole word, "p:" and the first 2 to 8 letters of a word, or "l:" and the last 4 to 8 digits of a
number. Stores hold only `keyed` terms, so that the index reveals nothing without the vault's key.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

NAME_TRAITS: Final = frozenset(
    {"name", "fullname", "firstname", "lastname", "givenname", "familyname", "middlename", "surname", "displayname",
     "nickname", "company"}
)  # fmt: skip
SHORTEST, LONGEST = 2, 8  # letters of a prefix
FEWEST, MOST = 4, 8  # digits at the end of a number
MAX_WORDS: Final = 24  # per text: a hostile name is not worth a thousand rows
MAX_NAMES: Final = 12  # name traits per customer
MAX_TEXT: Final = 400  # characters that are looked at
MAX_QUERY: Final = 200
_WORD: Final = re.compile(r"[^\W_]+")
_NUMBER: Final = re.compile(r"[\d\s()+./-]+")
_NOT_DIGITS: Final = re.compile(r"\D")
UNSEARCHED: Final = frozenset({"anonymous_id", "device_id"})  # found only by their full value, through the vault


def is_name(trait: str) -> bool:
    """Whether a trait holds a person's name: firstName, first_name and "First Name" alike."""
    return re.sub(r"[^a-z]", "", trait.lower()) in NAME_TRAITS


@lru_cache(maxsize=20_000)
def fold(text: str) -> str:
    """A text without accents and case: "Łukasz Öz" becomes "lukasz oz"."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(_LETTERS.get(letter, letter) for letter in plain if not unicodedata.combining(letter))


_LETTERS: Final[Mapping[str, str]] = {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"}


def words(text: str) -> list[str]:
    """The folded words of a text."""
    return _WORD.findall(fold(text[:MAX_TEXT]))[:MAX_WORDS]


def searched(text: str) -> list[str]:
    """What somebody searched for, word by word as in the index, or the digits of a number. For the audit log."""
    text = text.strip()[:MAX_QUERY]
    if _NUMBER.fullmatch(text):
        digits = _NOT_DIGITS.sub("", text)
        return [digits] if digits else []
    return list(dict.fromkeys(words(text)))


def _of_word(word: str) -> set[str]:
    terms = {f"w:{word}"}
    terms.update(f"p:{word[:size]}" for size in range(SHORTEST, min(LONGEST, len(word)) + 1))
    return terms


def _of_digits(text: str) -> set[str]:
    digits = _NOT_DIGITS.sub("", text)
    return {f"l:{digits[-size:]}" for size in range(FEWEST, min(MOST, len(digits)) + 1)}


def terms_of(names: Iterable[Any], identifiers: Iterable[tuple[str, str]]) -> set[str]:
    """Every term that finds a customer. `names`: values of name traits; `identifiers`: kind and normal form."""
    terms: set[str] = set()
    for name in islice(names, MAX_NAMES):
        if isinstance(name, str):
            for word in words(name):
                terms |= _of_word(word)
    for kind, value in identifiers:
        if kind in UNSEARCHED:
            continue
        if kind == "email":
            for word in words(value):
                terms |= _of_word(word)
        else:
            terms.add(f"w:{fold(value[:MAX_TEXT])}")
            terms |= _of_digits(value)
            if kind != "phone":
                for word in words(value):
                    terms |= _of_word(word)
    return terms


def query_terms(text: str) -> list[list[str]]:
    """The possible terms for each part of a query: every part must match one of its terms. [] finds nobody."""
    text = text.strip()[:MAX_QUERY]
    if _NUMBER.fullmatch(text) and (digits := _NOT_DIGITS.sub("", text)):
        found = [f"w:{digits}", f"w:+{digits}"]
        if len(digits) >= FEWEST:
            found.append(f"l:{digits[-MOST:]}")
        if len(digits) >= SHORTEST:
            found.append(f"p:{digits[:LONGEST]}")
        return [found]
    parts = []
    for word in words(text):
        if len(word) < SHORTEST:
            continue
        terms = [f"w:{word}"]
        if len(word) <= LONGEST:
            terms.append(f"p:{word}")
        else:
            terms.append(f"p:{word[:LONGEST]}")  # for longer words the opened values are compared
        if word.isdecimal() and FEWEST <= len(word) <= MOST:
            terms.append(f"l:{word}")
        parts.append(terms)
    return parts


def meets(text: str, names: Iterable[Any], identifiers: Iterable[tuple[str, str]]) -> bool:
    """Whether a customer, once opened, matches what was typed: the index knows only the first letters of long words."""
    typed = text.strip()[:MAX_QUERY]
    known = [(kind, value) for kind, value in identifiers if kind not in UNSEARCHED]
    held = [word for name in names if isinstance(name, str) for word in words(name)]
    held += [word for _, value in known for word in words(value)]
    numbers = [_NOT_DIGITS.sub("", value) for _, value in known]
    if _NUMBER.fullmatch(typed):
        digits = _NOT_DIGITS.sub("", typed)
        ends = digits.lstrip("0") or digits
        return any(number.endswith(ends) for number in numbers) or any(word.startswith(digits) for word in held)
    addresses = [fold(value) for kind, value in known if kind == "email"]
    return all(_part_meets(part, held, numbers, addresses) for part in fold(typed).split())


def _part_meets(part: str, held: Sequence[str], numbers: Sequence[str], addresses: Sequence[str]) -> bool:
    if "@" in part:
        return any(address.startswith(part) or address.endswith(part) for address in addresses)
    return all(
        any(each.startswith(word) for each in held)
        or (word.isdecimal() and len(word) >= FEWEST and any(number.endswith(word) for number in numbers))
        for word in words(part)
        if len(word) >= SHORTEST
    )


def search_key(hash_key: bytes) -> bytes:
    """The index's key, derived from the vault's key."""
    return blake2b(hash_key, digest_size=32, person=b"tf-search-key").digest()


def keyed(key: bytes, term: str) -> int:
    """A term as the index stores it: a signed 64-bit number."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8, key=key).digest(), "big", signed=True)
