"""Computed traits as generated code: their values over a state, when these change by time alone, and what it calls.

No I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from projections.conditions.predicates import Source
from projections.fold import state as st
from projections.fold.calls import kept_number
from projections.fold.fold import Fold
from projections.fold.layout import TraitPlan
from projections.fold.state import DAY_US
from projections.orders.orders import counted
from schemas.definitions import REFUND_TYPES
from schemas.money import divide, to_decimal

NEVER: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999: nothing later is a time


class TraitCode:
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
        return self._lifetime(plan.name, spec.aggregate, at, var)

    def _lifetime(self, name: str, aggregate: str, at: str, var: str, *, stamped: bool = True) -> list[str]:
        """The value of a slot that has no window."""
        if aggregate == "days_since":
            return self._since(name, at, var)
        if aggregate == "gap_days":
            return [f"c = {at}", f"{var} = (c[0] - c[1]) // {DAY_US} if len(c) == 2 else None"]
        if aggregate == "distinct_days":
            return [f"{var} = sum(w.bit_count() for w in {at}[1::2])"]
        if aggregate == "open_count":
            return [f"{var} = open_number({at})"]
        return self._finish(aggregate, var, at, stamped=stamped)

    def _finish(self, aggregate: str, var: str, raw: str, *, stamped: bool = True) -> list[str]:
        """From what a slot or window holds to the value. `stamped`: first and last hold a stamp beside it."""
        if aggregate == "sum":
            return [f"{var} = {raw}[1]"]
        if aggregate == "avg":
            return [f"c = {raw}", f"{var} = divide(c[1], c[0]) if c[0] else None"]
        if aggregate in ("first", "last") and stamped:
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
        add(1, f"elif s[{st.REFUNDS}] == {st.OVERFLOW}:")
        add(2, f"m = s[{st.ORDERS}]")
        for plan in plans:
            add(2, *self._summed(plan, self.vars[plan.name]))
        add(1, "else:")
        add(2, *(f"{var} = {empty}" for var, empty in self.inits.items()))
        add(2, "bases, refunds = counted(s)")
        add(2, *(f"f{w} = start(today - {w - 1})" for w in windows))
        self._loop("bases", st.O_US, st.O_BITS, self.base_steps)
        if self.refund_steps:
            self._loop("refunds", st.R_US, st.R_BITS, self.refund_steps)
        add(2, *self.after)

    def _summed(self, plan: TraitPlan, var: str) -> list[str]:
        """The value from a summary (`orders.summary`): the same as from the orders it sums up."""
        spec, places = plan.spec, self.fold.summaries.places[plan.name]
        at = f"m[{places.cell.index}]"
        if spec.window_days is None:
            return self._lifetime(plan.name, spec.aggregate, at, var, stamped=spec.of != "occurred_at")
        first = f"today - {spec.window_days - 1}"
        lines = [f"if {at}:", f"    {var}, old = window_{places.cell.kind}({at}, {first})"]
        finish = self._finish(spec.aggregate, var, var, stamped=spec.of != "occurred_at")
        lines += [*(f"    {line}" for line in finish), f"else: {var} = {_of_nothing(spec.aggregate)}"]
        for cell in places.expiry if self.thresholds else ():
            day = f"old + {spec.window_days}"
            lines += [
                f"if m[{cell.index}]:",
                f"    _, old = window_{cell.kind}(m[{cell.index}], {first})",
                f"    if old is not None and {day} < due_day: due_day = {day}",
            ]
        return lines

    def _loop(self, entries: str, us_at: int, bits_at: int, steps: Mapping[tuple[int, int], dict[str, None]]) -> None:
        add = self.src.add
        add(2, f"for o in {entries}:")
        add(3, f"us = o[{us_at}]", f"b = o[{bits_at}]")
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


# ---------------------------------------------------------------- what the generated code calls


def restore(value: Any) -> Any:
    """What `storable` kept: a fraction is [scaled]."""
    return to_decimal(value[0]) if type(value) is list else value


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
    """How many keys are open; a summary has the number itself."""
    if entries == st.OVERFLOW:
        return None
    return sum(each if type(each) is int else each[3] for each in entries)


_WINDOWS: Final[dict[str, Any]] = {
    "day_count": window_count,
    "day_sum": _window(3, (0, 0), lambda v, c: (v[0] + c[0], v[1] + c[1])),
    "day_min": _window(2, None, lambda v, c: c[0] if v is None else min(v, c[0])),
    "day_max": _window(2, None, lambda v, c: c[0] if v is None else max(v, c[0])),
    "day_first": _window(4, None, lambda v, c: c if v is None else min(v, c)),
    "day_last": _window(4, None, lambda v, c: c if v is None else max(v, c)),
    "days": window_days,
}
CALLS: Final[Mapping[str, Any]] = {
    "counted": counted,
    "restore": restore,
    "kept_number": kept_number,
    "open_number": open_number,
    "divide": divide,
    **{f"window_{kind}": read for kind, read in _WINDOWS.items()},
}
"""By the names that the code of `TraitCode` uses."""
