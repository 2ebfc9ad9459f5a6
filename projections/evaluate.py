"""Decisions as one generated function over a state: segments, stage, risk and the instant they may next change.

The same evaluator serves live work, sweeps, rebuilds and any past day. Decisions are functions of (state,
definitions, instant), never of earlier decisions. No I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from projections import state as st
from projections.fold import Fold
from projections.plan import TraitPlan
from projections.predicates import (
    DYNAMIC,
    HELPERS,
    INTEGER,
    MOMENT,
    SCALED,
    TIME,
    Source,
    compare,
    flips,
    moment_reader,
    tree,
)
from projections.sentences import sentence
from projections.state import DAY_US, LocalDays, State
from schemas.conditions import LifecycleLeaf, SegmentLeaf, TraitLeaf, leaves, used_traits
from schemas.definition_checks import dependencies, evaluation_order
from schemas.definitions import DEFAULT_STAGE, REFUND_TYPES, Definitions
from schemas.money import divide, scaled, to_decimal
from schemas.record import from_us

NEVER: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999: nothing later is a time
_VAR_KINDS: Final = {"integer": INTEGER, "decimal": SCALED, "time": TIME, "any": DYNAMIC}
TraitValue = int | Decimal | str | bool | datetime | None


class Decision(NamedTuple):
    """What holds of a profile at an instant.

    `segments`: bit i is `evaluator.segment_names[i]`. `reasons`: (code, points), most points first.
    `due_at_us`: no decision changes by time alone before it; None when none ever will.
    """

    segments: int
    stage: str
    risk: str
    points: int
    reasons: tuple[tuple[str, int], ...]
    due_at_us: int | None


class Evaluator:
    """A compiled evaluator. `decide(state, at_us, direct)`: `direct` holds opened direct traits by name, or None.

    An instant before the state's last event counts as that event's: a state cannot be asked about its past.
    Traits over an overflowed order map are missing here: ask `fold.overflowed` first.
    """

    decide: Callable[[State, int, Mapping[str, Any] | None], Decision]

    def __init__(self, definitions: Definitions, fold: Fold) -> None:
        self.definitions = definitions
        self.fold = fold
        self.segment_names: tuple[str, ...] = tuple(sorted(definitions.segments))
        self.stage_names = definitions.stage_names
        self.trait_names: tuple[str, ...] = tuple(sorted(definitions.computed_traits))
        self.published_names = tuple(n for n in self.trait_names if definitions.computed_traits[n].publish)
        used = used_traits(condition for _, condition in definitions.conditions())
        self.condition_traits = frozenset(used & definitions.traits.keys())
        # An attribute may have been sealed before it was declared, so any of them may have to be opened.
        self.needs_direct = self.condition_traits
        source = _generate(self, sorted(used & definitions.computed_traits.keys()))
        self.source = "\n".join(source.lines)
        space = source.run("evaluator")
        self.decide = space["decide"]
        self._raw: Callable[[State, int], tuple[Any, ...]] = space["raw_values"]
        self._raw_published: Callable[[State, int], tuple[Any, ...]] = space["raw_published"]
        self._readers = [_reader(definitions.computed_traits[n].kind) for n in self.trait_names]
        self._published_readers = [_reader(definitions.computed_traits[n].kind) for n in self.published_names]

    def names_of(self, segments: int) -> list[str]:
        """The names of a bit mask of segments, sorted."""
        return [name for i, name in enumerate(self.segment_names) if segments >> i & 1]

    def ages(self, name: str) -> bool:
        """Whether a computed trait changes by time alone."""
        return self.definitions.computed_traits[name].ages

    def values(self, state: State, at_us: int) -> dict[str, TraitValue]:
        """Every computed trait at a reader's clock: integers, Decimals of 4 places, aware times, text."""
        raw = self._raw(state, at_us)
        return {name: read(v) for name, read, v in zip(self.trait_names, self._readers, raw, strict=True)}

    def published(self, state: State, at_us: int) -> dict[str, TraitValue]:
        """The computed traits with `publish: true`."""
        raw = self._raw_published(state, at_us)
        return {name: read(v) for name, read, v in zip(self.published_names, self._published_readers, raw, strict=True)}

    def published_changes(self, before: State, after: State, at_us: int) -> list[tuple[str, TraitValue, TraitValue]]:
        """(name, value before, value after) of the published traits that differ at one clock, by name."""
        was, now = self._raw_published(before, at_us), self._raw_published(after, at_us)
        if was == now:
            return []
        rows = zip(self.published_names, self._published_readers, was, now, strict=True)
        return [(name, read(old), read(new)) for name, read, old, new in rows if old != new]

    def attributes(self, state: State) -> dict[str, Any]:
        """The clear traits; JSON types, numbers with a fraction as Decimal."""
        forms = (st.PLAIN, st.JSON_TEXT)
        return {
            entry[st.NAME]: declared(entry, None) for entry in st.shown(state[st.TRAITS]) if entry[st.FORM] in forms
        }

    def direct_names(self, state: State) -> list[str]:
        """The names of sealed traits that are set."""
        return [entry[st.NAME] for entry in st.shown(state[st.TRAITS]) if entry[st.FORM] == st.DIRECT]

    def direct_positions(self, state: State, names: frozenset[str] | None = None) -> dict[str, tuple[int, int]]:
        """Where direct traits are: name → (partition, offset) of their record; by default those conditions use."""
        wanted = self.condition_traits if names is None else names
        return {
            entry[st.NAME]: (entry[st.PARTITION], entry[st.OFFSET])
            for entry in st.shown(state[st.TRAITS])
            if entry[st.FORM] == st.DIRECT and entry[st.NAME] in wanted
        }

    @staticmethod
    def event_count(state: State) -> int:
        """How many events were folded in."""
        return int(state[st.EVENT_COUNT])

    @staticmethod
    def first_seen(state: State) -> datetime | None:
        """When the first event occurred."""
        return from_us(state[st.FIRST][0]) if state[st.FIRST] else None

    @staticmethod
    def last_seen(state: State) -> datetime | None:
        """When the last event occurred."""
        return from_us(state[st.LAST][0]) if state[st.LAST] else None

    @staticmethod
    def revenue_by_currency(state: State) -> list[tuple[str, Decimal]]:
        """Net revenue in each currency it was paid in, sorted; [] for an overflowed map."""
        sums: dict[str, int] = {}
        for currency, own, _, sign in _amounts(state):
            sums[currency] = sums.get(currency, 0) + sign * own
        return [(currency, to_decimal(sums[currency])) for currency in sorted(sums)]

    @staticmethod
    def missing_rate(state: State) -> int:
        """How many amounts have no rate into the base currency, and so are in no sum."""
        return sum(base is None for _, _, base, _ in _amounts(state))

    def sentence(self, segment: str) -> str:
        """What a segment means, in plain English."""
        return sentence(self.definitions.segments[segment].when)


