"""The body of one event name's handler in a fold's code: amounts, ids, values, conditions. No I/O, no clock."""

from collections.abc import Sequence
from typing import Any, Final

from projections.conditions.predicates import tree
from projections.conditions.registry import of_event
from projections.fold.layout import Layout, Stream, pinned_leaf
from projections.generated import Source
from schemas.definitions import ANY_EVENT, decimal_marks
from schemas.paths import CONTEXT, FLAGS, path_of
from schemas.sales import LINES, ORDER_IDS, REFUND_IDS
from schemas.touchpoint_fields import MONEY
from schemas.touchpoints import ORDER_TYPES, REFUND_TYPES

UPDATED: Final = "purchase.updated"
_NAMED: Final = ("web.page_viewed", "app.screen_viewed")  # whose own name is what senders call their property `name`


class Handler:
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


def is_pinned(layout: Layout, stream: Stream) -> bool:
    """Whether a stream's traits are over one currency."""
    return any(trait.pinned for trait in layout.traits.values() if trait.stream == stream)


def matches(stream: Stream, name: str) -> bool:
    """Whether a stream may include events of a name; an update counts as the purchase it updates."""
    if name in stream.events or ANY_EVENT in stream.events:
        return True
    return name == UPDATED and "purchase.completed" in stream.events
