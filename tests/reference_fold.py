"""A slow, obvious version of the fold and the evaluator: every trait is recomputed from the list of events.

Shares nothing but the definitions' models with the product: no state, no windows, no generated code.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from projections.aggregates.registry import value_kind
from schemas.conditions import All, AnyOf, LifecycleLeaf, Not, PropertyLeaf, SegmentLeaf, TraitLeaf
from schemas.definitions import ComputedTrait, Definitions
from tests.strategies import Event

SALES = {"purchase.completed": "purchase.refunded", "pos.purchase": "pos.return"}
BASES = {*SALES, "purchase.updated"}
REFUNDS = {"purchase.refunded", "pos.return"}
ORDERS = BASES | REFUNDS | {"purchase.cancelled"}
Stamp = tuple[datetime, datetime, int, bytes]  # (occurred at, received at, place in the request, event key)


def four(value: Fraction | Decimal) -> Decimal:
    """Rounded to 4 places, half to even; exact arithmetic."""
    scaled = Fraction(value) * 10_000
    return Decimal(round(scaled)).scaleb(-4)


def amount(value: Any) -> Decimal | None:
    """A number or decimal text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and "_" in value:
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= 10**14:
        return None
    return number.quantize(Decimal("0.0001"), ROUND_HALF_EVEN)


READ = {"€5.00": Decimal(5), "7,25": Decimal("7.25"), "1.234,50": Decimal("1234.5"), "(2.00)": Decimal(-2)}
"""Amounts as people write them, with what they are."""
IN_EUROS = {"€5.00"}
MONEY = ("revenue", "total", "value", "price", "amount", "discount")


def cash(value: Any) -> Decimal | None:
    """An amount under a name that holds money."""
    return READ.get(value) if isinstance(value, str) and value in READ else amount(value)


def readable(value: Any) -> bool:
    return value is None or cash(value) is not None or (isinstance(value, str) and not value.strip())


def lines_of(properties: dict[str, Any]) -> list[dict[str, Any]]:
    lines = properties.get("products")
    return [x for x in lines if isinstance(x, dict)] if isinstance(lines, list) else []


def line_of(line: dict[str, Any]) -> tuple[Fraction | None, bool]:
    """What a line comes to, and whether something in it cannot be read."""
    given, price, quantity = (cash(line.get(name)) for name in ("amount", "price", "quantity"))
    if given is not None:
        return Fraction(given), False
    if price is None:
        return None, not (readable(line.get("amount")) and readable(line.get("price")))
    if quantity is None and line.get("quantity") not in (None, ""):
        return None, True
    return Fraction(price) * (1 if quantity is None else Fraction(quantity)), False


def stated(event: Event) -> list[Any]:
    """The values that may say what an event is worth; `value` only of an order."""
    names = ("revenue", "total", "value") if event["type"] in ORDERS else ("revenue", "total")
    return [event["properties"].get(name) for name in names]


def worth(event: Event) -> tuple[Decimal | None, bool]:
    """(the amount of an event, whether it has one that cannot be read)"""
    given, properties = stated(event), event["properties"]
    found = [cash(value) for value in given if cash(value) is not None]
    if found:
        return found[0], False
    lines = [line_of(line) for line in lines_of(properties)]
    known = [value for value, _ in lines if value is not None]
    bad = any(unread for _, unread in lines)
    if known:
        return four(sum(known, Fraction(0))), bad
    return None, bad or not all(readable(value) for value in given)


def revenue(event: Event) -> Decimal | None:
    return worth(event)[0]


def order_id(value: Any) -> str | None:
    if isinstance(value, str):
        text = value.strip().removesuffix(".0")
        return None if text in ("", "null", "0") else text
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def key_of(value: Any) -> str | None:
    """The key of a complaint."""
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


