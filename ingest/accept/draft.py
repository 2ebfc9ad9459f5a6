"""One item being made into a record: read in the first pass, finished once its tokens are known. Pure."""

import logging
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ingest.accept.canonical import NOT_IN_DIGEST, Mended, Refused, Unreadable
from ingest.dialects.translate import Fields
from ingest.dialects.visits import derived
from schemas.clear import ContextParts, Ref, ref, split_context
from schemas.clear_rules import Clear
from schemas.dead_letters import INTERNAL
from schemas.identifiers import Path, extract
from schemas.touchpoint_fields import CONTACTS

Pair = tuple[str, str]  # kind and normal form of an identifier
_ENCODE: Final = msgspec.json.Encoder().encode
_NOTHING: Final[Mapping[str, Any]] = {}
_log = logging.getLogger("touchfold.accept")


class Draft:
    """One item being made into a record: read in the first pass, finished once its tokens are known."""

    __slots__ = (
        *("blocked", "context", "encoded", "fields", "flags", "item", "n"),
        *("pairs", "previous", "refused", "sent", "spots"),
    )

    def __init__(self, item: object, n: int = 0) -> None:
        self.n = n  # its place in what arrived together
        self.item: Any = item
        self.encoded = b""
        self.context = b""  # its encoded context; equal bytes mean equal contexts
        self.fields: Fields | None = None
        self.pairs: list[Pair] = []
        self.previous: object = None  # an alias's previousId, until it is known what it names
        self.spots: list[tuple[Path, Pair]] = []
        self.sent: list[tuple[Pair, object]] = []  # values whose normal form is another
        self.blocked: list[tuple[str, object, bool]] = []  # kind and value of what names nobody; whether by definition
        self.flags: list[str] = []  # words of `schemas.record.FLAGS`
        self.refused: Refused | None = None


def by_our_error(err: Exception) -> Refused:
    """Refuses an item that our own error keeps out: it alone is set aside, whole, and `retry` sends it again."""
    _log.error("an item was set aside because of an internal error", exc_info=err)
    return Refused(INTERNAL, "", "an internal error kept it out: see the process's log, and retry it after an upgrade")


def without_identifier(item: Mapping[str, Any]) -> str:
    given = [f"{found.kind} in {'.'.join(map(str, found.path))}" for found in extract(item)]
    others = [f"properties.{name}" for name, _ in CONTACTS if name in (item.get("properties") or ())]
    if others and not given:
        return (
            f"has no userId, anonymousId or other identifier: {others[0]} of this event may be somebody else's;"
            " if it is the customer's own, declare `properties: {EVENT: {"
            f"{others[0].partition('.')[2]}: {{identifies: true}}}}}}` and retry"
        )
    if not given:
        return "has no userId, anonymousId or other identifier"
    return f"none of its identifiers can be used: {', '.join(given[:5])} (empty, blocked or malformed)"


class Surroundings(NamedTuple):
    """A context split into clear and sealed, what of it was derived, and whether a crawler sent it."""

    parts: ContextParts
    mapped: list[str]
    is_bot: bool


IsCrawler = Callable[[str], bool]
Known = dict[bytes, Surroundings]


def surroundings(
    draft: Draft, context: Mapping[str, Any], rules: Clear, known: Known, is_crawler: IsCrawler
) -> Surroundings:
    """What an event's context is; events of one sender share theirs, so it is looked at once (6 µs)."""
    fields = draft.fields
    assert fields is not None, "a draft that is not refused has fields"
    own = fields.properties if fields.type == "web.page_viewed" and "page" not in context else _NOTHING
    encoded = draft.context
    if not encoded or own or context is not draft.item["context"]:  # changed for this event
        return _looked_at(context, own, rules, is_crawler)
    found = known.get(encoded)
    if found is None:
        found = known[encoded] = _looked_at(context, own, rules, is_crawler)
    return found


def _looked_at(
    context: Mapping[str, Any], properties: Mapping[str, Any], rules: Clear, is_crawler: IsCrawler
) -> Surroundings:
    visit, mapped = derived(context, properties)
    agent = context.get("userAgent")
    # an app's agent is its HTTP library, which the list has as a script
    is_bot = type(agent) is str and agent != "" and "app" not in context and is_crawler(agent)
    return Surroundings(split_context(visit, rules), mapped, is_bot)


def with_refs(
    draft: Draft,
    properties: Mapping[str, Any],
    context: Mapping[str, Any],
    traits: Mapping[str, Any],
    tokens: Mapping[Pair, bytes],
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """The sections with each identifier's value replaced by a reference. Copies only what it changes, once."""
    copied: set[int] = set()
    moved = bool(traits) and "traits" not in context and not draft.item.get("traits")  # see translate: rudder
    for path, pair in draft.spots:
        stand_in = ref(tokens[pair], pair[0])
        if path[0] == "properties":
            properties = _replaced(properties, path[1:], stand_in, copied)
        elif path[0] == "traits":
            if traits:  # only an identify keeps its own traits; the record has none from other calls
                traits = _replaced(traits, path[1:], stand_in, copied)
        elif moved and path[1] == "traits":
            traits = _replaced(traits, path[2:], stand_in, copied)
        else:
            context = _replaced(context, path[1:], stand_in, copied)
    return properties, context, traits


def _replaced(value: Any, path: Path, stand_in: Ref, copied: set[int]) -> Any:
    """`value` with the leaf at `path` replaced; objects on the way are copied unless `copied` holds their id."""
    if not path:
        return stand_in
    if id(value) not in copied:
        value = value.copy()
        copied.add(id(value))
    step: Any = path[0]
    value[step] = _replaced(value[step], path[1:], stand_in, copied)
    return value


def bodies_of(draft: Draft) -> tuple[dict[str, Any], bytes]:
    """What a dead letter keeps of an item, and the part that a retry repeats byte for byte."""
    item = draft.item
    if isinstance(item, Mended):
        item = item.item
    if isinstance(item, Unreadable):
        return {"bytes": b64encode(item.raw).decode()}, item.raw
    try:
        stable = draft.encoded
        if not stable:
            content = (
                {key: value for key, value in item.items() if key not in NOT_IN_DIGEST}
                if isinstance(item, dict)
                else item
            )
            stable = _ENCODE(content)
        _ENCODE(item)
        return {"item": item}, stable
    except (TypeError, UnicodeEncodeError, RecursionError):  # Python data that JSON cannot hold
        raw = repr(item).encode(errors="backslashreplace")
        return {"bytes": b64encode(raw).decode()}, raw
