"""The source of a fold: a handler for each event name, and how states are merged and pruned. No I/O, no clock."""

from typing import Any, Final

from projections.conditions.predicates import HELPERS, moment_reader, tree
from projections.conditions.registry import of_event
from projections.days import LocalDays
from projections.fold import state as st
from projections.fold.calls import (
    converter,
    derive,
    read_raw,
    traits_folders,
)
from projections.fold.layout import Layout, SlotPlace, Stream
from projections.generated import Source
from projections.slots.base import Merge
from projections.slots.count import COUNT
from projections.slots.keyed import OVERFLOW, merge_keyed, put
from projections.slots.stamped import FIRST, LAST
from projections.slots.values import storable, text_id
from schemas.clear import joined
from schemas.conditions import used_properties
from schemas.definitions import ANY_EVENT
from schemas.money import currency_of
from schemas.paths import CONTEXT, FLAGS, path_of, values_at
from schemas.touchpoints import CANCEL_TYPES, ORDER_TYPES, REFUND_TYPES, VISITS

IDENTIFIED: Final = "profile.identified"
CORRECTED: Final = "trait.corrected"
_NAMED: Final = ("web.page_viewed", "app.screen_viewed")  # whose own name is what senders call their property `name`


def source_of(layout: Layout, days: LocalDays, currency: str, order_cap: int | None) -> Source:
    """The code of `apply`, `new_state`, `merge_two` and `drop`."""
    space: dict[str, Any] = {
        **HELPERS, "put": put, "text_id": text_id, "storable": storable, "read_raw": read_raw, "derive": derive,
        "VISITS": VISITS, "currency_of": currency_of, "BASE": currency, "joined": joined, "values_at": values_at,
        "DAYS": days.cache.get, "day_of": days.day, "moment": moment_reader(days),
        "to_base": converter(layout.definitions, currency, days),
        "RANK": {name: source.rank for name, source in layout.definitions.sources.items()}.get,
    }  # fmt: skip
    src = Source(space, days)
    src.namespace["fold_traits"], src.namespace["fold_correction"] = traits_folders(layout.definitions)
    handlers: dict[str, str] = {}
    names = [*layout.event_names(), ANY_EVENT]
    for i, name in enumerate(names):
        if _handler(src, layout, f"h{i}", name, custom=False):
            handlers[name] = f"h{i}"
    customs: dict[str, str] = {}
    for i, name in enumerate(names):
        if name not in ORDER_TYPES and _handler(src, layout, f"c{i}", name, custom=True):
            customs[name] = f"c{i}"
    for label, table in (("H", handlers), ("C", customs)):
        default = table.pop(ANY_EVENT, "None")
        pairs = ", ".join(f"{src.constant(name)}: {handler}" for name, handler in table.items())
        src.add(0, f"{label} = {{{pairs}}}.get", f"{label}_DEFAULT = {default}")
    _apply(src, layout)
    _merge(src, layout, order_cap)
    _drop(src, layout)
    return src


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
    merged = [called(i, merge_keyed(cap)) for i in maps]
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


