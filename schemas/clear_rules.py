"""Which fields of an event are clear: what `schemas.touchpoint_fields` or a definition names (decision 0025). Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from schemas.touchpoint_fields import LINE, clear_properties, personal_properties
from schemas.touchpoints import with_meant

_LINES: Final = "products."  # in a declaration: a field of an order's lines


class Clear(NamedTuple):
    """Which properties of an event name are clear by name, and which are declared or known to be personal.

    `whole`: declared not personal, so objects and lists are clear too. `lines`: clear fields of a line in `products`.
    `unknown`: numbers, booleans and times that nothing names are clear (TOUCHFOLD_UNKNOWN=clear).
    """

    names: frozenset[str]
    sealed: frozenset[str]
    whole: frozenset[str] = frozenset()
    lines: frozenset[str] = LINE
    unknown: bool = False


class Declared(NamedTuple):
    """What definitions declare: event (type or name) → property → personal; traits that are attributes.

    A property of the form products.NAME is a field of the lines. `read`: event → properties whose values a computed
    trait keeps; these are clear unless a declaration says otherwise. `unknown`: see Clear.
    """

    properties: Mapping[str, Mapping[str, bool]]
    attributes: frozenset[str]
    read: Mapping[str, frozenset[str]] = {}
    unknown: bool = False


NOTHING_DECLARED: Final = Declared({}, frozenset())


def declared_of(definitions: Mapping[str, Any], *, unknown: bool = False) -> Declared:
    """What definitions (as JSON or a dumped model) declare about properties and traits, in the form the door reads."""
    properties: Mapping[str, Mapping[str, Any]] = definitions.get("properties") or {}
    traits: Mapping[str, Mapping[str, Any]] = definitions.get("traits") or {}
    declared: dict[str, dict[str, bool]] = {}
    for written, own in properties.items():
        for event in with_meant((written,)):  # "Order Completed" is its touchpoint
            declared.setdefault(event, {}).update({name: bool(each["personal"]) for name, each in own.items()})
    return Declared(
        declared,
        frozenset(name for name, trait in traits.items() if not trait.get("personal", True)),
        _read_by_traits(definitions.get("computed_traits") or {}),
        unknown,
    )


def _read_by_traits(traits: Mapping[str, Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """Event → properties whose values a computed trait keeps (`of`, `key`): its own value is in clear as well."""
    found: dict[str, set[str]] = {}
    for trait in traits.values():
        kept = {trait.get("of"), trait.get("key")} - {None, "occurred_at"}
        events = (*trait.get("events", ()), *trait.get("opens", ()), *trait.get("closes", ()))
        for event in with_meant(events) if kept else ():
            found.setdefault(event, set()).update(map(str, kept))
    return {event: frozenset(names) for event, names in found.items()}


def clear_rules(declared: Declared, type_: str, name: str | None, *, staff: bool = False) -> Clear:
    """The rules for an event, in order: the table of fields, "*", its type, its own name."""
    events = dict.fromkeys(("*", type_, name or "*"))
    clear = set(clear_properties(type_, staff=staff))
    read = {prop for event in events for prop in declared.read.get(event, ())}
    sealed = set(personal_properties(type_))
    clear |= read - sealed
    whole: set[str] = set()
    for event in events:
        for prop, personal in declared.properties.get(event, {}).items():
            (sealed if personal else clear).add(prop)
            (clear if personal else sealed).discard(prop)
            (whole.discard if personal else whole.add)(prop)
    return Clear(
        *(frozenset(clear), frozenset(sealed), frozenset(whole)),
        *((LINE | _of_lines(clear)) - _of_lines(sealed), declared.unknown),
    )


def _of_lines(names: Iterable[str]) -> set[str]:
    return {name.removeprefix(_LINES) for name in names if name.startswith(_LINES)}