def compile_evaluator(definitions: Definitions, fold: Fold, *, time_zone: str) -> Evaluator:
    """Generate the evaluator of some definitions over their fold's states. ValueError for another zone."""
    if time_zone != fold.time_zone:
        raise ValueError(f"the fold keeps days of {fold.time_zone}, not {time_zone}")
    return Evaluator(definitions, fold)


def _amounts(state: State) -> list[tuple[str, int, int | None, int]]:
    """(currency, own, base, sign) of every base and refund that counts and has an amount."""
    if state[st.ORDERS] == st.OVERFLOW:
        return []
    gone = {entry[0] for entry in state[st.CANCELS]}
    found = [(o[st.O_CURRENCY], o[st.O_OWN], o[st.O_BASE], 1) for o in state[st.ORDERS] if o[st.O_ID] not in gone]
    found += [(r[st.R_CURRENCY], r[st.R_OWN], r[st.R_BASE], -1) for r in state[st.REFUNDS] if r[st.R_ID] not in gone]
    return [amount for amount in found if amount[1] is not None]


# ---------------------------------------------------------------- what the generated code calls


def declared(entry: list[Any] | None, direct: Mapping[str, Any] | None) -> Any:
    """The value of a declared trait's entry; a direct one only where the caller opened it."""
    if entry is None or entry[st.FORM] == st.UNSET:
        return None
    if entry[st.FORM] == st.DIRECT:
        return direct.get(entry[st.NAME]) if direct else None
    return entry[st.VALUE] if entry[st.FORM] == st.PLAIN else _JSON.decode(entry[st.VALUE])