class Reference:
    """Results at one instant, over all given events."""

    def __init__(self, defs: Definitions, events: Iterable[Event], at: datetime, zone: str, currency: str) -> None:
        self.defs, self.events, self.base = defs, list(events), currency
        self.zone = ZoneInfo(zone)
        newest = max((e["occurred_at"] for e in self.events if not visits_of_a_crawler(e)), default=at)
        self.at = max(at, newest)
        self.today = self.local(self.at)

    def local(self, at: datetime) -> date:
        return at.astimezone(self.zone).date()

    def currency(self, event: Event) -> str:
        return self.named_currency(event) or self.base

    def named_currency(self, event: Event) -> str | None:
        """The currency an event names, by its property or by its amount's text."""
        value = event["properties"].get("currency")
        if isinstance(value, str):
            return value.upper()
        given = [each for each in stated(event) if cash(each) is not None][:1]
        if not given:
            lines = [line for line in lines_of(event["properties"]) if line_of(line)[0] is not None]
            given = [line["amount"] if cash(line.get("amount")) is not None else line["price"] for line in lines]
        return "EUR" if any(isinstance(each, str) and each in IN_EUROS for each in given) else None

    def money(self, event: Event, pinned: bool) -> Decimal | None:
        """Revenue in the base currency, or unconverted for a trait pinned to one currency."""
        if "own" in event:  # of an order or refund that counts
            own: Decimal | None = event["own"]
            based: Decimal | None = event["based"]
            return own if pinned else based
        own = revenue(event)
        if own is None:
            return None
        if event["type"] in REFUNDS:
            own = abs(own)
        return own if pinned else self.in_base(own, self.currency(event), event["occurred_at"])

    def in_base(self, own: Decimal, currency: str, at: datetime) -> Decimal | None:
        if currency == self.base:
            return own
        day = self.local(at).isoformat()
        rates = [r for r in self.defs.rates if r.currency == currency and r.date <= day]
        return four(Fraction(own) * Fraction(max(rates, key=lambda r: r.date).rate)) if rates else None

    def stamp(self, event: Event) -> Stamp:
        at: datetime = event["occurred_at"]
        return at, event.get("received_at") or at, int(event.get("n", 0)), UUID(event["id"]).bytes

    def orders(self) -> tuple[list[Event], list[Event]]:
        """The orders and refunds that count, as events: with the instant, amounts and currency at which they do.

        `said`: the event itself, whose properties conditions look at.
        """
        states: dict[str, list[Event]] = {}
        completions: dict[str, list[Event]] = {}
        cancels: dict[str, list[Event]] = {}
        backs: list[Event] = []
        for event in self.events:
            own = revenue(event)
            given = order_id(event["properties"].get("order_id"))
            name = given or event["id"]
            if event["type"] == "purchase.cancelled" and given:
                cancels.setdefault(given, []).append(event)
            elif event["type"] == "purchase.updated" and given and own is not None and own >= 0:
                states.setdefault(name, []).append(event)
            elif event["type"] in SALES and own is not None and own < 0:
                backs.append(event | {"type": SALES[event["type"]]})
            elif event["type"] in SALES and (own != 0 or lines_of(event["properties"])):
                states.setdefault(name, []).append(event)
                completions.setdefault(name, []).append(event)
            elif event["type"] in REFUNDS:
                backs.append(event)
        orders, gone = {}, set(cancels)
        for name, completed in completions.items():
            ends = max([self.stamp(e) for e in cancels.get(name, [])], default=None)
            if ends is None or max(map(self.stamp, completed)) > ends:
                gone.discard(name)
                orders[name] = self.order(states[name], completed)
        return list(orders.values()), self.refunds(orders, gone, backs)

    def order(self, states: list[Event], completed: list[Event]) -> Event:
        known = [e for e in states if revenue(e) is not None] or states
        event = max(known, key=self.rank)
        own, currency = revenue(event), self.currency(event)
        based = None if own is None else self.in_base(own, currency, event["occurred_at"])
        first = min(e["occurred_at"] for e in completed)
        unread = worth(event)[1]
        return event | {
            "said": event, "own": own, "based": based, "counts_in": currency, "occurred_at": first, "unread": unread,
        }  # fmt: skip

    def refunds(self, orders: dict[str, Event], gone: set[str], backs: list[Event]) -> list[Event]:
        best: dict[Any, Event] = {}
        for event in backs:
            refund_id, of = event["properties"].get("refund_id"), order_id(event["properties"].get("order_id"))
            key = (of, refund_id) if refund_id else event["id"]
            if key not in best or self.rank(event) > self.rank(best[key]):
                best[key] = event
        rest = {name: (order["own"], order["based"]) for name, order in orders.items()}
        found = []
        for event in sorted(best.values(), key=self.stamp):
            name = order_id(event["properties"].get("order_id"))
            if name in gone:
                continue
            own, bad = worth(event)
            own = None if own is None else abs(own)
            bad = bad or (own is None and bool(lines_of(event["properties"])))
            currency = self.currency(event)
            based = None if own is None else self.in_base(own, currency, event["occurred_at"])
            if name in orders:
                order = orders[name]
                if self.named_currency(event) is None:
                    currency, based = order["counts_in"], None
                if order["own"] is None or bad:
                    own, currency, based = None, order["counts_in"], None
                else:
                    own, currency, based, rest[name] = self.back(order, rest[name], own, currency, based)
            found.append(event | {"said": event, "own": own, "based": based, "counts_in": currency, "unread": bad})
        return found

    def back(
        self, order: Event, rest: tuple[Decimal, Decimal | None], own: Decimal | None, currency: str,
        based: Decimal | None,
    ) -> tuple[Decimal | None, str, Decimal | None, tuple[Decimal, Decimal | None]]:  # fmt: skip
        """What a refund takes from what is left of its order."""
        left, left_based = rest
        whole, whole_based = order["own"], order["based"]
        if own is None or currency == order["counts_in"]:
            took = left if own is None else min(own, left)
            if whole_based is None or left_based is None:
                return took, order["counts_in"], None, (left - took, None)
            part = left_based
            if took != left:
                part = min(four(Fraction(took) * Fraction(whole_based) / Fraction(whole)), left_based)
            return took, order["counts_in"], part, (left - took, left_based - part)
        if based is None or whole_based is None or left_based is None:
            return own, currency, None, rest
        part = min(based, left_based)
        took = left
        if part != left_based:
            took = min(four(Fraction(part) * Fraction(whole) / Fraction(whole_based)), left)
        return took, order["counts_in"], part, (left - took, left_based - part)

    def unreadable(self) -> int:
        orders, refunds = self.orders()
        return sum(bool(each["unread"]) for each in (*orders, *refunds))

    def rank(self, event: Event) -> tuple[int, datetime, datetime, int, bytes]:
        source = self.defs.sources.get(event["source"])
        return (source.rank if source else 0, *self.stamp(event))

    def passes(self, node: Any, event: Event, pinned: bool) -> bool:
        if node is None:
            return True
        if isinstance(node, PropertyLeaf):
            pin = pinned and node.property == "currency" and node.op == "eq"
            if pin and event["type"] in REFUNDS and "counts_in" in event:
                return bool(event["counts_in"] == str(node.value).upper())
            event = event.get("said", event)
            value = event["properties"].get(node.property)
            if node.property == "revenue":
                value = self.money(event, pinned)
            if node.property == "currency":
                value = self.currency(event)
            return holds(node.op, value, node.value)
        return logic(node, lambda item: self.passes(item, event, pinned))

    def in_window(self, spec: ComputedTrait, event: Event) -> bool:
        if spec.window_days is None:
            return True
        return self.today - timedelta(days=spec.window_days - 1) <= self.local(event["occurred_at"])

    def value(self, name: str) -> Any:
        spec = self.defs.computed_traits[name]
        where: Any = spec.where
        tops = where.all if isinstance(where, All) else [where]
        pinned = any(
            isinstance(leaf, PropertyLeaf) and leaf.property == "currency" and leaf.op == "eq" for leaf in tops
        )
        if spec.aggregate == "open_count":
            return self.open_count(spec)
        by_order = set(spec.events) <= ORDERS and bool(set(spec.events) & BASES)
        bases, refunds = self.orders() if by_order else (self.events, [])

        def chosen(events: list[Event]) -> list[Event]:
            return [
                e for e in events
                if not visits_of_a_crawler(e)
                and self.named(spec, e, by_order) and self.passes(where, e, pinned) and self.in_window(spec, e)
            ]  # fmt: skip

        return self.aggregate(spec, sorted(chosen(bases), key=self.stamp), chosen(refunds), pinned)

    def named(self, spec: ComputedTrait, event: Event, by_order: bool) -> bool:
        if by_order and event["type"] == "purchase.updated" and "purchase.completed" in spec.events:
            return True
        names = {event["type"]} | ({event["name"]} if event["type"] == "custom" else set())
        return "*" in spec.events or bool(names & set(spec.events))

    def of(self, spec: ComputedTrait, event: Event, pinned: bool) -> Any:
        if spec.of == "revenue":
            return self.money(event, pinned)
        if spec.of == "occurred_at":
            return event["occurred_at"]
        value = event["properties"].get(spec.of)
        if spec.of in MONEY and isinstance(value, str) and value in READ:
            value = f"{READ[value]:f}".removesuffix(".5") + ("" if READ[value] % 1 != Decimal("0.5") else ".5")
        if spec.aggregate in ("first", "last"):
            if isinstance(value, float):
                return amount(value)
            return value if isinstance(value, str | int) else None
        return amount(value)

    def aggregate(self, spec: ComputedTrait, events: list[Event], refunds: list[Event], pinned: bool) -> Any:
        times = [e["occurred_at"] for e in events]
        values = [v for e in events if (v := self.of(spec, e, pinned)) is not None] if spec.of else []
        if spec.of != "revenue":
            refunds = []
        back = sum((v for e in refunds if (v := self.money(e, pinned)) is not None), Decimal(0))
        by_name: dict[str, Callable[[], Any]] = {
            "count": lambda: len(events),
            "sum": lambda: sum(values, Decimal(0)) - back,
            "avg": lambda: four(Fraction(sum(values, Decimal(0)) - back) / len(values)) if values else None,
            "min": lambda: min(values, default=None),
            "max": lambda: max(values, default=None),
            "first": lambda: values[0] if values else None,
            "last": lambda: values[-1] if values else None,
            "distinct_count": lambda: len({v for e in events if (v := self.text(spec, e, pinned))}),
            "distinct_days": lambda: len({self.local(t) for t in times}),
            "days_since": lambda: (self.at - times[-1]) // timedelta(days=1) if times else None,
            "gap_days": lambda: (times[-1] - times[-2]) // timedelta(days=1) if len(times) > 1 else None,
        }
        return by_name[spec.aggregate]()

    def text(self, spec: ComputedTrait, event: Event, pinned: bool) -> str:
        """A value as text, equal for equal values; "" if there is none or it is not a valid value."""
        value = self.money(event, pinned) if spec.of == "revenue" else event["properties"].get(spec.of)
        if isinstance(value, bool):
            return str(value).lower()
        number = amount(value) if isinstance(value, int | float | Decimal) else None
        return value if isinstance(value, str) else "" if number is None else f"{number:f}".rstrip("0").rstrip(".")

    def open_count(self, spec: ComputedTrait) -> int:
        newest: dict[str, Event] = {}
        for event in sorted(self.events, key=self.stamp):
            if event["type"] in spec.opens + spec.closes and self.passes(spec.where, event, False):
                newest[key_of(event["properties"].get(spec.key)) or ""] = event
        return sum(e["type"] in spec.opens for e in newest.values())

    def trait(self, name: str, personal: dict[str, Any]) -> Any:
        """A declared trait, from the newest event that set it; within one event the sealed form wins."""
        found: Any = None
        corrected: tuple[Any] | None = None  # by staff; valid until withdrawn
        for event in sorted(self.events, key=self.stamp):
            if event["type"] == "trait.corrected" and event["name"] == name:
                corrected = None
                if name in event["traits"]:
                    corrected = (event["traits"][name],)
                if name in event["sealed"]:
                    corrected = (personal.get(name),)
            if event["type"] == "profile.identified":
                if name in event["traits"]:
                    found = event["traits"][name]
                if name in event["sealed"]:
                    found = personal.get(name)
        return found if corrected is None else corrected[0]

    def decide(self, personal: dict[str, Any]) -> tuple[set[str], str, list[str]]:
        """Segments, stage and reason codes."""
        values = {name: self.value(name) for name in self.defs.computed_traits}
        kinds = {name: value_kind(spec) for name, spec in self.defs.computed_traits.items()}

        def test(node: Any) -> bool:
            if isinstance(node, SegmentLeaf):
                return test(self.defs.segments[node.segment].when)
            if isinstance(node, LifecycleLeaf):
                return stage() == node.lifecycle
            if isinstance(node, TraitLeaf):
                if node.trait in values:
                    return holds(node.op, values[node.trait], node.value, kinds[node.trait] == "time", self.zone)
                timed = self.defs.traits[node.trait].type == "time"
                return holds(node.op, self.trait(node.trait, personal), node.value, timed, self.zone)
            return logic(node, test)

        def stage() -> str:
            stages = self.defs.lifecycle.stages if self.defs.lifecycle else ()
            return next((s.name for s in stages if test(s.when)), "prospect")

        rules = self.defs.risk.rules if self.defs.risk else ()
        return (
            {name for name, segment in self.defs.segments.items() if test(segment.when)},
            stage(),
            [r.code for r in sorted(rules, key=lambda r: (-r.points, r.code)) if test(r.when)],
        )


