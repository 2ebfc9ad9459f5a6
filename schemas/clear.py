"""What of an event is not personal: which properties, context and traits stay in clear, and which are sealed. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

COMMERCE: Final = frozenset({
    "order_id", "checkout_id", "affiliation", "subtotal", "total", "revenue", "shipping", "tax", "discount", "coupon",
    "currency", "product_id", "sku", "category", "brand", "variant", "price", "quantity", "position", "amount",
    "email_id", "campaign_id", "campaign_name", "link_id",
})  # fmt: skip
"""Properties that are clear in every event."""
PRODUCT: Final = frozenset({
    "product_id", "sku", "category", "name", "brand", "variant", "price", "quantity", "coupon", "position", "url",
    "image_url", "amount", "discount", "currency",
})  # fmt: skip
"""Clear fields of a line in `products`, and of events about one product."""
_ABOUT_PRODUCTS: Final = ("product.", "cart.item_", "wishlist.")
MONEY: Final = frozenset({
    "revenue", "total", "subtotal", "shipping", "tax", "discount", "price", "amount",
})  # fmt: skip
"""Numbers of these names become decimal strings, in an event's properties and in its lines."""
CONTEXT: Final = frozenset({
    "channel", "library", "locale", "timezone", "os", "app", "campaign", "device.type", "page.path",
})  # fmt: skip
"""Clear parts of the context, each with all it holds."""

LARGE: Final = 10**6  # integers of 7 digits and more may be phone, card or customer numbers
EXACT: Final = 2**53  # beyond, JSON readers no longer agree which integer it is

_TIME: Final = re.compile(
    r"[12]\d{3}-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-6]\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+-]\d{2}(?::?\d{2})?))?)?",
    re.ASCII,
)


_ADDRESS: Final = re.compile(r"[^\s@/]+(?:@|%40)(?!\d(?:\.\d)?x\.)[^\s@/]+\.[a-z]{2}", re.IGNORECASE)  # no logo@2x.png
_E164: Final = re.compile(r"\+\d{8,15}", re.ASCII)


def _addresses(text: str) -> bool:
    """Whether text that its name makes clear holds an e-mail address, or is a phone number: it is sealed all the same.

    Shops that take the address for the order id, and paths like /unsubscribe/ada@example.com, are real.
    """
    if "@" in text or "%40" in text:
        return _ADDRESS.search(text) is not None
    return text[:1] == "+" and _E164.fullmatch(text) is not None


class Clear(NamedTuple):
    """Which properties of one event name are clear by name, and which are sealed whatever they are."""

    names: frozenset[str]
    sealed: frozenset[str]
    whole: frozenset[str] = frozenset()  # declared not personal: objects and lists too; else names make leaves clear


class Declared(NamedTuple):
    """What definitions declare: event (type or name) → property → personal; traits that are attributes."""

    properties: Mapping[str, Mapping[str, bool]]
    attributes: frozenset[str]


NOTHING_DECLARED: Final = Declared({}, frozenset())


def declared_of(definitions: Mapping[str, Any]) -> Declared:
    """What definitions (their JSON, or the model dumped) say of properties and traits, in the form the door reads."""
    properties: Mapping[str, Mapping[str, Any]] = definitions.get("properties") or {}
    traits: Mapping[str, Mapping[str, Any]] = definitions.get("traits") or {}
    return Declared(
        {event: {name: bool(each["personal"]) for name, each in own.items()} for event, own in properties.items()},
        frozenset(name for name, trait in traits.items() if not trait.get("personal", True)),
    )


def clear_rules(declared: Declared, type_: str, name: str | None) -> Clear:
    """The rules of one event: the built-in lists, then "*", then its type, then its own name."""
    clear = set(COMMERCE)
    if type_.startswith(_ABOUT_PRODUCTS):
        clear |= PRODUCT
    if type_ == "web.page_viewed":
        clear.add("path")
    sealed: set[str] = set()
    whole: set[str] = set()
    for key in ("*", type_, name):
        for prop, personal in declared.properties.get(key or "", {}).items():
            (sealed if personal else clear).add(prop)
            (clear if personal else sealed).discard(prop)
            (whole.discard if personal else whole.add)(prop)
    return Clear(frozenset(clear), frozenset(sealed), frozenset(whole))


class Ref(dict[str, str]):
    """Stands where an identifier's value was: {"$token", "$kind"}. Always sealed."""


def ref(token: bytes, kind: str) -> Ref:
    return Ref({"$token": token.hex(), "$kind": kind})


