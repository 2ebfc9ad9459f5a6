"""Translates a public item into the open fields of a record: type, name, properties, context, traits, times. Pure.

`accept` handles identifiers and sealing; `schemas.touchpoints` decides what is personal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ingest.accept.canonical import MAX_NAME, Refused
from ingest.dialects.mapping import mapped
from ingest.requests.clock import Stamps, stamps_of
from schemas.touchpoint_names import DIALECT_NAMES, SNOWPLOW_ACTION
from schemas.touchpoints import CALL_TYPES, CUSTOM, PLAIN, STAFF_TYPES, type_of

CALLS: Final = frozenset({"track", *CALL_TYPES})
_NOTHING: Final[Mapping[str, Any]] = {}
UNREAD: Final = "unread_times"
"""Where in the context the times stand that could not be read."""


class Fields(NamedTuple):
    """The open fields of an item, not yet split into clear and sealed. Sections may be the item's own objects."""

    type: str
    name: str | None
    properties: Mapping[str, Any]
    context: Mapping[str, Any]
    traits: Mapping[str, Any]
    message_id: str | None
    stamps: Stamps
    mapped: Sequence[str] = ()  # our names that were filled in from the sender's


def merge_defaults(item: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The item with its batch's defaults filled in; the contexts are merged key by key, and the item's keys win."""
    merged = {**defaults, **item}
    context = item.get("context")
    if "context" in defaults and isinstance(context, Mapping):
        merged["context"] = {**defaults["context"], **context}
    elif not context and "context" in defaults:  # PHP writes its empty one as an array
        merged["context"] = defaults["context"]
    return merged


def translate(item: Mapping[str, Any]) -> Fields:
    """The open fields of a public item. Raises Refused with rule and path for an item that is not an event."""
    call = item.get("type")
    if type(call) is not str or call not in CALLS:
        if call is None:
            raise Refused("unknown_type", "type", f"is missing: one of {', '.join(sorted(CALLS))}")
        raise Refused("unknown_type", "type", f"is none of {', '.join(sorted(CALLS))}")
    get = item.get
    given = get("context")
    context = given if type(given) is dict else section(item, "context")
    given = get("properties")
    properties = given if type(given) is dict else section(item, "properties")
    traits: Mapping[str, Any] = _NOTHING
    name: str | None = None
    filled: Sequence[str] = ()
    if call == "track":
        name = _event_name(item)
        type_ = _type_of(name, properties, context)
        properties, filled = mapped(type_, name, properties)
    else:
        type_ = CALL_TYPES[call]
        if call == "identify":
            traits, context = _identify(item, context)
        elif call == "group":
            properties = _group(item, properties)
        elif call == "alias":
            # analytics-next's alias("id") sends no previousId: it means its anonymousId.
            if item.get("previousId") in (None, "") and item.get("anonymousId") in (None, ""):
                raise Refused("missing_field", "previousId", "an alias needs userId and previousId or anonymousId")
        else:
            name, properties = _page(item, properties)
    channel = get("channel")
    if type(channel) is str and "channel" not in context:
        context = {**context, "channel": channel}
    message_id = get("messageId")
    if type(message_id) is not str or not message_id:
        message_id = _message_id(item)
    stamps = stamps_of(item)
    if stamps.unread:  # sealed, like all in a context that nothing names
        context = {**context, UNREAD: stamps.unread}
    return Fields(type_, name, properties, context, traits, message_id, stamps, filled)


def type_and_name(item: Mapping[str, Any]) -> tuple[str, str | None]:
    """The type and name that `translate` gives an item it accepts, in a form that never fails."""
    call, name = item.get("type"), item.get("event")
    if call != "track":
        return CALL_TYPES.get(call, CUSTOM) if type(call) is str else CUSTOM, None
    if type(name) is not str or len(name := name.strip()) > MAX_NAME:
        return CUSTOM, None
    if name in STAFF_TYPES:
        return name, None
    properties, context = item.get("properties"), item.get("context")
    sections = (each if isinstance(each, dict) else _NOTHING for each in (properties, context))
    return _type_of(name, *sections), name


def of_staff(item: Mapping[str, Any], fields: Fields) -> Fields:
    """Fields of an item written by staff: its event may be a type that no write key can send.

    A `trait.corrected` has the trait as its name; if its traits lack that one, it withdraws the correction.
    """
    event = item.get("event")
    if event == "trait.corrected":
        return fields._replace(type=event, name=str(item.get("name")))
    return fields._replace(type=event, name=None) if event in STAFF_TYPES else fields


def section(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of the item; absent, null and what PHP makes of an empty one (`[]`) are empty."""
    value = item.get(name)
    if isinstance(value, dict):
        return value
    if value is None or value in ([], ""):
        return _NOTHING
    raise Refused("wrong_type", name, "must be an object")


def _event_name(item: Mapping[str, Any]) -> str:
    name = item.get("event")
    if name is None or name == "":
        raise Refused("missing_field", "event", "a track needs the event's name")
    if type(name) is not str:
        raise Refused("wrong_type", "event", "must be a string")
    name = name.strip()
    if not name or len(name) > MAX_NAME:
        raise Refused("bad_event_name", "event", f"must have 1 to {MAX_NAME} characters")
    return name


def _type_of(name: str, properties: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    if name == SNOWPLOW_ACTION:
        return _snowplow(properties)
    return type_of(name, properties.get("step"), _library(context) if name in PLAIN else "")


def _snowplow(properties: Mapping[str, Any]) -> str:
    """The type of Snowplow's e-commerce action, which has one name for all of them."""
    kind, step = properties.get("type"), properties.get("checkout_step")
    number = step.get("step") if type(step) is dict else properties.get("step")
    return type_of(kind, number) if type(kind) is str and kind in DIALECT_NAMES else CUSTOM


def _library(context: Mapping[str, Any]) -> str:
    library = context.get("library")
    name = library.get("name") if type(library) is dict else None
    return name.lower() if type(name) is str else ""


def _identify(item: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(traits, context): rudder-sdk-python sends traits only inside the context."""
    traits = section(item, "traits")
    if traits or not isinstance(context.get("traits"), dict):
        return traits, context
    return context["traits"], {key: value for key, value in context.items() if key != "traits"}


def _group(item: Mapping[str, Any], properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """A group's traits describe the group, never the person, so they become properties of the event."""
    group = item.get("groupId")
    if group in (None, "") or isinstance(group, dict | list):
        raise Refused("missing_field", "groupId", "a group needs its groupId")
    return {**properties, "group_id": str(group), "traits": section(item, "traits")}


def _page(item: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    name = item.get("name")
    if name is not None and type(name) is not str:
        raise Refused("wrong_type", "name", "must be a string")
    if name is None and type(properties.get("name")) is str:  # Jitsu's SDKs
        name = properties["name"]
    category = item.get("category")
    if type(category) is str and "category" not in properties:
        properties = {**properties, "category": category}
    if name is not None and properties.get("name") == name:  # browsers send it twice
        properties = {key: value for key, value in properties.items() if key != "name"}
    return (name[:MAX_NAME] or None) if name else None, properties


def _message_id(item: Mapping[str, Any]) -> str | None:
    value = item.get("messageId")
    if value is None or value == "":
        return None
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise Refused("wrong_type", "messageId", "must be a string")
