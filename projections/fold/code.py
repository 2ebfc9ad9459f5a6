"""The source of a fold: a handler for each event name, and how states are merged and pruned. No I/O, no clock."""

from collections.abc import Sequence
from typing import Any, Final

from projections.conditions.predicates import HELPERS, moment_reader, tree
from projections.conditions.registry import of_event
from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.calls import converter, lines_in, read_raw, sealed_id, traits_folders
from projections.fold.layout import Layout, SlotPlace, Stream, pinned_leaf
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
from schemas.paths import CONTEXT, FLAGS, path_of, values_at
from schemas.sales import LINES, ORDER_IDS, REFUND_IDS, first_id, lines_of, order_id_of, refund_key, worth_of
from schemas.touchpoint_fields import MONEY
from schemas.touchpoints import CANCEL_TYPES, ORDER_TYPES, REFUND_TYPES, VISITS

IDENTIFIED: Final = "profile.identified"
CORRECTED: Final = "trait.corrected"
UPDATED: Final = "purchase.updated"
NAMING: Final = "purchase.completed"
NEGATIVE: Final = {"purchase.completed": "purchase.refunded", "pos.purchase": "pos.return"}
"""What a sale with a negative amount is."""
_NAMED: Final = ("web.page_viewed", "app.screen_viewed")  # whose own name is what senders call their property `name`


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
    body = _Handler(src, layout, NAMING)
    fields = ", ".join(body.fields[name] for name in ORDER_IDS)
    src.add(0, "def order_id(e):", "    p = e.properties", f"    return first_id(({fields}))")
    src.add(0, "def sold(e, opened=None):", "    p = e.properties")
    src.add(
        1, f"own = scaled({body.fields['revenue']})", "if own is not None and own > 0: return 1",
        f"own = {body.worth()}[0]", "if own is None or own > 0: return 1", "if own < 0: return -1",
        f"return int(bool(lines_of({body.lines()})))",
    )  # fmt: skip