class Parts(NamedTuple):
    """A clear and a sealed copy of one event's open fields; `names`: dotted names of what is sealed, sorted."""

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
    """Part what is clear from what is sealed (contracts, "What is clear"). The arguments are not changed.

    A list or object without anything clear is sealed whole under its own name. In a list that is parted, the place
    of a sealed entry is null in the clear copy ({} for an object), and its key in the sealed copy is its index.
    """
    return split_around(properties, split_context(context), traits, rules, attributes)


class ContextParts(NamedTuple):
    """A clear and a sealed copy of a context, in a form that JSON is made of; `names`: of what is sealed."""

    clear: Any
    sealed: Any
    names: list[str]


_EMPTY: Final = ContextParts({}, None, [])


def split_context(context: Mapping[str, Any]) -> ContextParts:
    """The context's share of `split`: it depends on the context alone."""
    if not context:
        return _EMPTY
    names: list[str] = []
    clear, sealed = _context(context, names)
    return ContextParts(clear, sealed or None, names)


def split_around(
    properties: Mapping[str, Any],
    context: ContextParts,
    traits: Mapping[str, Any],
    rules: Clear,
    attributes: frozenset[str],
) -> Parts:
    """As `split`, with a context that is parted already. Its parts are passed on as they are."""
    names = context.names.copy()
    sealed: dict[str, Any] = {}
    clear_properties = _properties(properties, rules, names, sealed) if properties else {}
    if context.sealed is not None:
        sealed["context"] = context.sealed
    clear_traits = _traits(traits, attributes, names, sealed) if traits else {}
    names.sort()
    return Parts(clear_properties, context.clear, clear_traits, sealed, names)


def decimal_text(value: float) -> str:
    """A number as a plain decimal string: the shortest that reads back as the same double, no exponent."""
    text = repr(value)
    if "e" not in text:
        return text
    from decimal import Decimal  # noqa: PLC0415  # amounts of 10^16 or below 10^-4 are all but unknown

    return format(Decimal(text), "f")