_JSON: Final = msgspec.json.Decoder(float_hook=Decimal)


def restore(value: Any) -> Any:
    """What `storable` kept: a fraction is [scaled]."""
    return to_decimal(value[0]) if type(value) is list else value


def kept_number(value: Any) -> int | None:
    """A kept value as a scaled number."""
    return value[0] if type(value) is list else scaled(value)


def _window(
    stride: int, start: Any, step: Callable[[Any, list[Any]], Any]
) -> Callable[[list[Any], int], tuple[Any, int | None]]:
    """A function (cells, first day) → (value over the cells from that day, oldest such day or None)."""

    def read(cells: list[Any], first: int) -> tuple[Any, int | None]:
        value, oldest = start, None
        i = len(cells) - stride
        while i >= 0 and cells[i] >= first:
            value, oldest = step(value, cells[i + 1 : i + stride]), cells[i]
            i -= stride
        return value, oldest

    return read


def window_count(cells: list[int], first: int) -> tuple[int, int | None]:
    """`_window` of counts, the commonest, without a call per cell."""
    if cells[0] >= first:
        return sum(cells[1::2]), cells[0]
    i = len(cells) - 2
    while i >= 0 and cells[i] >= first:
        i -= 2
    return sum(cells[i + 3 :: 2]), cells[i + 2] if i + 2 < len(cells) else None


def window_days(words: list[int], first: int) -> tuple[int, int | None]:
    """How many bits are set from a day on, and the oldest of these days."""
    count, oldest = 0, None
    for i in range(0, len(words), 2):
        begin = words[i] * st.DAYS_A_WORD
        bits = words[i + 1] >> max(0, first - begin) << max(0, first - begin)
        if bits and oldest is None:
            oldest = begin + (bits & -bits).bit_length() - 1
        count += bits.bit_count()
    return count, oldest


def open_number(entries: Any) -> int | None:
    """How many keys are open."""
    return None if entries == st.OVERFLOW else sum(entry[3] for entry in entries)


_WINDOWS: Final[dict[str, Any]] = {
    "day_count": window_count,
    "day_sum": _window(3, (0, 0), lambda v, c: (v[0] + c[0], v[1] + c[1])),
    "day_min": _window(2, None, lambda v, c: c[0] if v is None else min(v, c[0])),
    "day_max": _window(2, None, lambda v, c: c[0] if v is None else max(v, c[0])),
    "day_first": _window(4, None, lambda v, c: c if v is None else min(v, c)),
    "day_last": _window(4, None, lambda v, c: c if v is None else max(v, c)),
    "days": window_days,
}


def _reader(kind: str) -> Callable[[Any], TraitValue]:
    """From a raw value to what `values` gives."""
    if kind == "decimal":
        return lambda raw: None if raw is None else to_decimal(raw)
    if kind == "time":
        return lambda raw: None if raw is None else from_us(raw)
    return lambda raw: raw


# ---------------------------------------------------------------- generation