class _Handler:
    """The body of one event name's handler: each local is assigned once, when first needed.

    `as_`: the name whose declarations hold, if another one: a negative sale is folded as a refund.
    """

    def __init__(self, src: Source, layout: Layout, name: str, as_: str = "") -> None:
        self.src, self.layout, self.name = src, layout, name
        self.use = src.use
        self.fields = {prop: f"p.f{i}" for i, prop in enumerate(layout.properties())}
        self.closed = layout.closed(as_ or name)
        self.made: set[str] = set()
        self.predicates: dict[tuple[str, bool, bool], str] = {}

    def local(self, var: str, *lines: str) -> str:
        if var not in self.made:
            self.made.add(var)
            self.src.add(1, *lines)
        return var

    def clear(self, prop: str) -> str:
        """A property as it is in clear."""
        field = self.fields[prop]
        return f"read_raw({field})" if prop in LINES else field

    def opened(self, prop: str) -> str:
        """A property in clear, else from the opened sealed part."""
        if prop == FLAGS:
            return "e.flags"
        var = "v" + self.fields[prop][3:]
        return self.local(
            var,
            f"{var} = {self.clear(prop)}",
            f"if {var} is None and {self.sealed()}: {var} = op.get({self.src.constant(prop)})",
            *([f"if {var} is None: {var} = e.name"] if prop == "name" and self.name in _NAMED else []),
        )

    def sealed(self) -> str:
        """A local holding the opened properties, or None."""
        return self.local("op", "op = opened.get('properties') if opened is not None else None")

    def decimal(self) -> str:
        """The decimal mark that the source says it writes, or None."""
        if not decimal_marks(self.layout.definitions):
            return "None"
        return self.local("dec", "dec = DECIMAL(e.source)")

    def nested(self, prop: str) -> str:
        """A local holding the values at a path: those of the property that has this name, else those below."""
        path = path_of(prop)
        assert path is not None, "only a path is nested"
        var, constant = f"x{self.fields[prop][3:]}", self.src.constant
        steps, name, use = constant(path.steps), constant(prop), constant(path.root)
        if path.section == CONTEXT:
            self.local("oc", "oc = opened.get('context') if opened is not None else None")
            whole, sealed = f"(e.context.get({use}) if e.context else None)", f"(oc.get({use}) if oc else None)"
        else:
            whole, sealed = self.clear(path.root), f"({self.sealed()}.get({use}) if op else None)"
        flat = f"({self.fields[prop]},) if {self.fields[prop]} is not None else (op[{name}],) if op and {name} in op"
        self.sealed()
        return self.local(var, f"{var} = {flat} else values_at(joined({whole}, {sealed}), {steps})")

    def value(self, prop: str) -> str:
        """A property whose value is kept: if it is declared personal, only when it came in clear."""
        if prop == FLAGS:
            return "e.flags"
        if path_of(prop) is None:
            return self.clear(prop) if prop in self.closed else self.opened(prop)
        if self.layout.is_closed(prop, self.name):
            return "None"
        var = self.nested(prop)
        return f"({var}[0] if {var} else None)"

    def amounts(self) -> None:
        """own, cur, amt: revenue in its own currency and in the base currency; stated: whether the event names the
        currency; bad: whether its amount is there and cannot be read."""
        f, decimal = self.fields, self.decimal()
        plain = f"scaled({f['revenue']})"
        refund = ["if own is not None and own < 0: own = -own"] if self.name in REFUND_TYPES else []
        self.local(
            "own", "said, bad = None, False",
            f"own = {plain}" if decimal == "None" else f"own = {plain} if dec != ',' else None",
            f"if own is None: own, said, bad = worth_of({self._said()}, {decimal})", *refund,
            f"cur = {f['currency']}", "if cur is not None and cur != BASE: cur = named_currency(cur)",
            "if cur is None: cur = said", "stated = cur is not None", "if cur is None: cur = BASE",
            "amt = own if own is None or cur == BASE else to_base(own, cur, us)",
        )  # fmt: skip

    def worth(self) -> str:
        """The `worth_of` an event; lines before it see to what it needs."""
        return f"worth_of({self._said()}, {self.decimal()})"

    def _said(self) -> str:
        """What the amount of an event without a plain `revenue` is taken from: other properties, and its lines."""
        f = self.fields
        if self.name not in ORDER_TYPES:
            return f"({f['revenue']}, {f['total']}), {self.clear('products')}"
        return f"({f['revenue']}, {f['total']}, {self.value('value')}), {self.lines()}"

    def lines(self) -> str:
        """The lines of an order event."""
        return f"lines_in({self.fields['products']}, {self.fields['items']}, {self.unsealed('items')})"

    def unsealed(self, *names: str) -> str:
        """The opened properties, if one of some names may be kept."""
        return "None" if self.closed.issuperset(names) else self.sealed()

    def order_id(self) -> str:
        """A local holding the normal form of the order's id, or None."""
        return self._id("oid", ORDER_IDS)

    def refund_id(self) -> str:
        return self._id("rid", REFUND_IDS)

    def _id(self, var: str, names: Sequence[str]) -> str:
        first, *others = (self.fields[name] for name in names)
        kept = tuple(name for name in names if name not in self.closed)
        return self.local(
            var,
            f"{var} = order_id_of({first})",
            f"if {var} is None:",
            f"    {var} = first_id(({', '.join(others)},))",
            f"    if {var} is None and opened is not None:",
            f"        {var} = sealed_id(opened.get('properties') or {{}}, {self.src.constant(kept)})",
        )

    def day(self) -> str:
        return self.local("day", "day = DAYS(us // 900000000)", "if day is None: day = day_of(us)")

    def number(self, of: str, pinned: bool) -> str:
        """A local holding the scaled (or µs) value of `of`, or None."""
        if of == "occurred_at":
            return "us"
        if of == "revenue":
            self.amounts()
            return "own" if pinned else "amt"
        var = "n" + self.fields[of][3:]
        return self.local(var, f"{var} = scaled({self.read(of)})")

    def read(self, of: str) -> str:
        """A property whose value is kept, money as a plain decimal."""
        value = self.value(of)
        return f"plain_text({value}, {self.decimal()})" if of in MONEY else value

    def kept(self, of: str, pinned: bool) -> str:
        """A local holding what first, last or an order keeps of `of`."""
        if of in ("occurred_at", "revenue"):
            return self.number(of, pinned)
        var = "k" + self.fields[of][3:]
        return self.local(var, f"{var} = storable({self.read(of)})")

    def predicate(self, stream: Stream, pinned: bool, *, of_order: bool = False) -> str | None:
        """A local that is true if the event passes the stream's `where`; None without a `where`.

        `of_order`: for a refund's bits. The currency of a refund is its order's, so that one is asked when it is read.
        """
        if not stream.where:
            return None
        where = self.layout.where[stream.where]
        later = pinned_leaf(where) if of_order and pinned and self.name in REFUND_TYPES else None
        known = self.predicates.get((stream.where, pinned, later is None))
        if known is None:
            expression = tree(where, lambda leaf: "True" if leaf is later else self._leaf(leaf, pinned))
            known = self.predicates[stream.where, pinned, later is None] = f"w{len(self.predicates)}"
            self.src.add(1, f"{known} = {expression}")
        return known

    def human(self) -> str:
        """A local that is false of a crawler's visit, which counts only where a definition speaks of flags."""
        return self.local("human", "human = not e.flags or 'bot' not in e.flags or e.type not in VISITS")

    def currency(self) -> str:
        """A local holding the effective currency."""
        self.amounts()
        return "cur"

    def _leaf(self, leaf: Any, pinned: bool) -> str:
        kind = of_event(leaf)
        assert kind is not None, "`check` refuses a condition on a customer here"
        return kind.test(leaf, self, pinned)


