"""What in an event is not personal: which properties, context and traits stay in clear and which are sealed. Pure.

An allow-list: what `schemas.touchpoint_fields` or a definition names is clear; everything else is sealed, whatever
its type (decision 0025).
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schemas.clear_rules import Clear
from schemas.touchpoint_fields import MONEY, context_fields, identifiers_in

_CONTEXT: Final = context_fields()
_IDENTIFIERS: Final = frozenset(name for name, _ in identifiers_in("traits"))  # sealed also where they identify nobody

LARGE: Final = 10**6  # under `unknown`, integers of 7 or more digits may be phone, card or customer numbers
EXACT: Final = 2**53  # beyond this, JSON readers disagree about which integer it is

_TIME: Final = re.compile(
    r"[12]\d{3}-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-6]\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+-]\d{2}(?::?\d{2})?))?)?",
    re.ASCII,
)
_ADDRESS: Final = re.compile(r"[^\s@/]+(?:@|%40)(?!\d(?:\.\d)?x\.)[^\s@/]+\.[a-z]{2}", re.IGNORECASE)  # no logo@2x.png
_LONG: Final = re.compile(r"\d{7}", re.ASCII)
_E164: Final = re.compile(r"\+\d{8,15}", re.ASCII)


def is_address(text: str) -> bool:
    """Whether text under a clear name holds an e-mail address or is a phone number, in which case it is sealed anyway.

    Shops do use the address as the order id, and paths like /unsubscribe/ada@example.com do occur.
    """
    if "@" in text or "%40" in text:
        return _ADDRESS.search(text) is not None
    return text[:1] == "+" and _E164.fullmatch(text) is not None


class Ref(dict[str, str]):
    """Takes the place of an identifier's value: {"$token", "$kind"}. Always sealed."""


def ref(token: bytes, kind: str) -> Ref:
    return Ref({"$token": token.hex(), "$kind": kind})


class Parts(NamedTuple):
    """A clear and a sealed copy of one event's open fields; `names`: dotted names of the sealed ones, sorted."""

    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any]
    sealed: dict[str, dict[str, Any]]
    names: list[str]


def split(
    properties: Mapping[str, Any],
    context: Mapping[str, Any],
    traits: Mapping[str, Any],
    rules: Clear,
    attributes: frozenset[str],
) -> Parts:
    """Separate the clear parts from the sealed ones (contracts, "What is clear"). The arguments are not changed.

    A list or object with nothing clear in it is sealed whole, under its own name. In a split list, a sealed entry
    is null in the clear copy ({} if it is an object), and its key in the sealed copy is its index.
    """
    return split_around(properties, split_context(context, rules), traits, rules, attributes)


class ContextParts(NamedTuple):
    """A clear and a sealed copy of a context, ready to be written as JSON; `names`: of the sealed fields."""

    clear: Any
    sealed: Any
    names: list[str]


_EMPTY: Final = ContextParts({}, None, [])


def split_context(context: Mapping[str, Any], rules: Clear) -> ContextParts:
    """The part of `split` that handles the context. It depends only on the context and on `rules.unknown`."""
    if not context:
        return _EMPTY
    names: list[str] = []
    clear, sealed = _context(context, rules, names)
    return ContextParts(clear, sealed or None, names)


def split_around(
    properties: Mapping[str, Any],
    context: ContextParts,
    traits: Mapping[str, Any],
    rules: Clear,
    attributes: frozenset[str],
) -> Parts:
    """As `split`, with a context that is already split. Its parts are passed on as they are."""
    names = context.names.copy()
    sealed: dict[str, Any] = {}
    clear_properties = _properties(properties, rules, names, sealed) if properties else {}
    if context.sealed is not None:
        sealed["context"] = context.sealed
    clear_traits = _traits(traits, attributes, names, sealed) if traits else {}
    names.sort()
    return Parts(clear_properties, context.clear, clear_traits, sealed, names)


def decimal_text(value: float) -> str:
    """A number as a plain decimal string: the shortest that reads back as the same double, without an exponent."""
    text = repr(value)
    if "e" not in text:
        return text
    from decimal import Decimal  # noqa: PLC0415  # amounts of 10^16 and above or below 10^-4 hardly ever occur

    return format(Decimal(text), "f")


