"""The source of a fold: a handler for each event name, and how states are merged and pruned. No I/O, no clock."""

from typing import Any, Final

from projections.conditions.predicates import HELPERS, moment_reader
from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.calls import converter, lines_in, read_raw, sealed_id, traits_folders
from projections.fold.handler import Handler, is_pinned
from projections.fold.layout import Layout, SlotPlace, Stream
from projections.fold.order_code import order
from projections.generated import Source
from projections.orders.entries import join_orders, put_order
from projections.orders.parts import Part
from projections.slots.base import Merge
from projections.slots.count import COUNT
from projections.slots.keyed import OVERFLOW, merge_keyed, put
from projections.slots.stamped import FIRST, LAST
from projections.slots.values import storable, text_id
from schemas.amount_text import named_currency, plain_text
from schemas.clear import joined
from schemas.conditions import used_properties
from schemas.definitions import ANY_EVENT, decimal_marks
from schemas.paths import FLAGS, values_at
from schemas.sales import ORDER_IDS, first_id, lines_of, order_id_of, refund_key, worth_of
from schemas.touchpoints import ORDER_TYPES, VISITS

IDENTIFIED: Final = "profile.identified"
CORRECTED: Final = "trait.corrected"
NAMING: Final = "purchase.completed"


def source_of(layout: Layout, days: LocalDays, currency: str, order_cap: int | None) -> Source:
    """The code of `apply`, its two parts, `new_state`, `merge_two` and `drop`."""
    space: dict[str, Any] = {
        **HELPERS, "put": put, "text_id": text_id, "storable": storable, "read_raw": read_raw, "BASE": currency,
        "put_order": put_order, "named_currency": named_currency, "plain_text": plain_text, "first_id": first_id,
        "order_id_of": order_id_of, "sealed_id": sealed_id, "refund_key": refund_key, "worth_of": worth_of,
        "lines_in": lines_in, "lines_of": lines_of, "VISITS": VISITS, "joined": joined, "values_at": values_at,
        "DECIMAL": decimal_marks(layout.definitions).get,
        "DAYS": days.cache.get, "day_of": days.day, "moment": moment_reader(days),
        "to_base": converter(layout.definitions, currency, days),
        "RANK": {name: source.rank for name, source in layout.definitions.sources.items()}.get,
    }  # fmt: skip
    src = Source(space, days)
    src.namespace["fold_traits"], src.namespace["fold_correction"] = traits_folders(layout.definitions)
    names = [*layout.event_names(), ANY_EVENT]
    others = [name for name in names if name not in ORDER_TYPES]
    known = [name for name in names if name in ORDER_TYPES]
    _table(src, layout, "H", names)
    _table(src, layout, "C", others, custom=True)
    _table(src, layout, "O", known, Part.OWN)
    _table(src, layout, "F", known, Part.ORDER)
    _apply(src, layout)
    _apply_parts(src)
    _named(src, layout)
    _merge(src, layout, order_cap)
    _drop(src, layout)
    return src


def _table(
    src: Source, layout: Layout, label: str, names: list[str], part: Part = Part.WHOLE, *, custom: bool = False
) -> None:
    """Handlers by event name, as the look-up `label`, and what handles every other name, as `label`_DEFAULT."""
    table = {}
    for i, name in enumerate(names):
        handler = f"{label.lower()}{i}"
        if _handler(src, layout, handler, name, part, custom=custom):
            table[name] = handler
    default = table.pop(ANY_EVENT, "None")
    pairs = ", ".join(f"{src.constant(name)}: {handler}" for name, handler in table.items())
    src.add(0, f"{label} = {{{pairs}}}.get", f"{label}_DEFAULT = {default}")


_BASE: Final = (COUNT.inline, FIRST.inline, LAST.inline)  # event count, first and last event


def _merge(src: Source, layout: Layout, cap: int | None) -> None:
    """One expression per slot. Lists call their merge only if neither is empty; OVERFLOW does not count as empty."""
    names: dict[Merge, str] = {}

    def called(i: int, merge: Merge) -> str:
        name = names.get(merge) or names.setdefault(merge, src.constant(merge))
        return f"({name}(a{i}, b{i}) if a{i} and b{i} else a{i} or b{i})"

    maps = (st.ORDERS, st.REFUNDS, st.CANCELS)
    parts = [inline.format(a=f"a{i}", b=f"b{i}") for i, inline in enumerate(_BASE) if inline is not None]
    parts.append(called(st.TRAITS, merge_keyed(None)))
    merged = [called(i, merge_keyed(cap, join_orders) if i == st.ORDERS else merge_keyed(cap)) for i in maps]
    parts += [f"m{i}" for i in maps]
    for slot in layout.slots:
        i, kind = slot.index, slot.need.kind
        if kind.inline is None:
            parts.append(called(i, kind.merger(cap)))
        else:
            parts.append(kind.inline.format(a=f"a{i}", b=f"b{i}"))
    src.add(0, "def merge_two(a, b):")
    for side in "ab":
        src.add(1, f"{', '.join(f'{side}{i}' for i in range(len(parts)))} = {side}")
    src.add(1, *(f"m{i} = {expression}" for i, expression in zip(maps, merged, strict=True)))
    src.add(1, f"if {' or '.join(f'm{i} == {OVERFLOW}' for i in maps)}:")
    src.add(2, f"{' = '.join(f'm{i}' for i in maps)} = {OVERFLOW}")
    src.add(1, f"return [{', '.join(parts)}]")