def _handler(src: Source, layout: Layout, label: str, name: str, part: Part, *, custom: bool) -> bool:
    """Generate the handler of one event name; False if it would do nothing."""
    slots = [s for s in layout.slots if _in_stream(s.stream, name, custom=custom) and _in_part(s.stream, name, part)]
    orders = name in ORDER_TYPES and not custom and part != Part.OWN
    if not slots and not orders:
        return False
    src.add(0, f"def {label}(e, s, us, key, opened):")
    src.add(1, "p = e.properties")
    body = _Handler(src, layout, name)
    for slot in slots:
        _update(src, body, slot, layout)
    if orders:
        _order(src, body, layout, label)
    return True


def _in_stream(stream: Stream, name: str, *, custom: bool) -> bool:
    return name in stream.events or ANY_EVENT in stream.events or (custom and "custom" in stream.events)


def _in_part(stream: Stream, name: str, part: Part) -> bool:
    """A trait that names the event is about its order; one that looks at any event, about who sent it."""
    return part == Part.WHOLE or (name in stream.events) == (part == Part.ORDER)


def _update(src: Source, body: _Handler, slot: SlotPlace, layout: Layout) -> None:
    """The statements of one slot."""
    pinned = _pinned(layout, slot.stream)
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


def _pinned(layout: Layout, stream: Stream) -> bool:
    return any(trait.pinned for trait in layout.traits.values() if trait.stream == stream)


def _order(src: Source, body: _Handler, layout: Layout, label: str) -> None:
    """How an order event changes the order map."""
    name, oid = body.name, body.order_id()
    if name in CANCEL_TYPES:
        src.add(1, f"if {oid} is not None: put(s[{st.CANCELS}], [{oid}, us, key])")
        return
    body.amounts()
    if name in REFUND_TYPES:
        _refund(src, body, layout)
    elif name == UPDATED:
        src.add(1, f"if {oid} is None or own is None or own < 0: return")
        src.add(1, _put_order(src, body, layout, "None, None, None"))
    else:
        src.add(1, "if own is not None and own <= 0:")
        src.add(2, f"if own < 0: return {label}_back(e, s, us, key, opened)")
        src.add(2, f"if not lines_of({body.lines()}): return")
        src.add(1, _put_order(src, body, layout, "us, us, key"))
        src.add(0, f"def {label}_back(e, s, us, key, opened):")
        src.add(1, "p = e.properties")
        _order(src, _Handler(src, layout, NEGATIVE[name], name), layout, label)


def _put_order(src: Source, body: _Handler, layout: Layout, completed: str) -> str:
    _bits(src, body, layout)
    extras = "".join(f", {body.kept(of, False)}" for of in layout.extras)
    state = "oid or e.id, 0 if own is None else 1, RANK(e.source, 0), us, key, own, cur, amt, bits, int(bad)"
    return f"put_order(s[{st.ORDERS}], [{state}, {completed}{extras}])"


def _refund(src: Source, body: _Handler, layout: Layout) -> None:
    rid = body.refund_id()
    _bits(src, body, layout)
    src.add(
        1, f"if own is None and not bad and lines_of({body.lines()}): bad = True",  # a part, whose price nobody says
        f"rkey = key[-16:] if {rid} is None else refund_key(oid, {rid})",
        f"put(s[{st.REFUNDS}],"
        " [rkey, RANK(e.source, 0), us, key, oid, own, cur, amt, bits, int(stated), int(bad)])",
    )  # fmt: skip


def _bits(src: Source, body: _Handler, layout: Layout) -> None:
    """A local with the bits of the streams that the event is in."""
    src.add(1, "bits = 0")
    for bit, stream in enumerate(layout.order_streams):
        if matches(stream, body.name):
            test = body.predicate(stream, _pinned(layout, stream), of_order=True)
            src.add(1, f"bits |= {1 << bit}" if test is None else f"if {test}: bits |= {1 << bit}")


def matches(stream: Stream, name: str) -> bool:
    """Whether a stream may include events of a name; an update counts as the purchase it updates."""
    if name in stream.events or ANY_EVENT in stream.events:
        return True
    return name == UPDATED and "purchase.completed" in stream.events