def _properties(
    properties: Mapping[str, Any], rules: Clear, names: list[str], sealed: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    clear_names = rules.names
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in properties.items():
        kind = type(value)
        if kind is str:  # nearly every value
            if name in clear_names and not is_address(value):
                out[name] = value
                continue
        elif kind is dict or kind is list:
            if name in rules.whole or (kind is list and name in clear_names and _are_codes(value)):
                out[name] = value
                continue
            if name not in rules.sealed and (rules.unknown or (name in rules.lists and kind is list)):
                _nested(value, name, _named("properties", name), names, out, hidden, rules, lines=name in rules.lists)
                continue
        elif name in clear_names and kind is not Ref:
            out[name] = _money(value) if name in MONEY and (kind is float or kind is int) else _plain(kind, value)
            continue
        if rules.unknown and name not in rules.sealed and _is_clear(kind, value):
            out[name] = _plain(kind, value)
        else:
            hidden[name] = _exact(value)
            names.append(_named("properties", name))
    if hidden:
        sealed["properties"] = hidden
    return out


def _named(section: str, name: str) -> str:
    """The dotted name of a sealed field. Names are clear, so one holding an address or a long number becomes `*`."""
    if not name.isidentifier() and (is_address(name) or _LONG.search(name)):
        name = "*"
    return f"{section}.{name}"


def _are_codes(values: list[Any]) -> bool:
    """A flat list under a clear name, such as the ids of several products or the path of a category."""
    return all(type(each) is str and not is_address(each) for each in values)


def _is_clear(kind: type, value: Any) -> bool:
    """Whether a value that nothing names is clear under `unknown`: a number that is not too long, a boolean, a time."""
    if kind is str:
        return not value or (value[0] in "12" and _TIME.fullmatch(value) is not None)
    if kind is int:
        return bool(-LARGE < value < LARGE)
    if kind is float:
        return bool(-LARGE < value < LARGE or not value.is_integer())
    return kind is bool or value is None


def _plain(kind: type, value: Any) -> Any:
    """A leaf in the form that all JSON readers agree on."""
    if kind is int:
        return value if -EXACT <= value <= EXACT else str(value)
    if kind is float:
        return value if value - value == 0 else None  # NaN and infinities are not JSON
    return value


def _money(value: float) -> str | None:
    """A number that holds money, as text that means the same whatever decimal mark its source is said to write."""
    if type(value) is int:
        return str(value)
    if value - value != 0:
        return None
    text = decimal_text(value)
    return text + "0" if text[-4:-3] == "." else text


def _nested(
    value: Any,
    key: str,
    dotted: str,
    names: list[str],
    out: dict[str, Any],
    hidden: dict[str, Any],
    rules: Clear,
    *,
    lines: bool = False,
) -> None:
    """Split a list or object into `out[key]` and `hidden[key]`."""
    mark = len(names)
    clear, closed = (
        _part_list(value, dotted, names, rules, lines)
        if type(value) is list
        else _part_dict(value, dotted, names, rules, line=False)
    )
    if closed is None:
        out[key] = clear
    elif clear is None:
        del names[mark:]
        names.append(dotted)
        hidden[key] = _exact(value)
    else:
        out[key] = clear
        hidden[key] = closed


def _part_dict(value: Mapping[str, Any], dotted: str, names: list[str], rules: Clear, *, line: bool) -> tuple[Any, Any]:
    """(clear, sealed) parts of an object; None for a part with nothing in it. An empty object is clear."""
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, each in value.items():
        kind = type(each)
        known = line and name in rules.lines
        if kind is dict or kind is list:
            if rules.unknown:
                _nested(each, name, _named(dotted, name), names, out, hidden, rules)
                continue
        elif kind is str:
            if known and not is_address(each):
                out[name] = each
                continue
        elif known and kind is not Ref:
            out[name] = _money(each) if name in MONEY and (kind is float or kind is int) else _plain(kind, each)
            continue
        if rules.unknown and _is_clear(kind, each):
            out[name] = _plain(kind, each)
        else:
            hidden[name] = _exact(each)
            names.append(_named(dotted, name))
    return (out if out or not hidden else None), (hidden or None)


def _part_list(value: list[Any], dotted: str, names: list[str], rules: Clear, lines: bool) -> tuple[Any, Any]:
    out: list[Any] = []
    hidden: dict[str, Any] = {}
    some_clear = False
    for place, each in enumerate(value):
        kind = type(each)
        clear: Any = None
        closed: Any = None
        if kind is dict:
            clear, closed = _part_dict(each, f"{dotted}.{place}", names, rules, line=lines)
            some_clear = some_clear or clear is not None
            clear = {} if clear is None else clear  # distinguishes an object with keys "0", "1" … from a list
        elif kind is list and rules.unknown:
            mark = len(names)
            clear, closed = _part_list(each, f"{dotted}.{place}", names, rules, lines=False)
            some_clear = some_clear or clear is not None
            if clear is None:
                del names[mark:]
                names.append(f"{dotted}.{place}")
                closed = _exact(each)
        elif rules.unknown and _is_clear(kind, each):
            clear = _plain(kind, each)
            some_clear = True
        else:
            closed = _exact(each)
            names.append(f"{dotted}.{place}")
        out.append(clear)
        if closed is not None:
            hidden[str(place)] = closed
    return (out if some_clear or not hidden else None), (hidden or None)


def _holds_address(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return is_address(value)
    if kind is dict:
        return any(map(_holds_address, value.values()))
    return kind is list and any(map(_holds_address, value))


def _exact(value: Any) -> Any:
    """A value with its large integers turned into strings."""
    kind = type(value)
    if kind is str or kind is Ref:
        return value
    if kind is dict:
        for each in value.values():
            if type(each) is not str:  # objects of strings only (library, os, campaign) stay as they are
                return {name: _exact(inner) for name, inner in value.items()}
        return value
    if kind is list:
        return [_exact(each) for each in value]
    return _plain(kind, value)


def _context(context: Mapping[str, Any], rules: Clear, names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in context.items():
        kind = type(value)
        known = _CONTEXT.get(name)
        if kind is dict and name != "traits":  # the person's traits, in an event that sets none: all of them are direct
            _context_part(name, value, known or _NO_NAMES, rules, names, out, hidden)
        elif known is not None and kind is not list and kind is not Ref and not _holds_address(value):
            out[name] = _plain(kind, value)
        elif kind is list and rules.unknown:
            _nested(value, name, _named("context", name), names, out, hidden, rules)
        elif rules.unknown and kind is not dict and _is_clear(kind, value):
            out[name] = _plain(kind, value)
        else:
            hidden[name] = _exact(value)
            names.append(_named("context", name))
    return out, hidden


_NO_NAMES: Final[frozenset[str]] = frozenset()


def _context_part(
    name: str,
    value: dict[str, Any],
    known: frozenset[str],
    rules: Clear,
    names: list[str],
    out: dict[str, Any],
    hidden: dict[str, Any],
) -> None:
    """An object in the context: the fields that the table lists as clear, if they hold plain values."""
    clear: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, each in value.items():
        leaf = type(each) not in (dict, list, Ref)
        if key in known and leaf and not _holds_address(each):
            clear[key] = _plain(type(each), each)
        else:
            rest[key] = each
    if rest:
        mark = len(names)
        more, closed = _part_dict(rest, _named("context", name), names, rules, line=False)
        clear |= more or {}
        if not clear:
            del names[mark:]
            names.append(_named("context", name))
            closed = _exact(value)
        if closed is not None:
            hidden[name] = closed
    if clear or not rest:
        out[name] = clear


def _traits(
    traits: Mapping[str, Any], attributes: frozenset[str], names: list[str], sealed: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in traits.items():
        if name in attributes and type(value) is not Ref and name not in _IDENTIFIERS:
            out[name] = _exact(value)
        else:
            hidden[name] = _exact(value)
            names.append(_named("traits", name))
    if hidden:
        sealed["traits"] = hidden
    return out


def joined(clear: Any, sealed: Any) -> Any:
    """The value that the door split into a clear and a sealed part; the sealed part of a list is keyed by index."""
    if sealed is None:
        return clear
    if isinstance(clear, list) and isinstance(sealed, dict):
        return [_entry(each, sealed.get(str(place))) for place, each in enumerate(clear)]
    if isinstance(clear, dict) and isinstance(sealed, dict):
        more = [key for key in sealed if key not in clear]
        return {key: joined(clear.get(key), sealed.get(key)) for key in (*clear, *more)}
    return sealed


def _entry(clear: Any, sealed: Any) -> Any:
    """An entry of a split list. Early versions of the door sealed such an inner list by index, with null in clear."""
    if clear is None and isinstance(sealed, dict) and sealed:
        places = [str(place) for place in range(len(sealed))]
        if list(sealed) == places:
            return [_entry(None, sealed[place]) for place in places]
    return joined(clear, sealed)


def context_is_clear(context: Mapping[str, Any]) -> bool:
    """Whether the table lists everything in a context, judging by names only."""
    for name, value in context.items():
        known = _CONTEXT.get(name)
        if known is None or (type(value) is dict and not known.issuperset(value)):
            return False
    return True