def _apply(src: Source, layout: Layout) -> None:
    src.add(0, "def apply(e, s, opened=None):")
    src.add(
        1, "us = e.occurred_us", "key = e.order", "t = e.type", "s[0] += 1", "first = s[1]",
        "if first is None or us < first[0] or (us == first[0] and key < first[1]):",
        "    s[1] = [us, key]",
        "last = s[2]",
        "if last is None or us > last[0] or (us == last[0] and key > last[1]):",
        "    if not e.flags or 'bot' not in e.flags or t not in VISITS: s[2] = [us, key]",
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


class _Handler:
    """The body of one event name's handler: each local is assigned once, when first needed."""

    def __init__(self, src: Source, layout: Layout, name: str) -> None:
        self.src, self.layout, self.name = src, layout, name
        self.use = src.use
        self.fields = {prop: f"p.f{i}" for i, prop in enumerate(layout.properties())}
        self.closed = layout.closed(name)
        self.made: set[str] = set()
        self.predicates: dict[tuple[str, bool], str] = {}

    def local(self, var: str, *lines: str) -> str:
        if var not in self.made:
            self.made.add(var)
            self.src.add(1, *lines)
        return var

    def clear(self, prop: str) -> str:
        """A property as it is in clear."""
        field = self.fields[prop]
        return f"read_raw({field})" if prop == "products" else field

    def opened(self, prop: str) -> str:
        """A property in clear, else from the opened sealed part."""
        if prop == FLAGS:
            return "e.flags"
        var = "v" + self.fields[prop][3:]
        self.local("op", "op = opened.get('properties') if opened is not None else None")
        return self.local(
            var,
            f"{var} = {self.clear(prop)}",
            f"if {var} is None and op: {var} = op.get({self.src.constant(prop)})",
            *([f"if {var} is None: {var} = e.name"] if prop == "name" and self.name in _NAMED else []),
        )

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
            self.local("op", "op = opened.get('properties') if opened is not None else None")
            whole, sealed = self.clear(path.root), f"(op.get({use}) if op else None)"
        flat = f"({self.fields[prop]},) if {self.fields[prop]} is not None else (op[{name}],) if op and {name} in op"
        self.local("op", "op = opened.get('properties') if opened is not None else None")
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
        """own, cur, amt: revenue in its own currency and in the base currency."""
        f = self.fields
        refund = ["if own is not None: own = abs(own)"] if self.name in REFUND_TYPES else []
        self.local(
            "own", f"own = scaled({f['revenue']})",
            f"if own is None: own = derive({f['total']}, {f['products']})", *refund,
            f"cur = {f['currency']}", "cur = BASE if cur is None else currency_of(cur, BASE)",
            "amt = own if own is None or cur == BASE else to_base(own, cur, us)",
        )  # fmt: skip

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
        return self.local(var, f"{var} = scaled({self.value(of)})")

    def kept(self, of: str, pinned: bool) -> str:
        """A local holding what first, last or an order keeps of `of`."""
        if of in ("occurred_at", "revenue"):
            return self.number(of, pinned)
        var = "k" + self.fields[of][3:]
        return self.local(var, f"{var} = storable({self.value(of)})")

    def predicate(self, stream: Stream, pinned: bool) -> str | None:
        """A local that is true if the event passes the stream's `where`; None without a `where`."""
        if not stream.where:
            return None
        known = self.predicates.get((stream.where, pinned))
        if known is None:
            expression = tree(self.layout.where[stream.where], lambda leaf: self._leaf(leaf, pinned))
            known = self.predicates[stream.where, pinned] = f"w{len(self.predicates)}"
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


def _handler(src: Source, layout: Layout, label: str, name: str, *, custom: bool) -> bool:
    """Generate the handler of one event name; False if it would do nothing."""
    slots = [s for s in layout.slots if _in_stream(s.stream, name, custom=custom)]
    orders = name in ORDER_TYPES and not custom
    if not slots and not orders:
        return False
    src.add(0, f"def {label}(e, s, us, key, opened):")
    src.add(1, "p = e.properties")
    body = _Handler(src, layout, name)
    for slot in slots:
        _update(src, body, slot, layout)
    if orders:
        _order(src, body, layout, name)
    return True


def _in_stream(stream: Stream, name: str, *, custom: bool) -> bool:
    return name in stream.events or ANY_EVENT in stream.events or (custom and "custom" in stream.events)


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


def _order(src: Source, body: _Handler, layout: Layout, name: str) -> None:
    """How an order event changes the order map."""
    src.add(1, f"oid = text_id({body.clear('order_id')})")
    if name in CANCEL_TYPES:
        src.add(1, f"if oid is not None: put(s[{st.CANCELS}], [oid, us, key])")
        return
    body.amounts()
    src.add(1, "bits = 0")
    for bit, stream in enumerate(layout.order_streams):
        if matches(stream, name):
            test = body.predicate(stream, _pinned(layout, stream))
            src.add(1, f"bits |= {1 << bit}" if test is None else f"if {test}: bits |= {1 << bit}")
    if name in REFUND_TYPES:
        src.add(1, f"put(s[{st.REFUNDS}], [key, oid, us, own, cur, amt, bits])")
        return
    extras = "".join(f", {body.kept(of, False)}" for of in layout.extras)
    entry = f"[oid or e.id, RANK(e.source, 0), us, key, own, cur, amt, bits{extras}]"
    guard = "if own is not None: " if name == "purchase.updated" else ""
    src.add(1, f"{guard}put(s[{st.ORDERS}], {entry})")


def matches(stream: Stream, name: str) -> bool:
    """Whether a stream may include events of a name; an update counts as the purchase it updates."""
    if name in stream.events or ANY_EVENT in stream.events:
        return True
    return name == "purchase.updated" and "purchase.completed" in stream.events
