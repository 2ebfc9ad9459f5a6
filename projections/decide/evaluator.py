"""Generates one function that decides a state: segments, stage, risk and when they may next change.

Live processing, sweeps, rebuilds and questions about past days use the same evaluator. Decisions depend only on
(state, definitions, instant), never on earlier decisions. No I/O, no clock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from projections.aggregates.registry import aggregate_of, value_kind
from projections.conditions.predicates import (
    DYNAMIC,
    HELPERS,
    INTEGER,
    MOMENT,
    SCALED,
    TIME,
    flips,
    moment_reader,
    tree,
)
from projections.conditions.registry import of_customer
from projections.conditions.words import sentence
from projections.days import NEVER, LocalDays
from projections.decide.trait_code import TraitCode
from projections.definitions.checks import dependencies, evaluation_order
from projections.fold import state as st
from projections.fold.fold import Fold
from projections.fold.state import State
from projections.generated import Source
from projections.orders.counting import BASE, CURRENCY, OWN, UNREAD
from projections.orders.orders import counted
from projections.slots.keyed import OVERFLOW
from schemas.conditions import TraitLeaf, leaves, used_traits
from schemas.definitions import DEFAULT_STAGE, Definitions
from schemas.money import to_decimal
from schemas.record import from_us

_VAR_KINDS: Final = {"integer": INTEGER, "decimal": SCALED, "time": TIME, "any": DYNAMIC}
TraitValue = int | Decimal | str | bool | datetime | None


class Decision(NamedTuple):
    """The decision about a profile at an instant.

    `segments`: bit i is `evaluator.segment_names[i]`. `reasons`: (code, points), most points first.
    `due_at_us`: before it, no decision changes with time alone; None if none ever will.
    """

    segments: int
    stage: str
    risk: str
    points: int
    reasons: tuple[tuple[str, int], ...]
    due_at_us: int | None


class Evaluator:
    """A compiled evaluator. `decide(state, at_us, direct)`: `personal` holds opened direct traits by name, or None.

    An instant before the state's last event is moved up to it: a state cannot be asked about its past.
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
        # An attribute may have been sealed before it was declared, so any attribute may need opening.
        self.needs_personal = self.condition_traits
        source = _generate(self, sorted(used & definitions.computed_traits.keys()))
        self.source = "\n".join(source.lines)
        space = source.run("evaluator")
        self.decide = space["decide"]
        self._raw: Callable[[State, int], tuple[Any, ...]] = space["raw_values"]
        self._raw_published: Callable[[State, int], tuple[Any, ...]] = space["raw_published"]
        self._readers = [_reader(value_kind(definitions.computed_traits[n])) for n in self.trait_names]
        self._published_readers = [_reader(value_kind(definitions.computed_traits[n])) for n in self.published_names]

    def names_of(self, segments: int) -> list[str]:
        """The names of the segments in a bit mask, sorted."""
        return [name for i, name in enumerate(self.segment_names) if segments >> i & 1]

    def ages(self, name: str) -> bool:
        """Whether a computed trait changes with time alone."""
        spec = self.definitions.computed_traits[name]
        return spec.window_days is not None or aggregate_of(spec).ages

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

    def personal_names(self, state: State) -> list[str]:
        """The names of the sealed traits that are set."""
        return [entry[st.NAME] for entry in st.shown(state[st.TRAITS]) if entry[st.FORM] == st.DIRECT]

    def personal_positions(self, state: State, names: frozenset[str] | None = None) -> dict[str, tuple[int, int]]:
        """Where direct traits are: name → (partition, offset) of the record; by default those that conditions use."""
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

    def revenue_by_currency(self, state: State) -> list[tuple[str, Decimal]]:
        """Net revenue in each currency it was paid in, sorted; [] for an overflowed map."""
        if self.fold.summed_up(state):
            sums, _, _ = self.fold.summaries.amounts(state[st.ORDERS])
            return [(sums[i], to_decimal(sums[i + 1])) for i in range(0, len(sums), 2)]
        found: dict[str, int] = {}
        for currency, own, _, sign in _amounts(state):
            found[currency] = found.get(currency, 0) + sign * own
        return [(currency, to_decimal(found[currency])) for currency in sorted(found)]

    def missing_rate(self, state: State) -> int:
        """How many amounts are in no sum because they have no rate into the base currency."""
        if self.fold.summed_up(state):
            return self.fold.summaries.amounts(state[st.ORDERS])[1]
        return sum(base is None for _, _, base, _ in _amounts(state))

    def unreadable_amounts(self, state: State) -> int:
        """How many orders and refunds have an amount that could not be read, and so count for less than they are."""
        if self.fold.summed_up(state):
            return self.fold.summaries.amounts(state[st.ORDERS])[2]
        if state[st.ORDERS] == OVERFLOW:
            return 0
        return sum(entry[UNREAD] for entries in counted(state) for entry in entries)

    def sentence(self, segment: str) -> str:
        """What a segment means, in plain English."""
        return sentence(self.definitions.segments[segment].when)


