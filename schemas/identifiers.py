"""Identifiers as senders give them: where they are found, their normal form, and values that identify nobody. Pure.

Blocked values are those of Segment's and PostHog's defaults: kept in the payload, never used as an identifier.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from schemas.errors import BadRequest, Problem
from schemas.touchpoint_fields import identifiers_in

KINDS: Final = ("user_id", "loyalty_card", "email", "phone", "device_id", "anonymous_id")
MAX_BYTES: Final = 512
MAX_KIND_LETTERS: Final = 64
MAX_EXTERNAL_IDS: Final = 32  # per event; Segment keeps at most 1,000 per profile
EXACT_FLOATS: Final = 2**53  # above this, JSON readers disagree about which integer a float is

# In any letter case, including those that PostHog blocks in one case only ("None", "null", "NaN", …): we know of
# no real id that differs from these only in case, but of serialisers that write NULL.
BLOCKED: Final = frozenset({
    "-1", "null", "none", "nan", "undefined", "true", "false", "[object object]", "anonymous", "guest", "email",
    "id", "distinctid", "distinct_id", "not_authenticated",
})  # fmt: skip
_QUOTES: Final = "\"'`"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffd]")  # U+FFFD: two names become one
_INVISIBLE: Final = "\ufeff\u200b"  # what spreadsheets and copy-and-paste leave at the ends
_NOT_DIGITS: Final = re.compile(r"\D")
_PLAIN: Final = re.compile(r"[0-]*[1-9A-Za-z][!-~]*")  # ASCII without leading spaces or quotes, not only zeros
_OWN_FORMS: Final = frozenset({"email", "phone"})

PhoneForm = Callable[[str], str | None]
Path = tuple[str | int, ...]


class Found(NamedTuple):
    """An identifier where it was found in a public item: `path` leads to the raw value (str, int, float or bool)."""

    kind: str
    value: str | int | float
    path: Path


class Normal(NamedTuple):
    """The normal form, or None with the reason: "blocked", "empty", "too_long", "control_character", …"""

    value: str | None
    reason: str = ""


def normalise(kind: str, value: object, *, phone: PhoneForm) -> str | None:
    """The normal form of an identifier, or None if it is blocked or unusable; `examine` says why.

    `phone` gives the E.164 form of a number as written, or None (`infra.adapters.phones`). Idempotent.
    """
    if type(value) is str and kind not in _OWN_FORMS and len(value) <= MAX_BYTES and _PLAIN.fullmatch(value):
        return None if value.lower() in BLOCKED else value  # most ids are in normal form: a third of the time
    return examine(kind, value, phone=phone).value


def examine(kind: str, value: object, *, phone: PhoneForm) -> Normal:
    """As `normalise`, with the reason if there is no normal form. Ids are case-sensitive, e-mails are not."""
    if type(value) is not str:
        text = _as_text(value)
        if text is None:
            return Normal(None, "not_text")
    else:
        text = value
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", text).strip().strip(_INVISIBLE)
        if _CONTROL.search(text):
            return Normal(None, "control_character")
    text = text.strip()
    if not text:
        return Normal(None, "empty")
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        return Normal(None, "too_long")
    if is_blocked(text):
        return Normal(None, "blocked")
    if kind == "email":
        return _email(text)
    if kind == "phone":
        return _phone(text, phone)
    return Normal(text)


def is_blocked(text: str) -> bool:
    """Whether a trimmed value identifies nobody: a filler word, only zeros and dashes (nil UUID), or these quoted."""
    if text[:1] in _QUOTES:
        text = text.strip(_QUOTES).strip()
    return text.lower() in BLOCKED or not text.strip("0-")


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
    text = unicodedata.normalize("NFC", text.lower())
    local, at, domain = text.partition("@")
    if not at or not local or "@" in domain or any(letter.isspace() for letter in text):
        return Normal(None, "not_an_email")
    if not domain.isascii():
        with suppress(UnicodeError):  # the codec knows only IDNA 2003: a newer domain stays as it is
            domain = domain.encode("idna").decode()
    domain = domain.removesuffix(".")
    if not domain or domain.startswith(".") or ".." in domain or "@" in domain:
        return Normal(None, "not_an_email")
    return Normal(f"{local}@{domain}")


def _phone(text: str, phone: PhoneForm) -> Normal:
    if not _NOT_DIGITS.sub("", text).strip("0"):
        return Normal(None, "blocked")  # "(000) 000-0000"
    number = phone(text)
    return Normal(None, "not_a_phone") if number is None else Normal(number)


def check_kind(kind: str) -> str:
    """Why an external type cannot be used as a kind, or ""."""
    if not kind or len(kind) > MAX_KIND_LETTERS or kind != kind.strip():
        return "empty_or_long_kind"
    if ":" in kind or _CONTROL.search(kind):
        return "kind_with_colon_or_control_character"
    return "reserved_kind" if kind == "profile" else ""


_TRAITS: Final = identifiers_in("traits")
_DEVICE: Final = identifiers_in("context.device")
_SCALARS: Final = (str, int, float)
_USER: Final[Path] = ("userId",)
_ANONYMOUS: Final[Path] = ("anonymousId",)


def extract(item: Mapping[str, Any]) -> list[Found]:
    """Every identifier in a decoded Segment-shaped item, raw, with its path; the same one may be in several places.

    `previousId` of an alias is an anonymous id: that is what SDKs hold before a login. Traits in a `group` are
    the group's, not the person's. External ids count if collection is "users" and encoding "none" (both defaults).
    """
    found: list[Found] = []
    get = item.get
    value = get("userId")
    if isinstance(value, _SCALARS):
        found.append(Found("user_id", value, _USER))
    value = get("anonymousId")
    if isinstance(value, _SCALARS):
        found.append(Found("anonymous_id", value, _ANONYMOUS))
    call = get("type")
    if call == "alias" and "previousId" in item:
        _add(found, "anonymous_id", item["previousId"], ("previousId",))
    traits = get("traits")
    if traits and call != "group":
        _traits(found, traits, ("traits",))
    properties = get("properties")
    if properties:
        _traits(found, properties, ("properties",))
    context = get("context")
    if isinstance(context, dict):
        _context(found, context)
    return found


def _add(found: list[Found], kind: str, value: object, path: Path) -> None:
    if isinstance(value, _SCALARS):
        found.append(Found(kind, value, path))


def _traits(found: list[Found], traits: object, path: Path) -> None:
    if isinstance(traits, dict):
        for name, kind in _TRAITS:
            if name in traits:
                _add(found, kind, traits[name], (*path, name))


def _context(found: list[Found], context: Mapping[str, Any]) -> None:
    if "traits" in context:
        _traits(found, context["traits"], ("context", "traits"))
    device = context.get("device")
    if isinstance(device, dict):
        for name, kind in _DEVICE:
            if name in device:
                _add(found, kind, device[name], ("context", "device", name))
    external = context.get("externalIds")
    if isinstance(external, list):
        for place, entry in enumerate(external[:MAX_EXTERNAL_IDS]):
            if isinstance(entry, dict):
                _external(found, entry, ("context", "externalIds", place, "id"))


def _external(found: list[Found], entry: Mapping[str, Any], path: Path) -> None:
    kind = entry.get("type")
    if not isinstance(kind, str) or check_kind(kind):
        return
    if entry.get("collection", "users") == "users" and entry.get("encoding", "none") == "none":
        _add(found, kind, entry.get("id"), path)


def parse_selector(text: str) -> tuple[str, str]:
    """(kind, raw value) of KIND:VALUE, split at the first colon. Raises BadRequest; here `profile` is a kind too."""
    kind, colon, value = text.partition(":")
    kind, value = kind.strip(), value.strip()
    if not colon or not value or (kind != "profile" and check_kind(kind)):
        reason = f"write KIND:VALUE, such as email:ada@example.com; kinds: {', '.join(KINDS)}, profile, or your own"
        raise BadRequest("not an identifier", [Problem("", reason)])
    return kind, value
