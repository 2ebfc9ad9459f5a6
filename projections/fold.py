"""The fold: definitions become one generated Python function from event to state (design C5).

Live work, a rebuild and a backtest run this same function; there is no second path to disagree with. Decoding reads
only what the definitions need. No I/O, no clock.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b, sha256
from typing import Any, Final, Protocol, cast

import msgspec

from projections import state as st
from projections.plan import Plan, SlotPlan, Stream, make_plan
from projections.predicates import DYNAMIC, HELPERS, SCALED, TEXT, Source, compare, moment_reader, tree
from projections.state import LocalDays, State
from schemas.conditions import PropertyLeaf, used_properties
from schemas.definitions import ANY_EVENT, CANCEL_TYPES, ORDER_TYPES, REFUND_TYPES, Definitions
from schemas.errors import ReaderTooOld, RecordUnreadable
from schemas.money import LIMIT, currency_of, divide, lines_amount, scaled
from schemas.record import EPOCH, VERSION, Identifier, Sealed, encode
from schemas.record import decode as decode_record

IDENTIFIED: Final = "profile.identified"
_US: Final = timedelta(microseconds=1)
LAYOUT_VERSION: Final = 1  # raise it when the same definitions fold to other states: it forces a refold
MAX_TEXT: Final = 500  # letters of a text kept by first or last
MAX_ID: Final = 128  # letters of an order or complaint id kept as it is


class FoldEvent(Protocol):
    """A decoded record, with only what a fold and its caller need. Set `partition` and `offset` before `apply`."""

    v: int
    id: str
    type: str
    name: str | None
    source: str
    ids: list[Identifier]
    route_key: str
    occurred_at: datetime
    received_at: datetime
    known_at: datetime
    digest: str
    properties: Any  # a Struct of the needed properties
    traits: dict[str, Any]
    sealed: Sealed | None
    key: bytes  # 16 bytes: the event key
    occurred_us: int
    partition: int
    offset: int


Apply = Callable[[FoldEvent, State, Mapping[str, Any] | None], None]


class Fold:
    """A compiled fold. `apply(event, state, opened)` folds one event in; `opened`: its opened sealed JSON."""

    apply: Apply

    def __init__(self, plan: Plan, time_zone: str, currency: str, order_cap: int | None) -> None:
        self.plan = plan
        self.time_zone = time_zone
        self.currency = currency
        self.order_cap = order_cap
        self.days = LocalDays(time_zone)
        source = _generate(self, plan)
        self.source = "\n".join(source.lines)
        space = source.run("fold")
        self.apply = space["apply"]
        self.new_state: Callable[[], State] = space["new_state"]
        self._merge_two: Callable[[State, State], State] = space["merge_two"]
        self._drop: Callable[[State, int], None] = space["drop"]
        self._decoder, self._event_type = _event_decoder(plan)
        self._needs: dict[str, frozenset[str]] = _sealed_needs(plan)
        self._any_needs = self._needs.get(ANY_EVENT, frozenset())
        self._open_slots = tuple(slot.index for slot in plan.slots if slot.kind == "open")
        self.layout_hash = _layout_hash(plan, time_zone, currency)

    def decode(self, value: bytes) -> FoldEvent:
        """Read stored bytes. Raises RecordUnreadable, or ReaderTooOld for a record of a newer version."""
        try:
            event = self._decoder.decode(value)
            if event.v != VERSION:
                event = self._decoder.decode(encode(decode_record(value)))
            event.key = bytes.fromhex(event.id.replace("-", ""))
        except (msgspec.MsgspecError, RecursionError, ValueError) as err:
            if _version_of(value) > VERSION:
                raise ReaderTooOld(f"touchpoint newer than v{VERSION}, which this build reads") from err
            raise RecordUnreadable(f"not a touchpoint record: {type(err).__name__}") from err
        event.occurred_us = (event.occurred_at - EPOCH) // _US
        return cast(FoldEvent, event)

    def needs_sealed(self, event: FoldEvent) -> bool:
        """Whether the event's sealed part holds a property that a definition compares."""
        if event.sealed is None:
            return False
        needed = self._needs.get(event.type, self._any_needs)
        if event.type == "custom":
            needed |= self._needs.get(event.name or "", self._any_needs)
        return not needed.isdisjoint(event.sealed.names)

    pack = staticmethod(st.pack)
    unpack = staticmethod(st.unpack)

    def merge(self, states: Iterable[State]) -> State:
        """The state of all their events together. May share structure with its inputs: do not fold into either."""
        merged: State | None = None
        for state in states:
            merged = state if merged is None else self._merge_two(merged, state)
        return self.new_state() if merged is None else merged

    def prune(self, state: State, at_us: int) -> State:
        """Drop, in place, day cells that no window reaches at or after `at_us`; by the clock, never by contents."""
        self._drop(state, self.days.day(at_us))
        return state

    def canonical(self, state: State, at_us: int) -> bytes:
        """The bytes to hash: pruned at `at_us`, the given state untouched."""
        return st.pack(self.prune(list(state), at_us))

    def overflowed(self, state: State) -> bool:
        """Whether a map is over its cap: fold the signature's events anew with `order_cap=None`."""
        if state[st.ORDERS] == st.OVERFLOW:
            return True
        return bool(self._open_slots) and any(state[index] == st.OVERFLOW for index in self._open_slots)