def compile_evaluator(definitions: Definitions, fold: Fold, *, time_zone: str) -> Evaluator:
    """Generate the evaluator of some definitions over their fold's states. ValueError for another zone."""
    if time_zone != fold.time_zone:
        raise ValueError(f"the fold keeps days of {fold.time_zone}, not {time_zone}")
    return Evaluator(definitions, fold)


def _amounts(state: State) -> list[tuple[str, int, int | None, int]]:
    """(currency, own, base, sign) of every counting base and refund with an amount."""
    if state[st.ORDERS] == OVERFLOW:
        return []
    bases, refunds = counted(state)
    found = [(o[CURRENCY], o[OWN], o[BASE], sign) for sign, entries in ((1, bases), (-1, refunds)) for o in entries]
    return [amount for amount in found if amount[1] is not None]


# ---------------------------------------------------------------- what the generated code calls


def declared(entry: list[Any] | None, personal: Mapping[str, Any] | None) -> Any:
    """The value of a declared trait's entry; for a direct trait only if the caller opened it."""
    if entry is None or entry[st.FORM] == st.UNSET:
        return None
    if entry[st.FORM] == st.DIRECT:
        return personal.get(entry[st.NAME]) if personal else None
    return entry[st.VALUE] if entry[st.FORM] == st.PLAIN else _JSON.decode(entry[st.VALUE])


_JSON: Final = msgspec.json.Decoder(float_hook=Decimal)


def _reader(kind: str) -> Callable[[Any], TraitValue]:
    """A raw value in the form that `values` returns."""
    if kind == "decimal":
        return lambda raw: None if raw is None else to_decimal(raw)
    if kind == "time":
        return lambda raw: None if raw is None else from_us(raw)
    return lambda raw: raw


def _generate(evaluator: Evaluator, used: Sequence[str]) -> Source:
    days = evaluator.fold.days
    src = Source({
        **HELPERS, "declared": declared, "shown": st.shown, "Decision": Decision, "new": tuple.__new__,
        "DAYS": days.cache.get, "day_of": days.day, "start": days.start, "moment": moment_reader(days), "NONE": {},
    }, days)  # fmt: skip
    places = evaluator.fold.layout.traits
    for function, names in (("raw_values", evaluator.trait_names), ("raw_published", evaluator.published_names)):
        src.add(0, f"def {function}(s, at):")
        values = TraitCode(src, evaluator.fold, [places[n] for n in names], {})
        values.emit()
        results = "".join(f"{values.vars[name]}, " for name in names)
        src.add(1, f"return ({results})")
    src.add(0, "def decide(s, at, direct=None):")
    decided = TraitCode(src, evaluator.fold, [places[n] for n in used], _thresholds(evaluator.definitions, days))
    decided.emit()
    _conditions(src, evaluator, decided)
    return src


def _thresholds(defs: Definitions, days: LocalDays) -> dict[str, set[int]]:
    """Traits in conditions → for those that age, the numbers of full days at which a condition changes."""
    found: dict[str, set[int]] = {}
    for _, condition in defs.conditions():
        for _, leaf in leaves(condition):
            if isinstance(leaf, TraitLeaf) and leaf.trait in defs.computed_traits:
                found.setdefault(leaf.trait, set())
                if aggregate_of(defs.computed_traits[leaf.trait]).ages:
                    found[leaf.trait] |= flips(leaf.op, leaf.value, INTEGER, days)
    return found


class _Decision:
    """The code of a decision (`conditions.base.DecisionCode`): the locals of traits, and the bits of segments."""

    def __init__(self, src: Source, evaluator: Evaluator, values: TraitCode) -> None:
        defs = evaluator.definitions
        self.src = src
        self._bits = {name: 1 << i for i, name in enumerate(evaluator.segment_names)}
        self._traits = {
            name: (var, _VAR_KINDS[value_kind(defs.computed_traits[name])]) for name, var in values.vars.items()
        }
        if evaluator.condition_traits:
            src.add(1, "tr = {x[0]: x for x in shown(s[3])} if s[3] else NONE")
        for i, name in enumerate(sorted(evaluator.condition_traits)):
            src.add(1, f"d{i} = declared(tr.get({src.constant(name)}), direct)")
            self._traits[name] = (f"d{i}", MOMENT if defs.traits[name].type == "time" else DYNAMIC)

    def trait(self, name: str) -> tuple[str, str]:
        return self._traits[name]

    def segment(self, name: str) -> int:
        return self._bits[name]

    def leaf(self, node: Any) -> str:
        """The expression of a leaf."""
        kind = of_customer(node)
        assert kind is not None, "`check` refuses a condition on an event here"
        return kind.test(node, self)


def _conditions(src: Source, evaluator: Evaluator, values: TraitCode) -> None:
    """Segments, stage and risk in order of need, then the decision."""
    defs, add = evaluator.definitions, src.add
    code = _Decision(src, evaluator, values)
    add(1, "mask = 0")
    for node in evaluation_order(dependencies(defs))[0]:
        if node == "lifecycle":
            _stage(src, defs, code.leaf)
        else:
            name = node.removeprefix("segments.")
            add(1, f"if {tree(defs.segments[name].when, code.leaf)}: mask |= {code.segment(name)}")
    _risk(src, defs, code.leaf)
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
