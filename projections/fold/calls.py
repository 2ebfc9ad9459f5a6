"""What a fold's generated code calls: amounts and traits. No I/O, no clock."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.event import FoldEvent
from projections.fold.state import State
from projections.slots.keyed import put
from schemas.clear import is_address
from schemas.definitions import Definitions
from schemas.money import LIMIT, divide
from schemas.paths import nested_trait
from schemas.record import EPOCH
from schemas.sales import first_id


def read_raw(raw: msgspec.Raw) -> Any:
    """The JSON value of a Raw; None if it is empty."""
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.MsgspecError, RecursionError):
        return None


def lines_in(products: msgspec.Raw, items: msgspec.Raw, opened: Any) -> Any:
    """The lines of an order: `products`, else `items`, which earlier doors sealed."""
    found = read_raw(products)
    if found is None:
        found = read_raw(items)
    return opened.get("items") if found is None and opened else found


def sealed_id(opened: Any, names: tuple[str, ...]) -> str | None:
    """An id that an earlier door sealed for its name; one that holds an address stays sealed, as it would today."""
    values = [opened.get(name) for name in names]
    return first_id([value for value in values if type(value) is not str or not is_address(value)])


def converter(definitions: Definitions, base: str, days: LocalDays) -> Callable[[int, str, int], int | None]:
    """A function (scaled amount, currency, occurred_us) → the amount in the base currency, or None without a rate."""
    table: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}
    for rate in sorted(definitions.rates, key=lambda r: (r.currency, r.date)):
        starts, ratios = table.setdefault(rate.currency, ([], []))
        day = datetime.fromisoformat(rate.date).toordinal() - EPOCH.toordinal()
        starts.append(day)
        ratios.append(Decimal(rate.rate).as_integer_ratio())

    def to_base(amount: int, currency: str, at_us: int) -> int | None:
        if currency == base:
            return amount
        starts, ratios = table.get(currency, ((), ()))
        i = bisect_right(starts, days.day(at_us)) if starts else 0
        if not i:
            return None
        up, down = ratios[i - 1]
        converted = divide(amount * up, down)
        return converted if -LIMIT < converted < LIMIT else None

    return to_base


FoldTraits = Callable[[FoldEvent, State, Mapping[str, Any] | None], None]


def traits_folders(definitions: Definitions) -> tuple[FoldTraits, FoldTraits]:
    """The functions that fold an identify and a staff correction.

    A trait declared as an attribute is kept with its value, even if it came sealed; one declared personal is kept as a
    direct trait, with the position of its record, even if it came in clear. For undeclared traits, the record decides:
    it keeps the form it came in.
    """
    attributes = frozenset(name for name, trait in definitions.traits.items() if not trait.personal)
    personal = frozenset(name for name, trait in definitions.traits.items() if trait.personal)
    inside: dict[str, list[str]] = {}  # object → the declared traits inside it: address → address.city
    for name in definitions.traits:
        if "." in name:
            inside.setdefault(name.partition(".")[0], []).append(name)

    def clear(name: str, value: Any) -> tuple[int, Any]:
        return (st.DIRECT, None) if name in personal else _trait_value(value)

    def sealed(name: str, opened: Mapping[str, Any] | None) -> tuple[int, Any]:
        found = (opened.get("traits") or {}) if opened is not None and name in attributes else {}
        if name not in found or (type(found[name]) is dict and "$token" in found[name]):
            return st.DIRECT, None
        return _trait_value(found[name])

    def fold_inside(event: FoldEvent, entries: list[Any], opened: Mapping[str, Any] | None) -> None:
        """Folds the declared traits inside objects; an object without one unsets it. An erased one says nothing."""
        hidden = (opened.get("traits") or {}) if opened is not None else {}
        named = () if event.sealed is None else event.sealed.names
        for root, names in inside.items():
            whole = event.traits if root in event.traits else hidden
            arrived = root in event.traits or f"traits.{root}" in named
            for name in names if arrived else ():
                if name in event.traits or f"traits.{name}" in named:
                    continue  # it came under its own name, too
                form, stored = st.DIRECT, None
                if name in attributes:
                    if root not in whole:
                        continue
                    form, stored = _trait_value(nested_trait(whole, name))
                place = event.occurred_us, event.order, form, stored, event.partition, event.offset
                put(entries, [name, 0, *place])

    def fold_traits(event: FoldEvent, state: State, opened: Mapping[str, Any] | None) -> None:
        """Folds the traits that an event sets."""
        entries = state[st.TRAITS]
        if inside:
            fold_inside(event, entries, opened)
        us, key = event.occurred_us, event.order
        for name, value in event.traits.items():
            form, stored = clear(name, value)
            put(entries, [name, 0, us, key, form, stored, event.partition, event.offset])
        if event.sealed is not None:
            for dotted in event.sealed.names:
                if dotted.startswith("traits."):
                    name = dotted[7:]
                    form, stored = sealed(name, opened)
                    put(entries, [name, 0, us, key, form, stored, event.partition, event.offset])

    def fold_correction(event: FoldEvent, state: State, opened: Mapping[str, Any] | None) -> None:
        """Folds a staff correction of the trait that the event names; a correction without a value withdraws it."""
        name = event.name
        if name is None:
            return
        form, stored = st.WITHDRAWN, None
        if name in event.traits:
            form, stored = clear(name, event.traits[name])
        elif event.sealed is not None and f"traits.{name}" in event.sealed.names:
            form, stored = sealed(name, opened)
        stamp = (event.occurred_us, event.order)
        put(state[st.TRAITS], [name + st.CORRECTED, 1, *stamp, form, stored, event.partition, event.offset])

    return fold_traits, fold_correction


def _trait_value(value: Any) -> tuple[int, Any]:
    """Form and stored value of an attribute: no floats, and no dicts whose order could differ."""
    if value is None:
        return st.UNSET, None
    if isinstance(value, str | bool | int):
        return st.PLAIN, value
    return st.JSON_TEXT, msgspec.json.encode(value, order="sorted").decode()