def compile_fold(
    definitions: Definitions, *, time_zone: str, currency: str, order_cap: int | None = st.ORDER_CAP
) -> Fold:
    """Generate the fold of some definitions. `order_cap=None`: no cap, for a refold of what overflowed."""
    return Fold(make_plan(definitions), time_zone, currency, order_cap)


# ---------------------------------------------------------------- decoding


def _event_decoder(plan: Plan) -> tuple[msgspec.json.Decoder[Any], type]:
    """A decoder whose `properties` is a Struct of the needed fields. Any and Raw: a wrong type never raises."""
    fields: list[Any] = []
    for i, name in enumerate(plan.properties()):
        if name == "products":
            fields.append((f"f{i}", msgspec.Raw, msgspec.field(name=name, default=msgspec.Raw())))
        else:
            fields.append((f"f{i}", Any, msgspec.field(name=name, default=None)))
    props = msgspec.defstruct("Properties", fields, frozen=True, gc=False)
    event = msgspec.defstruct(
        "FoldEvent",
        [
            ("v", int), ("id", str), ("type", str), ("source", str), ("ids", list[Identifier]), ("route_key", str),
            ("occurred_at", datetime), ("received_at", datetime), ("known_at", datetime), ("digest", str),
            ("name", str | None, None), ("properties", props, props()),
            ("traits", dict[str, Any], msgspec.field(default_factory=dict)), ("sealed", Sealed | None, None),
            ("key", bytes, msgspec.field(name="-key", default=b"")),
            ("occurred_us", int, msgspec.field(name="-occurred_us", default=0)),
            ("partition", int, msgspec.field(name="-partition", default=0)),
            ("offset", int, msgspec.field(name="-offset", default=0)),
        ],
    )  # fmt: skip
    return msgspec.json.Decoder(event), event


class _Version(msgspec.Struct):
    """The version alone: a newer record may be of another shape."""

    v: int = 0


def _version_of(value: bytes) -> int:
    try:
        return msgspec.json.decode(value, type=_Version).v
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return 0


def _sealed_needs(plan: Plan) -> dict[str, frozenset[str]]:
    """Event name → dotted names of properties that some `where` compares."""
    streams = [slot.stream for slot in plan.slots] + plan.order_streams
    needs: dict[str, frozenset[str]] = {}
    for name in [*plan.event_names(), ANY_EVENT]:
        used: set[str] = set()
        for stream in streams:
            if _matches(stream, name) and stream.where:
                used |= used_properties(plan.where[stream.where])
        needs[name] = frozenset(f"properties.{prop}" for prop in used)
    return needs


def _matches(stream: Stream, name: str) -> bool:
    """Whether events of a name may be in a stream; an update stands for the purchase it updates."""
    if name in stream.events or ANY_EVENT in stream.events:
        return True
    return name == "purchase.updated" and "purchase.completed" in stream.events