def _properties(
    properties: Mapping[str, Any], rules: Clear, names: list[str], sealed: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    clear_names, sealed_names, whole = rules
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in properties.items():
        kind = type(value)
        if kind is str:  # nearly all
            if name not in sealed_names and (
                (name in clear_names and not _addresses(value))
                or not value
                or (value[0] in "12" and _TIME.fullmatch(value))
            ):
                out[name] = value
            else:
                hidden[name] = value
                names.append("properties." + name)
        elif name in sealed_names or kind is Ref:
            hidden[name] = value
            names.append("properties." + name)
        elif kind is dict or kind is list:
            if name in whole or (kind is list and name in clear_names and _are_codes(value)):
                out[name] = value
            else:
                lines = name == "products" and kind is list
                _nested(value, name, "properties." + name, names, out, hidden, lines=lines)
        elif name in MONEY and (kind is float or kind is int):
            out[name] = _money(value)
        elif name in clear_names or _is_clear(kind, value):
            out[name] = _plain(kind, value)
        else:
            hidden[name] = _plain(kind, value)
            names.append("properties." + name)
    if hidden:
        sealed["properties"] = hidden
    return out


def _are_codes(values: list[Any]) -> bool:
    """A flat list under a name that is clear, such as the ids of several products or the path of a category."""
    return all(type(each) is str and not _addresses(each) for each in values)


def _is_clear(kind: type, value: Any) -> bool:
    if kind is str:
        return not value or (value[0] in "12" and _TIME.fullmatch(value) is not None)
    if kind is int:
        return bool(-LARGE < value < LARGE)
    if kind is float:
        return bool(-LARGE < value < LARGE or not value.is_integer())
    return True  # bool, None


def _plain(kind: type, value: Any) -> Any:
    """A leaf as JSON readers agree on it."""
    if kind is int:
        return value if -EXACT <= value <= EXACT else str(value)
    if kind is float:
        return value if value - value == 0 else None  # NaN and infinities are no JSON
    return value


def _money(value: float) -> str | None:
    if type(value) is int:
        return str(value)
    return decimal_text(value) if value - value == 0 else None


def _nested(
    value: Any,
    key: str,
    dotted: str,
    names: list[str],
    out: dict[str, Any],
    hidden: dict[str, Any],
    *,
    lines: bool = False,
) -> None:
    """Part a list or object into `out[key]` and `hidden[key]`."""
    mark = len(names)
    clear, closed = (
        _part_list(value, dotted, names, lines) if type(value) is list else _part_dict(value, dotted, names, line=False)
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


def _part_dict(value: Mapping[str, Any], dotted: str, names: list[str], *, line: bool) -> tuple[Any, Any]:
    """(clear, sealed) of an object; None for a part with nothing in it. An empty object is clear."""
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, each in value.items():
        kind = type(each)
        if kind is str:
            if (
                (line and name in PRODUCT and not _addresses(each))
                or not each
                or (each[0] in "12" and _TIME.fullmatch(each))
            ):
                out[name] = each
            else:
                hidden[name] = each
                names.append(f"{dotted}.{name}")
        elif kind is Ref:
            hidden[name] = each
            names.append(f"{dotted}.{name}")
        elif kind is dict or kind is list:
            _nested(each, name, f"{dotted}.{name}", names, out, hidden)
        elif line and name in MONEY and (kind is float or kind is int):
            out[name] = _money(each)
        elif (line and name in PRODUCT) or _is_clear(kind, each):
            out[name] = _plain(kind, each)
        else:
            hidden[name] = _plain(kind, each)
            names.append(f"{dotted}.{name}")
    return (out if out or not hidden else None), (hidden or None)


def _part_list(value: list[Any], dotted: str, names: list[str], lines: bool) -> tuple[Any, Any]:
    out: list[Any] = []
    hidden: dict[str, Any] = {}
    some_clear = False
    for place, each in enumerate(value):
        kind = type(each)
        clear: Any = None
        closed: Any = None
        if kind is dict:
            clear, closed = _part_dict(each, f"{dotted}.{place}", names, line=lines)
            some_clear = some_clear or clear is not None
            clear = {} if clear is None else clear  # tells an object of keys "0", "1" … from a list
        elif kind is list:
            mark = len(names)
            clear, closed = _part_list(each, f"{dotted}.{place}", names, lines=False)
            some_clear = some_clear or clear is not None
            if clear is None:
                del names[mark:]
                names.append(f"{dotted}.{place}")
                closed = _exact(each)
        elif kind is not Ref and _is_clear(kind, each):
            clear = _plain(kind, each)
            some_clear = True
        else:
            closed = _plain(kind, each)
            names.append(f"{dotted}.{place}")
        out.append(clear)
        if closed is not None:
            hidden[str(place)] = closed
    return (out if some_clear or not hidden else None), (hidden or None)


def _holds_address(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return _addresses(value)
    if kind is dict:
        return any(map(_holds_address, value.values()))
    return kind is list and any(map(_holds_address, value))


def _exact(value: Any) -> Any:
    """A list or object with its large integers as strings."""
    kind = type(value)
    if kind is str:
        return value
    if kind is dict:
        for each in value.values():
            if type(each) is not str:  # objects of strings alone (library, os, campaign) stay as they are
                return {name: _exact(inner) for name, inner in value.items()}
        return value
    if kind is list:
        return [_exact(each) for each in value]
    return _plain(kind, value)


def _context(context: Mapping[str, Any], names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in context.items():
        kind = type(value)
        if name in CONTEXT:
            if _holds_address(value):
                hidden[name] = _exact(value)
                names.append("context." + name)
            else:
                out[name] = _exact(value)
        elif name == "traits":  # traits of the person in an event that sets none: all of them direct
            hidden[name] = _exact(value)
            names.append("context.traits")
        elif kind is dict:
            _context_part(name, value, names, out, hidden)
        elif kind is list:
            _nested(value, name, "context." + name, names, out, hidden)
        elif kind is not Ref and _is_clear(kind, value):
            out[name] = _plain(kind, value)
        else:
            hidden[name] = _plain(kind, value)
            names.append("context." + name)
    return out, hidden


def _context_part(
    name: str, value: dict[str, Any], names: list[str], out: dict[str, Any], hidden: dict[str, Any]
) -> None:
    """An object of the context; of device and page one string is clear."""
    only = "type" if name == "device" else "path" if name == "page" else None
    if only is None or type(value.get(only)) is not str or _addresses(value[only]):
        _nested(value, name, "context." + name, names, out, hidden)
        return
    rest = {key: each for key, each in value.items() if key != only}
    clear, closed = _part_dict(rest, "context." + name, names, line=False)
    clear = clear or {}
    clear[only] = value[only]
    out[name] = clear
    if closed is not None:
        hidden[name] = closed


def _traits(
    traits: Mapping[str, Any], attributes: frozenset[str], names: list[str], sealed: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in traits.items():
        if name in attributes and type(value) is not Ref:
            out[name] = _exact(value)
        else:
            hidden[name] = _exact(value)
            names.append("traits." + name)
    if hidden:
        sealed["traits"] = hidden
    return out
