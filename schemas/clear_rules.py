"""Which fields of an event are clear: what `schemas.touchpoint_fields` or a definition names (decision 0025). Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from schemas.touchpoint_fields import (
    CONTACT_NAMES,
    LINE,
    clear_properties,
    identifier_kind,
    identifiers_in,
    line_lists,
    own_in_properties,
    personal_properties,
)
from schemas.touchpoints import with_meant

Own = tuple[tuple[tuple[str, ...], str], ...]  # the customer's own identifiers in the properties: (path, kind)

_IDENTIFIERS: Final = frozenset(name for name, _ in identifiers_in("properties"))
_LINES: Final = "products."  # in a declaration: a field of an order's lines


class Clear(NamedTuple):
    """Which properties of an event name are clear by name, and which are declared or known to be personal.

    `whole`: declared not personal, so objects and lists are clear too. `lines`: clear fields of a line in one of
    `lists`.
    `unknown`: numbers, booleans and times that nothing names are clear (TOUCHFOLD_UNKNOWN=clear).
    """

    names: frozenset[str]
    sealed: frozenset[str]
    whole: frozenset[str] = frozenset()
    lines: frozenset[str] = LINE
    unknown: bool = False
    lists: frozenset[str] = line_lists("")


class Declared(NamedTuple):
    """What definitions declare: event (type or name) → property → personal; traits that are attributes.

    A property of the form products.NAME is a field of the lines. `read`: event → properties whose values a computed
    trait keeps; these are clear unless a declaration says otherwise. `unknown`: see Clear. `identifies`: event →
    property → the kind of the customer's own identifier, None: it is not. `contacts`: the first steps of all properties
    that may be one. `blocked`: values that name nobody, each with the kinds it is blocked for (none: all). `decimals`:
    source → the decimal mark in the amounts it writes.
    """

    properties: Mapping[str, Mapping[str, bool]]
    attributes: frozenset[str]
    read: Mapping[str, frozenset[str]] = {}
    unknown: bool = False
    identifies: Mapping[str, Mapping[str, str | None]] = {}
    contacts: frozenset[str] = CONTACT_NAMES
    blocked: tuple[tuple[str, tuple[str, ...]], ...] = ()
    decimals: Mapping[str, str] = {}


NOTHING_DECLARED: Final = Declared({}, frozenset())


def declared_of(definitions: Mapping[str, Any], *, unknown: bool = False) -> Declared:
    """What definitions (as JSON or a dumped model) declare about properties and traits, in the form the door reads."""
    properties: Mapping[str, Mapping[str, Any]] = definitions.get("properties") or {}
    traits: Mapping[str, Mapping[str, Any]] = definitions.get("traits") or {}
    declared: dict[str, dict[str, bool]] = {}
    identifies: dict[str, Any] = {}
    for written, own in properties.items():
        for event in with_meant((written,)):  # "Order Completed" is its touchpoint
            said = {name: bool(each["personal"]) for name, each in own.items() if each.get("personal") is not None}
            declared.setdefault(event, {}).update(said)
            identifies[event] = {**identifies.get(event, {}), **_identified(own)}
    return Declared(
        declared,
        frozenset(name for name, trait in traits.items() if not trait.get("personal", True)),
        _read_by_traits(definitions.get("computed_traits") or {}),
        unknown,
        {event: own for event, own in identifies.items() if own},
        CONTACT_NAMES.union(name.partition(".")[0] for own in identifies.values() for name in own),
        _blocked((definitions.get("identifiers") or {}).get("blocked") or ()),
        decimals_of(definitions),
    )


def decimals_of(definitions: Mapping[str, Any]) -> dict[str, str]:
    """Source → the decimal mark that definitions say it writes."""
    sources: Mapping[str, Mapping[str, Any]] = definitions.get("sources") or {}
    numbers = {name: source.get("numbers") for name, source in sources.items()}
    return {name: str(each["decimal"]) for name, each in numbers.items() if each}


def _identified(own: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Property → the kind that its declaration gives it; `true` is that of the field's name, `false` none."""
    given = {name: each["identifies"] for name, each in own.items() if each.get("identifies") is not None}
    return {
        name: None if kind is False else identifier_kind(name) if kind is True else str(kind)
        for name, kind in given.items()
    }


def own_identifiers(declared: Declared, type_: str, name: str | None) -> Own:
    """The properties of an event that are the customer's own identifiers, each as (path, kind), in order: the table of
    fields, "*", its type, its own name.
    """
    found: dict[str, str | None] = dict(own_in_properties(type_))
    for event in dict.fromkeys(("*", type_, name or "*")):
        found |= declared.identifies.get(event, {})
    return tuple((tuple(prop.split(".")), kind) for prop, kind in found.items() if kind is not None)


def _blocked(entries: Iterable[Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(value, kinds) of each; an entry is the value alone, or has kinds beside it."""
    named = (each if isinstance(each, Mapping) else {"value": each} for each in entries)
    return tuple(sorted((str(each["value"]), tuple(each.get("kinds", ()))) for each in named))


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
    clear -= _IDENTIFIERS  # one that identifies nobody is sealed as text: a later rule may know whose it is
    sealed |= _IDENTIFIERS
    whole -= _IDENTIFIERS
    return Clear(
        *(frozenset(clear), frozenset(sealed), frozenset(whole)),
        *((LINE | _of_lines(clear)) - _of_lines(sealed), declared.unknown, line_lists(type_)),
    )


def _of_lines(names: Iterable[str]) -> set[str]:
    return {name.removeprefix(_LINES) for name in names if name.startswith(_LINES)}
