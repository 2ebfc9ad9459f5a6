"""Gives an event our properties that its dialect calls otherwise. Pure; the sender's own stay as they are."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from ingest.dialects.property_names import BY_TYPE, LINE, LINES, WEBHOOKS, WITH_LINES, Names
from schemas.touchpoint_names import DIALECT_NAMES
from schemas.touchpoints import TYPES

Steps = tuple[str, ...]


class Plan(NamedTuple):
    """What to look for in an event of one type. `begins`: the first steps of all places: most events have none."""

    wanted: tuple[tuple[str, tuple[Steps, ...]], ...]
    begins: frozenset[str]
    lines: bool


_EMPTY: Final = (None, "")
_LINE_PLAN: Final = tuple((name, tuple(tuple(each.split(".")) for each in places)) for name, places in LINE.items())
_LINE_BEGINS: Final = frozenset(steps[0] for _, places in _LINE_PLAN for steps in places)
_LINE_PLACES: Final = tuple(tuple(place.split(".")) for place in LINES)
_GID: Final = "gid://shopify/"  # its API's ids; webhooks send the same without it
_LINE_FIRST: Final = frozenset(steps[0] for steps in _LINE_PLACES)


def mapped(type_: str, name: str | None, properties: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The properties with ours filled in where they were absent, and which those are.

    Nothing is changed in place. An event that has our names, or none of anybody's, costs one look (0.2 µs).
    """
    plan = _plan(type_, _webhook(name))
    if plan is None:
        return properties, []
    found: dict[str, Any] = {}
    if not plan.begins.isdisjoint(properties):
        for ours, places in plan.wanted:
            if properties.get(ours) in _EMPTY and not (ours == "revenue" and _has_total(properties, found)):
                value = _first(properties, places)
                if value is not None:
                    found[ours] = value
    if plan.lines:
        lines = _lines(properties)
        if lines is not None:
            found["products"] = lines
    return ({**properties, **found}, sorted(found)) if found else (properties, [])


def _has_total(properties: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """A `value` beside a total says nothing new, and revenue would come before the total."""
    return "total" in found or properties.get("total") not in _EMPTY


def _webhook(name: str | None) -> str:
    return name if name is not None and "/" in name and name in DIALECT_NAMES else ""


@cache
def _plan(type_: str, webhook: str) -> Plan | None:
    if type_ not in TYPES:
        return None
    fitting = max((begin for begin in BY_TYPE if type_.startswith(begin)), key=len, default=None)
    if fitting is None:
        return None
    names: Names = WEBHOOKS[webhook] if webhook else BY_TYPE[fitting]
    wanted = tuple((ours, tuple(tuple(place.split(".")) for place in places)) for ours, places in names.items())
    lines = type_.startswith(WITH_LINES)
    begins = {steps[0] for _, places in wanted for steps in places}
    return Plan(wanted, frozenset(begins), lines)


def _first(value: Mapping[str, Any], places: tuple[Steps, ...]) -> Any:
    """The first plain value found at one of some places; None if there is none."""
    for steps in places:
        if steps[0] in value:
            found = _at(value, steps)
            if type(found) is str and found.startswith(_GID):
                found = found.rpartition("/")[2]
            if type(found) in (str, int, float) and found != "":
                return found
    return None


def _at(value: Any, steps: Steps) -> Any:
    for step in steps:
        if step == "*":
            if type(value) is not list or len(value) != 1:
                return None
            value = value[0]
        elif type(value) is dict:
            value = value.get(step)
        else:
            return None
    return value


# ---------------------------------------------------------------- lines


def _lines(properties: Mapping[str, Any]) -> list[Any] | None:
    """The lines of an order in our names; None if they are so already, or there are none."""
    own = properties.get("products")
    if type(own) is list and own and not _is_foreign(own[0]):
        return None  # nearly always; one order's lines are made by one writer
    if own not in _EMPTY and own != []:
        listed = _listed(own)
        return None if listed is None else [_with_ours(each) for each in listed]
    if _LINE_FIRST.isdisjoint(properties):
        return None
    for steps in _LINE_PLACES:
        if steps[0] in properties and (listed := _listed(_at(properties, steps))):
            return [_only_ours(each) for each in listed]
    return None


def _listed(value: Any) -> list[Any] | None:
    """Lines as a list of objects: PHP writes some lists as objects with numbers as keys, tag managers as text."""
    if type(value) is str and value[:1] in ("[", "{"):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    if type(value) is dict:
        value = list(value.values()) if value and all(key.isdigit() for key in value) else [value]
    if type(value) is not list or not value or not all(type(each) is dict for each in value):
        return None
    return value


def _is_foreign(line: object) -> bool:
    return type(line) is dict and not _LINE_BEGINS.isdisjoint(line) and bool(_missing(line))


def _missing(line: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ours, places in _LINE_PLAN:
        if line.get(ours) in _EMPTY:
            value = _first(line, places)
            if value is not None:
                found[ours] = value
    return found


def _with_ours(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, **_missing(line)}


def _only_ours(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line made of another one, which stays where it is: what is not ours is not written twice."""
    kept = {name: line[name] for name in LINE if type(line.get(name)) in (str, int, float)}
    return {**kept, **_missing(line)}
