"""The parts of a public item, where Segment's SDKs put them. Pure."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from schemas.mapping import IDENTIFY, FileMapping
from schemas.touchpoint_fields import identifiers_in

_TRAIT_KINDS: Final = frozenset(kind for _, kind in identifiers_in("traits"))


def put_identifier(
    item: dict[str, Any], context: dict[str, Any], traits: dict[str, Any], kind: str, value: str
) -> None:
    """Put an identifier where Segment's SDKs put it."""
    if kind == "user_id":
        item["userId"] = value
    elif kind == "anonymous_id":
        item["anonymousId"] = value
    elif kind == "device_id":
        context["device"] = {"id": value}
    elif kind in _TRAIT_KINDS:
        traits[kind] = value
    else:
        context.setdefault("externalIds", []).append(
            {"id": value, "type": kind, "collection": "users", "encoding": "none"}
        )


def base_item(mapping: FileMapping, type_: str) -> dict[str, Any]:
    """What all items share: call, name, constants, the currency of the amounts."""
    base: dict[str, Any] = {"type": "identify"} if type_ == IDENTIFY else {"type": "track", "event": type_}
    currency = mapping.currency()
    constants: dict[str, Any] = deepcopy(dict(mapping.constant))
    if currency is not None:
        constants.setdefault("properties.currency", currency)
    for path, value in constants.items():
        *parents, leaf = path.split(".")
        node = base
        for step in parents:
            node = node.setdefault(step, {})
        node[leaf] = value
    return base


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The constants' context overlaid with the event's own; objects in both (device) are merged."""
    merged = {**base, **own}
    for name in base.keys() & own.keys():
        if isinstance(base[name], dict) and isinstance(own[name], dict):
            merged[name] = {**base[name], **own[name]}
    return merged