def _drop(src: Source, layout: Layout) -> None:
    """Drops what no window reaches."""
    src.add(0, "def drop(s, today):")
    src.add(1, "pass")
    for slot in layout.slots:
        if slot.window_days:
            src.add(1, *slot.need.kind.prune_lines(src, f"s[{slot.index}]", f"today - {slot.window_days - 1}"))


_COUNTED: Final = ("us = e.occurred_us", "key = e.order", "s[0] += 1")
_FIRST_SEEN: Final = (
    "first = s[1]",
    "if first is None or us < first[0] or (us == first[0] and key < first[1]): s[1] = [us, key]",
)
_LAST_SEEN: Final = (
    "last = s[2]",
    "if last is None or us > last[0] or (us == last[0] and key > last[1]):",
    "    if not e.flags or 'bot' not in e.flags or e.type not in VISITS: s[2] = [us, key]",
)


def _apply(src: Source, layout: Layout) -> None:
    src.add(0, "def apply(e, s, opened=None):")
    src.add(
        1, *_COUNTED, *_FIRST_SEEN, *_LAST_SEEN,
        "t = e.type",
        f"if t == {IDENTIFIED!r}:",
        "    fold_traits(e, s, opened)",
        f"elif t == {CORRECTED!r}:",
        "    fold_correction(e, s, opened)",
        "h = H(t, H_DEFAULT) if t != 'custom' else C(e.name, C_DEFAULT)",
        "if h is not None:",
        "    h(e, s, us, key, opened)",
    )  # fmt: skip
    empties = [repr(slot.need.kind.empty()) for slot in layout.slots]
    src.add(0, "def new_state():")
    src.add(1, f"return [0, None, None, [], [], [], []{''.join(', ' + e for e in empties)}]")


def _apply_parts(src: Source) -> None:
    """`apply` of an event with an order, in two: together they do what it does (decision 0037)."""
    src.add(0, "def apply_own(e, s, opened=None):")
    src.add(1, *_COUNTED, *_FIRST_SEEN, *_LAST_SEEN, "h = O(e.type, None)")
    src.add(1, "if h is not None: h(e, s, us, key, opened)")
    src.add(0, "def apply_order(e, s, opened=None):")
    src.add(1, *_COUNTED[:2], *_LAST_SEEN, "h = F(e.type, None)")
    src.add(1, "if h is not None: h(e, s, us, key, opened)")


def _named(src: Source, layout: Layout) -> None:
    """`order_id(e)`: the id in clear of the order that an event names. `sold(e)`: 1 for a sale, which makes somebody
    have its order, -1 for one below zero, which gives back, 0 for one of nothing.
    """
    body = Handler(src, layout, NAMING)
    fields = ", ".join(body.fields[name] for name in ORDER_IDS)
    src.add(0, "def order_id(e):", "    p = e.properties", f"    return first_id(({fields}))")
    src.add(0, "def sold(e, opened=None):", "    p = e.properties")
    src.add(
        1, f"own = scaled({body.fields['revenue']})", "if own is not None and own > 0: return 1",
        f"own = {body.worth()}[0]", "if own is None or own > 0: return 1", "if own < 0: return -1",
        f"return int(bool(lines_of({body.lines()})))",
    )  # fmt: skip


def _handler(src: Source, layout: Layout, label: str, name: str, part: Part, *, custom: bool) -> bool:
    """Generate the handler of one event name; False if it would do nothing."""
    slots = [s for s in layout.slots if _in_stream(s.stream, name, custom=custom) and _in_part(s.stream, name, part)]
    orders = name in ORDER_TYPES and not custom and part != Part.OWN
    if not slots and not orders:
        return False
    src.add(0, f"def {label}(e, s, us, key, opened):")
    src.add(1, "p = e.properties")
    body = Handler(src, layout, name)
    for slot in slots:
        _update(src, body, slot, layout)
    if orders:
        order(src, body, layout, label)
    return True


def _in_stream(stream: Stream, name: str, *, custom: bool) -> bool:
    return name in stream.events or ANY_EVENT in stream.events or (custom and "custom" in stream.events)


def _in_part(stream: Stream, name: str, part: Part) -> bool:
    """A trait that names the event is about its order; one that looks at any event, about who sent it."""
    return part == Part.WHOLE or (name in stream.events) == (part == Part.ORDER)


def _update(src: Source, body: Handler, slot: SlotPlace, layout: Layout) -> None:
    """The statements of one slot."""
    pinned = is_pinned(layout, slot.stream)
    test = body.predicate(slot.stream, pinned)
    if body.name in VISITS or body.name == ANY_EVENT:
        where = slot.stream.where
        if not where or FLAGS not in used_properties(layout.where[where]):
            test = body.human() if test is None else f"{body.human()} and {test}"
    lines = slot.need.kind.step(body, slot.need, f"s[{slot.index}]", pinned)
    if test is None:
        src.add(1, *lines)
    else:
        src.add(1, f"if {test}:")
        src.add(2, *lines)