def _layout_hash(plan: Plan, time_zone: str, currency: str) -> str:
    """Equal when the folds are the same: then a changed definition needs no refold."""
    defs = plan.definitions
    parts = [
        LAYOUT_VERSION, time_zone, currency, plan.extras, [(s.events, s.where) for s in plan.order_streams],
        [(s.kind, s.stream.events, s.stream.where, s.of, s.window_days, s.key, s.opens) for s in plan.slots],
        [(r.currency, r.date, str(r.rate)) for r in defs.rates],
        sorted((n, s.rank) for n, s in defs.sources.items()),
    ]  # fmt: skip
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


# ---------------------------------------------------------------- what the generated code calls


def text_id(value: Any) -> str | None:
    """An order or complaint id as text; None when it is none. Long ones by their hash."""
    if type(value) is str and value:
        return value if len(value) <= MAX_ID else "#" + blake2b(value.encode(), digest_size=16).hexdigest()
    if type(value) is int:
        return str(value)[:MAX_ID]
    return None


def storable(value: Any) -> Any:
    """A property as first, last and an order keep it: text, integer, boolean; a fraction as [scaled]."""
    kind = type(value)
    if kind is str:
        return value[:MAX_TEXT]
    if kind is bool or kind is int:
        return value
    amount = scaled(value) if kind is float else None
    return None if amount is None else [amount]


def read_raw(raw: msgspec.Raw) -> Any:
    """The JSON value of a Raw, None when there is none."""
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.MsgspecError, RecursionError):
        return None


def derive(total: Any, products: msgspec.Raw) -> int | None:
    """The revenue of an event without one: `total`, else from its lines."""
    amount = scaled(total)
    return lines_amount(read_raw(products)) if amount is None and products else amount


def converter(definitions: Definitions, base: str, days: LocalDays) -> Callable[[int, str, int], int | None]:
    """A function (scaled amount, currency, occurred_us) → the amount in the base currency, None without a rate."""
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


def fold_traits(event: FoldEvent, state: State) -> None:
    """The traits an event sets: attributes with their value, direct ones with the position that holds it."""
    entries = state[st.TRAITS]
    us, key = event.occurred_us, event.key
    for name, value in event.traits.items():
        form, stored = _trait_value(value)
        st.put(entries, [name, 0, us, key, form, stored, event.partition, event.offset])
    if event.sealed is not None:
        for dotted in event.sealed.names:
            if dotted.startswith("traits."):
                name = dotted[7:]
                st.put(entries, [name, 0, us, key, st.DIRECT, None, event.partition, event.offset])


def fold_correction(event: FoldEvent, state: State) -> None:
    """A correction by staff of the trait that the event is named by; one without a value withdraws it."""
    name = event.name
    if name is None:
        return
    form, stored = st.WITHDRAWN, None
    if name in event.traits:
        form, stored = _trait_value(event.traits[name])
    elif event.sealed is not None and f"traits.{name}" in event.sealed.names:
        form = st.DIRECT
    stamp = (event.occurred_us, event.key)
    st.put(state[st.TRAITS], [name + st.CORRECTED, 1, *stamp, form, stored, event.partition, event.offset])


def _trait_value(value: Any) -> tuple[int, Any]:
    """Form and stored value of an attribute; no floats, no dicts whose order could differ."""
    if value is None:
        return st.UNSET, None
    if isinstance(value, str | bool | int):
        return st.PLAIN, value
    return st.JSON_TEXT, msgspec.json.encode(value, order="sorted").decode()


# ---------------------------------------------------------------- generation


