"""Phone numbers to E.164 with phonenumbers, in the deployment's region; recent ones are cached."""

import re
from functools import lru_cache
from typing import Final

import phonenumbers

from schemas.errors import SettingsInvalid

CACHED: Final = 100_000  # a parse costs 40 to 80 µs, a hit 0.1 µs; about 20 MB when full
# Ofcom's and Arcep's numbers for drama and tests, which the metadata calls invalid (those of NANPA it calls valid): a
# trial with made-up people must join them.
_FICTION: Final = re.compile(r"44 (?:7700900|1632960)\d{3}|33 (?:19900|26191|35301|46571|53649|63998)\d{4}")
_DIALLED: Final = re.compile(r"\s*00\s?(?=[1-9])")
MAX_LETTERS: Final = 64  # phonenumbers looks at up to 250, slowly


class Phones:
    """Callable: a number as written -> E.164, or None. `region`: ISO 3166 country of numbers without a prefix.

    A number identifies only where it is valid: `555-1234` without its area code is a thousand people's, `+1 030…`
    nobody's. Nor does one with an extension, which is a shared line. `looking_up`: numbers that are merely possible,
    too, because earlier builds took them (and metadata of a newer version may take fewer); never to make tokens.
    Raises SettingsInvalid for an unknown region.
    """

    def __init__(self, region: str, cached: int = CACHED, *, looking_up: bool = False) -> None:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise SettingsInvalid(f"REGION {region!r} is not a country code of two capital letters, such as US or AT")
        self.region = region
        self._looking_up = looking_up
        self._cached = lru_cache(maxsize=cached)(self._form)

    def __call__(self, text: str) -> str | None:
        return self._cached(text)

    def _form(self, text: str) -> str | None:
        if len(text) > MAX_LETTERS:
            return None
        number = self._number(text)
        if number is None or not _identifies(number):
            dialled = _DIALLED.match(text)  # as dialled in most of the world, sent from where another prefix is
            abroad = None if dialled is None else self._number(f"+{text[dialled.end() :]}")
            if abroad is not None and _identifies(abroad):
                number = abroad
            elif number is None or not (self._looking_up and phonenumbers.is_possible_number(number)):
                return None
        return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    def _number(self, text: str) -> phonenumbers.PhoneNumber | None:
        """Without an extension."""
        try:
            number = phonenumbers.parse(text, self.region)
        except phonenumbers.NumberParseException:
            return None
        return None if number.extension else number


def _identifies(number: phonenumbers.PhoneNumber) -> bool:
    if phonenumbers.is_valid_number(number):
        return True
    return _FICTION.fullmatch(f"{number.country_code} {number.national_number}") is not None
