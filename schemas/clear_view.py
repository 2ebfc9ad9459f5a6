"""What is clear in a record under the declarations in force, which may not be those it was received under. Pure.

The record's bytes never change; this is the clear view of them that the archive's columns and SQL show. A field that
has since been declared clear is taken out of the sealed part; one that is no longer named clear is left out.
"""

from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from schemas.clear import Ref, context_is_clear, joined, split
from schemas.clear_rules import Clear, Declared, clear_rules
from schemas.touchpoint_fields import LINE

Open = Callable[[Sequence[tuple[bytes, bytes, bytes]]], Sequence[bytes | None]]
"""Opens (token, sealed bytes, event key); None for what has been erased (`schemas.ports.Sealer.open_many`)."""

STAFF_SOURCE: Final = "staff"
COLUMN_RULES: Final = 2
"""The version of the rules by which columns are made of a record (order id, revenue, products, campaign): a new one has
files with older columns written again. 2: orders and amounts of decisions 0035 and 0036."""
_CACHED: Final = 10_000
_PROPERTIES: Final = "properties."


def hash_of(declared: Declared) -> str:
    """16 hex digits that identify the declarations and rules that a file's columns follow."""
    return sha256(msgspec.json.encode(plain_of(declared))).hexdigest()[:16]


def plain_of(declared: Declared) -> dict[str, Any]:
    """The same as JSON, in a fixed order. Attributes are left out: the archive has no columns for them."""
    read = {event: sorted(names) for event, names in sorted(declared.read.items())}
    properties = {event: dict(sorted(own.items())) for event, own in sorted(declared.properties.items()) if own}
    plain: dict[str, Any] = {"properties": properties, "read": read, "unknown": declared.unknown}
    plain["rules"] = COLUMN_RULES
    if declared.decimals:  # left out where there are none: files written before there were any keep their hash
        plain["decimals"] = dict(sorted(declared.decimals.items()))
    return plain


def declared_from(plain: Mapping[str, Any]) -> Declared:
    """The reverse of `plain_of`."""
    read = {event: frozenset(names) for event, names in plain["read"].items()}
    return Declared(plain["properties"], frozenset(), read, bool(plain["unknown"]), plain.get("decimals", {}))


def named_since(now: Declared, before: Declared) -> dict[str, set[str]]:
    """Event → properties that are clear now but were not before: events received earlier may still have them sealed."""
    found: dict[str, set[str]] = {}
    for event in {*now.properties, *now.read}:
        new = clear_rules(now, event, event).names - clear_rules(before, event, event).names
        if new:
            found[event] = set(new)
    return found


class Part(NamedTuple):
    """What the view is made from. `sealed`: (token, sealed bytes, event key); None: nothing is sealed."""

    type: str
    name: str | None
    source: str
    properties: dict[str, Any]
    context: dict[str, Any]
    names: Sequence[str]  # of the sealed fields
    sealed: tuple[str, str, str] | None


class Shown(NamedTuple):
    """The clear properties and context, and the names of the sealed fields, under the declarations in force."""

    properties: dict[str, Any]
    context: dict[str, Any]
    names: list[str]


class ClearView:
    """`open_`: None without a key. `complete`: False once something that should have been opened was not."""

    def __init__(self, declared: Declared, open_: Open | None = None) -> None:
        self.declared = declared
        self.hash = hash_of(declared)
        self.complete = True
        self._open = open_
        self._rules: dict[tuple[str, str | None, bool], Clear] = {}

    def of(self, parts: Sequence[Part]) -> dict[int, Shown]:
        """By index in `parts`: the views that differ from the record's own clear part. Raises what opening raises."""
        wanted: list[int] = []
        opening: list[int] = []
        for place, part in enumerate(parts):
            rules = self._rules_of(part)
            opens = part.sealed is not None and any(_may_be_clear(name, rules) for name in part.names)
            if opens or not _is_clear(part, rules):
                wanted.append(place)
            if opens:
                opening.append(place)
        opened = self._opened(parts, opening)
        found = {place: self._shown(parts[place], opened.get(place, {})) for place in wanted}
        return {
            place: shown for place, shown in found.items()
            if (shown.properties, shown.context) != (parts[place].properties, parts[place].context)
        }  # fmt: skip

    def _opened(self, parts: Sequence[Part], places: Sequence[int]) -> dict[int, dict[str, Any]]:
        if not places:
            return {}
        if self._open is None:
            self.complete = False
            return {}
        triples = []
        for place in places:
            sealed = parts[place].sealed
            assert sealed is not None, "only what is sealed is opened"
            key, data, id_ = sealed
            triples.append((bytes.fromhex(key), a2b_base64(data), bytes.fromhex(id_.replace("-", ""))))
        plain = self._open(triples)
        return {place: msgspec.json.decode(each) for place, each in zip(places, plain, strict=True) if each is not None}

    def _shown(self, part: Part, opened: Mapping[str, Any]) -> Shown:
        rules = self._rules_of(part)
        whole = joined(part.properties, _with_refs(opened.get("properties"))) or {}
        parted = split(whole, part.context, {}, rules, frozenset())
        others = [name for name in part.names if not name.startswith(_PROPERTIES)]
        if not opened:  # what is sealed stays sealed
            others = list(part.names)
        return Shown(parted.properties, parted.context, sorted({*others, *parted.names}))

    def _rules_of(self, part: Part) -> Clear:
        key = (part.type, part.name, part.source == STAFF_SOURCE)
        rules = self._rules.get(key)
        if rules is None:
            if len(self._rules) >= _CACHED:
                self._rules.clear()
            rules = self._rules[key] = clear_rules(self.declared, part.type, part.name, staff=key[2])
        return rules


def _may_be_clear(name: str, rules: Clear) -> bool:
    """Whether anything sealed under a dotted name is named clear."""
    if not name.startswith(_PROPERTIES):
        return False
    prop = name[len(_PROPERTIES) :]
    if "." in prop and prop.partition(".")[0] in rules.lists:
        return name.rpartition(".")[2] in rules.lines
    return prop in rules.names or prop.partition(".")[0] in rules.whole or _has_clear_lines(prop, rules)


def _has_clear_lines(prop: str, rules: Clear) -> bool:
    """Whether a list sealed whole may hold fields of lines that are clear now; earlier doors sealed `items` whole."""
    return prop in rules.lists and (prop != "products" or rules.lines != LINE)


def _is_clear(part: Part, rules: Clear) -> bool:
    """Whether everything clear in a record is named clear, judging by names only."""
    if rules.unknown:
        return rules.sealed.isdisjoint(part.properties) and _lines_are_clear(part.properties, rules)
    for name, value in part.properties.items():
        if name not in rules.names and name not in rules.lists:
            return False
        if type(value) is dict and name not in rules.whole:
            return False
    return _lines_are_clear(part.properties, rules) and context_is_clear(part.context)


def _lines_are_clear(properties: Mapping[str, Any], rules: Clear) -> bool:
    for name in rules.lists:
        lines = properties.get(name)
        if type(lines) is not list or name in rules.whole:
            continue
        if not all(each is None or (type(each) is dict and rules.lines.issuperset(each)) for each in lines):
            return False
    return True


def _with_refs(value: Any) -> Any:
    """An opened part with identifiers turned back into references: they are never clear."""
    if type(value) is dict:
        if type(value.get("$token")) is str:
            return Ref(value)
        return {name: _with_refs(each) for name, each in value.items()}
    return [_with_refs(each) for each in value] if type(value) is list else value