def _generate(fold: Fold, plan: Plan) -> Source:
    space: dict[str, Any] = {name: getattr(st, name) for name in (
        "add_count", "add_sum", "add_least", "add_greatest", "add_earliest", "add_latest", "add_day", "add_top",
        "put", "put_capped", "put_order", "drop_before", "OVERFLOW",
    )}  # fmt: skip
    space |= {
        **HELPERS, "text_id": text_id, "storable": storable, "read_raw": read_raw, "derive": derive,
        "fold_traits": fold_traits, "fold_correction": fold_correction,
        "currency_of": currency_of, "BASE": fold.currency, "CAP": fold.order_cap,
        "DAYS": fold.days.cache.get, "day_of": fold.days.day, "moment": moment_reader(fold.days),
        "to_base": converter(plan.definitions, fold.currency, fold.days),
        "RANK": {name: source.rank for name, source in plan.definitions.sources.items()}.get,
    }  # fmt: skip
    src = Source(space, fold.days)
    handlers: dict[str, str] = {}
    names = [*plan.event_names(), ANY_EVENT]
    for i, name in enumerate(names):
        if _handler(src, fold, f"h{i}", name, custom=False):
            handlers[name] = f"h{i}"
    customs: dict[str, str] = {}
    for i, name in enumerate(names):
        if name not in ORDER_TYPES and _handler(src, fold, f"c{i}", name, custom=True):
            customs[name] = f"c{i}"
    for label, table in (("H", handlers), ("C", customs)):
        default = table.pop(ANY_EVENT, "None")
        pairs = ", ".join(f"{src.constant(name)}: {handler}" for name, handler in table.items())
        src.add(0, f"{label} = {{{pairs}}}.get", f"{label}_DEFAULT = {default}")
    _apply(src, plan)
    _merge(src, plan, fold.order_cap)
    _drop(src, plan)
    return src


# Merges written out where a call would cost more than the merge; {a} and {b} are the two slots' locals. `b` counts
# only when it is strictly better, as in min() and max().
_INLINE: Final = {
    "count": "{a} + {b}",
    "sum": "[{a}[0] + {b}[0], {a}[1] + {b}[1]]",
    "min": "({a} if {b} is None else {b} if {a} is None or {b} < {a} else {a})",
    "max": "({a} if {b} is None else {b} if {a} is None or {b} > {a} else {a})",
}
_INLINE_LIKE: Final = {"first": "min", "last": "max"}


def _merge(src: Source, plan: Plan, cap: int | None) -> None:
    """One expression a slot. Lists call their merge only when neither is empty; OVERFLOW is no empty list."""
    keyed, traits = src.constant(st.merge_keyed(cap)), src.constant(st.merge_keyed(None))
    names: dict[str, str] = {}

    def expression(i: int, kind: str) -> str:
        a, b = f"a{i}", f"b{i}"
        template = _INLINE.get(_INLINE_LIKE.get(kind, kind))
        if template is not None:
            return template.format(a=a, b=b)
        if kind not in names:
            known = {"open": keyed, "orders": keyed, "traits": traits}.get(kind)
            names[kind] = known or src.constant(st.MONOIDS[kind].merge)
        return f"({names[kind]}({a}, {b}) if {a} and {b} else {a} or {b})"

    base = ("count", "first", "last", "traits", "orders", "orders", "orders")
    kinds = [*base, *(slot.kind for slot in plan.slots)]
    src.add(0, "def merge_two(a, b):")
    for side in "ab":
        src.add(1, f"{', '.join(f'{side}{i}' for i in range(len(kinds)))} = {side}")
    maps = (st.ORDERS, st.REFUNDS, st.CANCELS)
    src.add(1, *(f"m{i} = {expression(i, kinds[i])}" for i in maps))
    src.add(1, f"if {' or '.join(f'm{i} == {st.OVERFLOW}' for i in maps)}:")
    src.add(2, f"{' = '.join(f'm{i}' for i in maps)} = {st.OVERFLOW}")
    parts = [f"m{i}" if i in maps else expression(i, kind) for i, kind in enumerate(kinds)]
    src.add(1, f"return [{', '.join(parts)}]")


def _drop(src: Source, plan: Plan) -> None:
    """Drop day cells older than each slot's longest window."""
    src.add(0, "def drop(s, today):")
    src.add(1, "pass")
    for slot in plan.slots:
        if slot.window_days:
            first, stride = f"today - {slot.window_days - 1}", st.MONOIDS[slot.kind].stride
            if slot.kind == "days":
                first, stride = f"({first}) // {st.DAYS_A_WORD}", 2
            src.add(
                1,
                f"c = s[{slot.index}]",
                f"if c and c[0] < {first}: s[{slot.index}] = drop_before(c, {first}, {stride})",
            )