def visits_of_a_crawler(event: Event) -> bool:
    """They count in no trait, unless its condition speaks of flags, which these tests' conditions do not."""
    return "bot" in event.get("flags", ()) and event["type"] in ("web.page_viewed", "app.screen_viewed")


def logic(node: Any, test: Callable[[Any], bool]) -> bool:
    if isinstance(node, All):
        return all(test(item) for item in node.all)
    if isinstance(node, AnyOf):
        return any(test(item) for item in node.any)
    assert isinstance(node, Not)
    return not test(node.item)


def moment(text: Any, zone: ZoneInfo, end: bool) -> datetime | None:
    """ISO text as an instant; a date as its first or last instant."""
    if isinstance(text, datetime):
        return text
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            first = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
            after = day + timedelta(days=1)
            last = datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC)
            return last - timedelta(microseconds=1) if end else first
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None


def holds(op: str, value: Any, wanted: Any, timed: bool = False, zone: ZoneInfo | None = None) -> bool:
    """One comparison; with a missing value it is false, except for missing, ne and not_in."""
    if op in ("exists", "missing"):
        return (value is None) == (op == "missing")
    if op == "ne":
        return not holds("eq", value, wanted, timed, zone)
    if op == "not_in":
        return not holds("in", value, wanted, timed, zone)
    if op == "in":
        return any(holds("eq", value, item, timed, zone) for item in wanted)
    if op == "between":
        return holds("gte", value, wanted[0], timed, zone) and holds("lte", value, wanted[1], timed, zone)
    if value is None:
        return False
    if op == "contains":
        return wanted in value if isinstance(value, str | list | tuple) else False
    if op == "starts_with":
        return isinstance(value, str) and value.startswith(wanted)
    low: Any
    high: Any
    if timed:
        assert zone is not None
        low, high = moment(wanted, zone, False), moment(wanted, zone, True)
        value = moment(value, zone, False)
    elif isinstance(wanted, bool | str):
        if type(value) is not type(wanted):
            return False
        low = high = wanted
    else:
        low = high = Decimal(wanted)
        value = amount(value)
    if value is None:
        return False
    tests: dict[str, Callable[[], Any]] = {
        "eq": lambda: low <= value <= high, "lt": lambda: value < low, "lte": lambda: value <= high,
        "gt": lambda: value > high, "gte": lambda: value >= low,
    }  # fmt: skip
    return bool(tests[op]())