def _generate(evaluator: Evaluator, used: Sequence[str]) -> Source:
    days = evaluator.fold.days
    src = Source({
        **HELPERS, "declared": declared, "shown": st.shown, "restore": restore,
        "kept_number": kept_number, "divide": divide,
        "open_number": open_number, "Decision": Decision, "new": tuple.__new__, "DAYS": days.cache.get,
        "day_of": days.day,
        "start": days.start, "moment": moment_reader(days), "NONE": {},
        **{f"window_{kind}": read for kind, read in _WINDOWS.items()},
    }, days)  # fmt: skip
    plans = evaluator.fold.plan.traits
    for function, names in (("raw_values", evaluator.trait_names), ("raw_published", evaluator.published_names)):
        src.add(0, f"def {function}(s, at):")
        values = _Values(src, evaluator.fold, [plans[n] for n in names], {})
        values.emit()
        results = "".join(f"{values.vars[name]}, " for name in names)
        src.add(1, f"return ({results})")
    src.add(0, "def decide(s, at, direct=None):")
    decided = _Values(src, evaluator.fold, [plans[n] for n in used], _thresholds(evaluator.definitions, days))
    decided.emit()
    _conditions(src, evaluator, decided)
    return src


def _thresholds(defs: Definitions, days: LocalDays) -> dict[str, set[int]]:
    """days_since traits → the numbers of days at which a condition on them changes."""
    found: dict[str, set[int]] = {}
    for _, condition in defs.conditions():
        for _, leaf in leaves(condition):
            if isinstance(leaf, TraitLeaf) and leaf.trait in defs.computed_traits:
                found.setdefault(leaf.trait, set())
                if defs.computed_traits[leaf.trait].aggregate == "days_since":
                    found[leaf.trait] |= flips(leaf.op, leaf.value, INTEGER, days)
    return found