def _apply(src: Source, plan: Plan) -> None:
    src.add(0, "def apply(e, s, opened=None):")
    src.add(
        1, "us = e.occurred_us", "key = e.key", "s[0] += 1", "first = s[1]",
        "if first is None:",
        "    s[1] = [us, key]",
        "    s[2] = [us, key]",
        "else:",
        "    if us < first[0] or (us == first[0] and key < first[1]):",
        "        s[1] = [us, key]",
        "    last = s[2]",
        "    if us > last[0] or (us == last[0] and key > last[1]):",
        "        s[2] = [us, key]",
        "t = e.type",
        f"if t == {IDENTIFIED!r}:",
        "    fold_traits(e, s)",
        "elif t == 'trait.corrected':",
        "    fold_correction(e, s)",
        "h = H(t, H_DEFAULT) if t != 'custom' else C(e.name, C_DEFAULT)",
        "if h is not None:",
        "    h(e, s, us, key, opened)",
    )  # fmt: skip
    empties = [repr([] if s.kind == "open" else st.MONOIDS[s.kind].empty()) for s in plan.slots]
    src.add(0, "def new_state():")
    src.add(1, f"return [0, None, None, [], [], [], []{''.join(', ' + e for e in empties)}]")


class _Handler:
    """The body of one event name's handler: locals are made once, when first needed."""

    def __init__(self, src: Source, fold: Fold, plan: Plan, name: str) -> None:
        self.src, self.fold, self.plan, self.name = src, fold, plan, name
        self.fields = {prop: f"p.f{i}" for i, prop in enumerate(plan.properties())}
        self.made: set[str] = set()
        self.predicates: dict[tuple[str, bool], str] = {}

    def local(self, var: str, *lines: str) -> str:
        if var not in self.made:
            self.made.add(var)
            self.src.add(1, *lines)
        return var

    def clear(self, prop: str) -> str:
        """A property as it stands in clear."""
        field = self.fields[prop]
        return f"read_raw({field})" if prop == "products" else field

    def opened(self, prop: str) -> str:
        """A property for comparing: in clear, else from the opened sealed part."""
        var = "v" + self.fields[prop][3:]
        self.local("op", "op = opened.get('properties') if opened is not None else None")
        return self.local(
            var,
            f"{var} = {self.clear(prop)}",
            f"if {var} is None and op: {var} = op.get({self.src.constant(prop)})",
        )

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
        return self.local(var, f"{var} = scaled({self.clear(of)})")

    def kept(self, of: str, pinned: bool) -> str:
        """A local holding what first, last or an order keeps of `of`."""
        if of in ("occurred_at", "revenue"):
            return self.number(of, pinned)
        var = "k" + self.fields[of][3:]
        return self.local(var, f"{var} = storable({self.clear(of)})")

    def predicate(self, stream: Stream, pinned: bool) -> str | None:
        """A local that is true when the event passes the stream's `where`; None when there is none."""
        if not stream.where:
            return None
        known = self.predicates.get((stream.where, pinned))
        if known is None:
            expression = tree(self.plan.where[stream.where], lambda leaf: self._leaf(leaf, pinned))
            known = self.predicates[stream.where, pinned] = f"w{len(self.predicates)}"
            self.src.add(1, f"{known} = {expression}")
        return known

    def _leaf(self, leaf: PropertyLeaf, pinned: bool) -> str:
        value = leaf.value
        if leaf.property == "revenue":
            return compare(self.src, self.number("revenue", pinned), SCALED, leaf.op, value)
        if leaf.property == "currency":
            self.amounts()
            upper = tuple(str(v).upper() for v in value) if isinstance(value, tuple) else value
            upper = upper.upper() if isinstance(upper, str) else upper
            return compare(self.src, "cur", TEXT, leaf.op, upper)
        return compare(self.src, self.opened(leaf.property), DYNAMIC, leaf.op, value)


def _handler(src: Source, fold: Fold, label: str, name: str, *, custom: bool) -> bool:
    """Generate the handler of one event name; False when it would do nothing."""
    plan = fold.plan
    slots = [s for s in plan.slots if _in_stream(s.stream, name, custom=custom)]
    orders = name in ORDER_TYPES and not custom
    if not slots and not orders:
        return False
    src.add(0, f"def {label}(e, s, us, key, opened):")
    src.add(1, "p = e.properties")
    body = _Handler(src, fold, plan, name)
    for slot in slots:
        _update(src, body, slot, plan)
    if orders:
        _order(src, body, plan, name)
    return True


