"""Identifiers as senders give them: where they are found, and what can be a kind. Pure.

Their normal forms are in `schemas.normal_forms`, the values that name nobody in `schemas.placeholders`.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schemas.clear_rules import NOTHING_DECLARED, Own, own_identifiers
from schemas.errors import BadRequest, Problem
from schemas.normal_forms import CONTROL, MAX_BYTES, Normal, PhoneForm, examine, normalise
from schemas.touchpoint_fields import identifiers_in

__all__ = [
    "KINDS", "MAX_BYTES", "ORDER_KIND", "Found", "Normal", "PhoneForm", "check_kind", "examine", "extract", "normalise",
    "parse_selector",
]  # fmt: skip

KINDS: Final = ("user_id", "loyalty_card", "email", "phone", "device_id", "anonymous_id")
ORDER_KIND: Final = ":order"  # of an event that names an order and nobody; no sender's kind holds a colon
MAX_KIND_LETTERS: Final = 64
MAX_EXTERNAL_IDS: Final = 32  # per event; Segment keeps at most 1,000 per profile

Path = tuple[str | int, ...]


class Found(NamedTuple):
    """An identifier where it was found in a public item: `path` leads to the raw value (str, int, float or bool)."""

    kind: str
    value: str | int | float
    path: Path


def check_kind(kind: str) -> str:
    """Why an external type cannot be used as a kind, or ""."""
    if not kind or len(kind) > MAX_KIND_LETTERS or kind != kind.strip():
        return "empty_or_long_kind"
    if ":" in kind or CONTROL.search(kind):
        return "kind_with_colon_or_control_character"
    return "reserved_kind" if kind == "profile" else ""


_TRAITS: Final = identifiers_in("traits")
_DEVICE: Final = identifiers_in("context.device")
_SCALARS: Final = (str, int, float)
_USER: Final[Path] = ("userId",)
_ANONYMOUS: Final[Path] = ("anonymousId",)
EVERY_EVENT: Final[Own] = own_identifiers(NOTHING_DECLARED, "custom", None)
"""What identifies in the properties of any event; an e-mail address may be that of a gift's recipient."""


def extract(item: Mapping[str, Any], own: Own = EVERY_EVENT) -> list[Found]:
    """Every identifier in a decoded Segment-shaped item, raw, with its path; the same one may be in several places.

    `own`: the properties that are the customer's own identifiers (`schemas.clear_rules.own_identifiers`). `previousId`
    of an alias is an anonymous id: that is what SDKs hold before a login; the door asks whether it is a user's. Traits
    in a `group` are the group's, not the person's. External ids (Segment's `externalIds`, Rudder's `externalId`) count
    if collection is "users" and encoding "none" (both defaults).
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
        _properties(found, properties, own)
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


def _properties(found: list[Found], properties: object, own: Own) -> None:
    if not isinstance(properties, dict):
        return
    for path, kind in own:
        if path[0] in properties:  # nearly never: nothing more is paid for
            value: object = properties
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            _add(found, kind, value, ("properties", *path))


def _context(found: list[Found], context: Mapping[str, Any]) -> None:
    if "traits" in context:
        _traits(found, context["traits"], ("context", "traits"))
    device = context.get("device")
    if isinstance(device, dict):
        for name, kind in _DEVICE:
            if name in device:
                _add(found, kind, device[name], ("context", "device", name))
    for name in ("externalIds", "externalId"):
        external = context.get(name)
        if isinstance(external, list):
            for place, entry in enumerate(external[:MAX_EXTERNAL_IDS]):
                if isinstance(entry, dict):
                    _external(found, entry, ("context", name, place, "id"))


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