class _Values:
    """The statements that make a local of each trait, and `due`. `thresholds` is empty where nothing falls due."""

    def __init__(self, src: Source, fold: Fold, plans: Sequence[TraitPlan], thresholds: Mapping[str, set[int]]) -> None:
        self.src, self.fold, self.plans, self.thresholds = src, fold, plans, thresholds
        self.vars = {plan.name: f"t{i}" for i, plan in enumerate(plans)}
        self.inits: dict[str, str] = {}  # accumulators of the order loop
        self.base_steps: dict[tuple[int, int], dict[str, None]] = {}  # (bit, window) → statements
        self.refund_steps: dict[tuple[int, int], dict[str, None]] = {}
        self.after: list[str] = []

    def emit(self) -> None:
        add = self.src.add
        add(1, "if s[2] is not None and s[2][0] > at: at = s[2][0]", f"due = due_day = {NEVER}")
        if any(plan.spec.window_days for plan in self.plans):
            add(1, "today = DAYS(at // 900000000)", "if today is None: today = day_of(at)")
        for plan in self.plans:
            if plan.slot is not None:
                add(1, *self._slot(plan, self.vars[plan.name]))
        orders = [plan for plan in self.plans if plan.bit is not None]
        if orders:
            self._orders(orders)
        if self.thresholds:
            add(1, f"if due_day < {NEVER}:", "    d = start(due_day)", "    if d < due: due = d")

    # -- slots

    def _slot(self, plan: TraitPlan, var: str) -> list[str]:
        spec, at = plan.spec, f"s[{plan.slot}]"
        slot = self.fold.plan.slots[(plan.slot or 0) - st.BASE_SLOTS]
        if spec.window_days is not None:
            first = f"today - {spec.window_days - 1}"
            inside = [f"{var}, old = window_{slot.kind}({at}, {first})"]
            if self.thresholds:
                day = f"old + {spec.window_days}"
                inside.append(f"if old is not None and {day} < due_day: due_day = {day}")
            inside += self._finish(spec.aggregate, var, var)
            empty = _of_nothing(spec.aggregate)
            return [f"if {at}:", *("    " + line for line in inside), f"else: {var} = {empty}"]
        if spec.aggregate == "days_since":
            return self._since(plan.name, at, var)
        if spec.aggregate == "gap_days":
            return [f"c = {at}", f"{var} = (c[0] - c[1]) // {DAY_US} if len(c) == 2 else None"]
        if spec.aggregate == "distinct_days":
            return [f"{var} = sum(w.bit_count() for w in {at}[1::2])"]
        if spec.aggregate == "open_count":
            return [f"{var} = open_number({at})"]
        return self._finish(spec.aggregate, var, at)

    def _finish(self, aggregate: str, var: str, raw: str) -> list[str]:
        """From what a slot or window holds to the value."""
        if aggregate == "sum":
            return [f"{var} = {raw}[1]"]
        if aggregate == "avg":
            return [f"c = {raw}", f"{var} = divide(c[1], c[0]) if c[0] else None"]
        if aggregate in ("first", "last"):
            return [f"c = {raw}", f"{var} = None if c is None else restore(c[2])"]
        return [f"{var} = {raw}"] if var != raw else []

    def _since(self, name: str, last: str, var: str) -> list[str]:
        """days_since, and the next number of days a condition looks at."""
        lines = [f"c = {last}", f"{var} = None if c is None else (at - c) // {DAY_US}"]
        marks = tuple(sorted(k for k in self.thresholds.get(name, ()) if k > 0))
        if marks:
            lines += [
                "if c is not None:",
                f"    for k in {marks}:",
                f"        d = c + k * {DAY_US}",
                "        if d > at:",
                "            if d < due: due = d",
                "            break",
            ]
        return lines

    # -- the order map: one pass over bases, one over refunds

    def _orders(self, plans: Sequence[TraitPlan]) -> None:
        for plan in plans:
            self._order_trait(plan, self.vars[plan.name])
        add = self.src.add
        windows = sorted({w for _, w in (*self.base_steps, *self.refund_steps) if w})
        add(1, f"if not s[{st.ORDERS}] and not s[{st.REFUNDS}]:")
        add(2, *(f"{self.vars[plan.name]} = {_of_nothing(plan.spec.aggregate)}" for plan in plans))
        add(1, f"elif s[{st.ORDERS}] == {st.OVERFLOW}:")
        add(2, *(f"{self.vars[plan.name]} = None" for plan in plans))
        add(1, "else:")
        add(2, *(f"{var} = {empty}" for var, empty in self.inits.items()))
        add(2, f"gone = {{c[0] for c in s[{st.CANCELS}]}} if s[{st.CANCELS}] else NONE")
        add(2, *(f"f{w} = start(today - {w - 1})" for w in windows))
        self._loop(st.ORDERS, st.O_ID, st.O_US, st.O_BITS, self.base_steps)
        if self.refund_steps:
            self._loop(st.REFUNDS, st.R_ID, st.R_US, st.R_BITS, self.refund_steps)
        add(2, *self.after)

    def _loop(
        self, slot: int, id_at: int, us_at: int, bits_at: int, steps: Mapping[tuple[int, int], dict[str, None]]
    ) -> None:
        add = self.src.add
        add(2, f"for o in s[{slot}]:")
        add(3, f"if gone and o[{id_at}] in gone: continue", f"us = o[{us_at}]", f"b = o[{bits_at}]")
        for bit in sorted({bit for bit, _ in steps}):
            add(3, f"if b & {1 << bit}:")
            for window in sorted(w for b, w in steps if b == bit):
                if window:
                    add(4, f"if us >= f{window}:")
                add(5 if window else 4, *steps[bit, window])

    def _order_trait(self, plan: TraitPlan, var: str) -> None:
        spec, bit, window = plan.spec, plan.bit or 0, plan.spec.window_days or 0
        tag = f"{bit}_{window}"
        steps = self.base_steps.setdefault((bit, window), {})
        if window and self.thresholds:
            self._expiry(tag, window, steps)
        if spec.aggregate in ("days_since", "gap_days", "distinct_days", "count"):
            self._order_times(plan, var, tag, steps)
        elif spec.of == "occurred_at":
            better = "<" if spec.aggregate in ("min", "first") else ">"
            best = self._init(f"{'e' if better == '<' else 'l'}{tag}", "None")
            steps[f"if {best} is None or us {better} {best}: {best} = us"] = None
            self.after.append(f"{var} = {best}")
        elif spec.aggregate in ("first", "last"):
            self._order_stamped(plan, var, tag, steps)
        else:
            self._order_number(plan, var, tag, steps)

    def _init(self, name: str, empty: str) -> str:
        self.inits[name] = empty
        return name

    def _expiry(self, tag: str, window: int, steps: dict[str, None]) -> None:
        """The oldest stamp inside a window: when its day leaves, values may change."""
        old = f"o{tag}"
        if old not in self.inits:
            self._init(old, str(NEVER))
            self.after.append(
                f"if {old} < {NEVER} and day_of({old}) + {window} < due_day: due_day = day_of({old}) + {window}"
            )
        steps[f"if us < {old}: {old} = us"] = None

    def _order_times(self, plan: TraitPlan, var: str, tag: str, steps: dict[str, None]) -> None:
        """Traits that look at an order's stamp alone."""
        aggregate = plan.spec.aggregate
        if aggregate == "count":
            name = self._init(f"n{tag}", "0")
            steps[f"{name} += 1"] = None
            self.after.append(f"{var} = {name}")
        elif aggregate == "days_since":
            name = self._init(f"l{tag}", "None")
            steps[f"if {name} is None or us > {name}: {name} = us"] = None
            self.after += self._since(plan.name, name, var)
        elif aggregate == "gap_days":
            one, two = self._init(f"x{tag}", "None"), self._init(f"y{tag}", "None")
            steps[f"if {one} is None or us > {one}: {one}, {two} = us, {one}"] = None
            steps[f"elif {two} is None or us > {two}: {two} = us"] = None
            self.after.append(f"{var} = None if {two} is None else ({one} - {two}) // {DAY_US}")
        else:
            name = self._init(f"d{tag}", "set()")
            steps[f"{name}.add(day_of(us))"] = None
            self.after.append(f"{var} = len({name})")

    def _value(self, plan: TraitPlan, number: bool) -> tuple[str, str]:
        """The expression of an order's `of`, and a tag for it."""
        if plan.spec.of == "revenue":
            return (f"o[{st.O_OWN}]", "own") if plan.pinned else (f"o[{st.O_BASE}]", "amt")
        j = self.fold.plan.extras.index(plan.spec.of or "")
        kept = f"o[{st.O_EXTRA + j}]"
        return (f"kept_number({kept})" if number else kept), f"e{j}"

    def _order_number(self, plan: TraitPlan, var: str, tag: str, steps: dict[str, None]) -> None:
        """sum, avg, min and max of a value."""
        value, what = self._value(plan, number=True)
        tag = f"{tag}_{what}"
        a = f"a{what}"
        steps[f"{a} = {value}"] = None
        if plan.spec.aggregate in ("min", "max"):
            better = "<" if plan.spec.aggregate == "min" else ">"
            best = self._init(f"{'i' if better == '<' else 'j'}{tag}", "None")
            steps[f"if {a} is not None and ({best} is None or {a} {better} {best}): {best} = {a}"] = None
            self.after.append(f"{var} = {best}")
            return
        count, total = self._init(f"m{tag}", "0"), self._init(f"q{tag}", "0")
        steps[f"if {a} is not None: {count} += 1; {total} += {a}"] = None
        if what in ("own", "amt") and not set(plan.spec.events).isdisjoint(REFUND_TYPES):
            refunds = self.refund_steps.setdefault((plan.bit or 0, plan.spec.window_days or 0), {})
            if plan.spec.window_days and self.thresholds:
                self._expiry(tag.rpartition("_")[0], plan.spec.window_days, refunds)
            amount = st.R_OWN if plan.pinned else st.R_BASE
            refunds[f"if o[{amount}] is not None: {total} -= o[{amount}]"] = None
        if plan.spec.aggregate == "sum":
            self.after.append(f"{var} = {total}")
        else:
            self.after.append(f"{var} = divide({total}, {count}) if {count} else None")

    def _order_stamped(self, plan: TraitPlan, var: str, tag: str, steps: dict[str, None]) -> None:
        """first and last of a value, by stamp."""
        value, what = self._value(plan, number=False)
        better = "<" if plan.spec.aggregate == "first" else ">"
        best = self._init(f"{'g' if better == '<' else 'h'}{tag}_{what}", "None")
        stamped = f"[us, o[{st.O_KEY}], {value}]"
        steps[f"if {value} is not None and ({best} is None or {stamped} {better} {best}): {best} = {stamped}"] = None
        self.after.append(f"{var} = None if {best} is None else restore({best}[2])")