def _in_stream(stream: Stream, name: str, *, custom: bool) -> bool:
    return name in stream.events or ANY_EVENT in stream.events or (custom and "custom" in stream.events)


def _update(src: Source, body: _Handler, slot: SlotPlan, plan: Plan) -> None:
    """The statements of one slot."""
    pinned = _pinned(plan, slot.stream)
    test = body.predicate(slot.stream, pinned)
    lines = _statements(body, slot, pinned)
    if test is None:
        src.add(1, *lines)
    else:
        src.add(1, f"if {test}:")
        src.add(2, *lines)


def _pinned(plan: Plan, stream: Stream) -> bool:
    return any(trait.pinned for trait in plan.traits.values() if trait.stream == stream)


def _statements(body: _Handler, slot: SlotPlan, pinned: bool) -> list[str]:
    i, kind = slot.index, slot.kind
    if kind == "count":
        return [f"s[{i}] += 1"]
    if kind == "top_two":
        return [f"add_top(s[{i}], us)"]
    if kind == "days":
        return [f"add_day(s[{i}], {body.day()})"]
    if kind == "day_count":
        day = body.day()
        return [f"c = s[{i}]", f"if c and c[-2] == {day}: c[-1] += 1", f"else: add_count(c, {day})"]
    if kind == "open":
        opens = 1 if body.name in slot.opens else 0
        value = body.clear(slot.key or "")
        return [f"put_capped(s, {i}, [text_id({value}) or '', us, key, {opens}], CAP)"]
    of = slot.of or ""
    if kind in ("first", "last", "day_first", "day_last"):
        return _stamped(body, i, kind, body.kept(of, pinned))
    v = body.number(of, pinned)
    if kind == "sum":
        return [f"if {v} is not None:", f"    c = s[{i}]", "    c[0] += 1", f"    c[1] += {v}"]
    if kind in ("min", "max"):
        sign = "<" if kind == "min" else ">"
        return [f"if {v} is not None and (s[{i}] is None or {v} {sign} s[{i}]): s[{i}] = {v}"]
    step = {"day_sum": "add_sum", "day_min": "add_least", "day_max": "add_greatest"}[kind]
    return [f"if {v} is not None: {step}(s[{i}], {body.day()}, {v})"]


def _stamped(body: _Handler, i: int, kind: str, value: str) -> list[str]:
    """first and last: a value with its stamp."""
    if kind.startswith("day_"):
        step = "add_earliest" if kind == "day_first" else "add_latest"
        return [f"if {value} is not None: {step}(s[{i}], {body.day()}, [us, key, {value}])"]
    sign = "<" if kind == "first" else ">"
    return [
        f"if {value} is not None:",
        f"    c = [us, key, {value}]",
        f"    if s[{i}] is None or c {sign} s[{i}]: s[{i}] = c",
    ]


def _order(src: Source, body: _Handler, plan: Plan, name: str) -> None:
    """What an order event does to the order map."""
    src.add(1, f"oid = text_id({body.clear('order_id')})")
    if name in CANCEL_TYPES:
        src.add(1, f"if oid is not None: put_order(s, {st.CANCELS}, [oid, us, key], CAP)")
        return
    body.amounts()
    src.add(1, "bits = 0")
    for bit, stream in enumerate(plan.order_streams):
        if _matches(stream, name):
            test = body.predicate(stream, _pinned(plan, stream))
            src.add(1, f"bits |= {1 << bit}" if test is None else f"if {test}: bits |= {1 << bit}")
    if name in REFUND_TYPES:
        src.add(1, f"put_order(s, {st.REFUNDS}, [key, oid, us, own, cur, amt, bits], CAP)")
        return
    extras = "".join(f", {body.kept(of, False)}" for of in plan.extras)
    entry = f"[oid or e.id, RANK(e.source, 0), us, key, own, cur, amt, bits{extras}]"
    guard = "if own is not None: " if name == "purchase.updated" else ""
    src.add(1, f"{guard}put_order(s, {st.ORDERS}, {entry}, CAP)")