def _of_nothing(aggregate: str) -> int | None:
    """The value of an aggregate over no events."""
    return 0 if aggregate in ("count", "sum", "distinct_days") else None


def _conditions(src: Source, evaluator: Evaluator, values: _Values) -> None:
    """Segments, stage and risk in order of need, then the decision."""
    defs, add = evaluator.definitions, src.add
    if evaluator.condition_traits:
        add(1, "tr = {x[0]: x for x in shown(s[3])} if s[3] else NONE")
    known: dict[str, tuple[str, str]] = {}
    for name, var in values.vars.items():
        known[name] = (var, _VAR_KINDS[defs.computed_traits[name].kind])
    for i, name in enumerate(sorted(evaluator.condition_traits)):
        add(1, f"d{i} = declared(tr.get({src.constant(name)}), direct)")
        known[name] = (f"d{i}", MOMENT if defs.traits[name].type == "time" else DYNAMIC)

    def leaf(node: Any) -> str:
        if isinstance(node, SegmentLeaf):
            return f"(mask & {1 << evaluator.segment_names.index(node.segment)})"
        if isinstance(node, LifecycleLeaf):
            return f"(stage == {src.constant(node.lifecycle)})"
        var, kind = known[node.trait]
        return compare(src, var, kind, node.op, node.value)

    add(1, "mask = 0")
    for node in evaluation_order(dependencies(defs))[0]:
        if node == "lifecycle":
            _stage(src, defs, leaf)
        else:
            name = node.removeprefix("segments.")
            test = tree(defs.segments[name].when, leaf)
            add(1, f"if {test}: mask |= {1 << evaluator.segment_names.index(name)}")
    _risk(src, defs, leaf)
    add(1, f"return new(Decision, (mask, stage, risk, points, reasons, None if due == {NEVER} else due))")


def _stage(src: Source, defs: Definitions, leaf: Callable[[Any], str]) -> None:
    word = "if"
    for stage in defs.lifecycle.stages if defs.lifecycle else ():
        src.add(1, f"{word} {tree(stage.when, leaf)}: stage = {src.constant(stage.name)}")
        word = "elif"
    default = f"stage = {DEFAULT_STAGE!r}"
    src.add(1, default if word == "if" else f"else: {default}")


def _risk(src: Source, defs: Definitions, leaf: Callable[[Any], str]) -> None:
    """Rules in the order of their reasons: most points first, then code."""
    if defs.risk is None or not defs.risk.rules:
        src.add(1, "points = 0", "reasons = ()", "risk = 'low'")
        return
    src.add(1, "points = 0", "reasons = []")
    for rule in sorted(defs.risk.rules, key=lambda r: (-r.points, r.code)):
        reason = src.constant((rule.code, rule.points))
        src.add(1, f"if {tree(rule.when, leaf)}: points += {rule.points}; reasons.append({reason})")
    levels = defs.risk.levels
    src.add(1, "reasons = tuple(reasons)")
    src.add(1, f"risk = 'high' if points >= {levels.high} else 'medium' if points >= {levels.medium} else 'low'")
