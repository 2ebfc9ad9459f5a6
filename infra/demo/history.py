"""The 18 months of the demo shop: every touch of every customer, in order of time, along with the truth. Pure.

The same plan gives the same bytes. It has weekdays, opening hours, seasons; customers stay, fade, leave and return.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from infra.demo.journey import WEB, Journey, line, stamp
from infra.demo.names import CALL_TOPICS, CAMPAIGNS, PRODUCTS
from infra.demo.people import CLERK_PHONE, DAYS, KIOSK, Person, cast

CUSTOMERS: Final = 2_000
SEED: Final = 7
_CAMPAIGN_EVERY: Final = 10  # days; all but the keenest readers get each third
_SEASON: Final = (0.8, 0.8, 0.95, 1.05, 1.1, 1.0, 0.85, 0.85, 1.0, 1.05, 1.3, 1.6)  # by month
_DAY_MS: Final = 86_400_000


class Plan(NamedTuple):
    """What to simulate. `until`: the local day whose first instant ends the history."""

    seed: int
    until: date
    customers: int = CUSTOMERS
    time_zone: str = "UTC"
    currency: str = "USD"


class Event(NamedTuple):
    """One item for the door: `body` is its JSON, including message id and time."""

    at_ms: int
    source: str
    message_id: str
    body: bytes


class Truth(NamedTuple):
    """The truth about one person: every identifier that is theirs alone, and when they left for good."""

    person: str
    name: str | None
    kind: str
    identifiers: list[tuple[str, str]]
    orders: int
    left_at: str | None


@dataclass
class History:
    """`events` in order of time; `truths` by person; `shared`: identifiers that belong to several people."""

    events: list[Event]
    truths: list[Truth]
    shared: list[tuple[str, str]]


class Calendar:
    """Local days as milliseconds, so that a shop opens at the same hour in summer and in winter."""

    def __init__(self, plan: Plan) -> None:
        zone = ZoneInfo(plan.time_zone)
        self.first = plan.until - timedelta(days=DAYS)
        self._midnights = [
            int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp() * 1_000)
            for day in (self.first + timedelta(days=number) for number in range(DAYS + 1))
        ]
        self.end_ms = self._midnights[DAYS]
        self._weekday = self.first.weekday()
        self._months = [(self.first + timedelta(days=number)).month for number in range(DAYS + 1)]

    def at(self, day: float, hour: float) -> int:
        """The time of an hour of a local day, in milliseconds; days may lie beyond the end."""
        whole = int(day)
        if whole <= DAYS:
            return self._midnights[whole] + int(hour * 3_600_000)
        return self.end_ms + (whole - DAYS) * _DAY_MS + int(hour * 3_600_000)

    def day_of(self, at_ms: int) -> int:
        """The number of the local day that contains an instant."""
        return bisect_left(self._midnights, at_ms + 1) - 1

    def weekday(self, day: int) -> int:
        """0 is Monday."""
        return (self._weekday + day) % 7

    def season(self, day: float) -> float:
        """How much more people buy than usual, as a factor."""
        return _SEASON[self._months[min(int(day), DAYS)] - 1]


def simulate(plan: Plan) -> History:
    """The whole history. 100,000 events take about 3 s."""
    calendar = Calendar(plan)
    history = History([], [], [("device_id", KIOSK), ("phone", CLERK_PHONE)])
    people = cast(plan.seed, plan.customers)
    for person in people:
        journey = _journey(plan, person, "")
        _Life(journey, calendar).live()
        _close(plan, calendar, history, journey, f"p{person.number}", f"{person.number}")
        if person.shared_device is not None and ("device_id", person.shared_device) not in history.shared:
            history.shared.append(("device_id", person.shared_device))
    for number in range(plan.customers * 2 // 5):
        journey = _visitor(plan, calendar, people[number % plan.customers], number)
        _close(plan, calendar, history, journey, f"v{number}", f"v{number}")
    history.events.sort(key=lambda event: (event.at_ms, event.message_id))
    return history


def _journey(plan: Plan, person: Person, what: str) -> Journey:
    rng = Random(f"touchfold demo life {plan.seed} {person.number} {what}")
    return Journey(person, rng, plan.currency, f"{plan.seed % 1_000:03d}{what}-{person.number:05d}")


def _close(plan: Plan, calendar: Calendar, history: History, journey: Journey, name: str, short: str) -> None:
    """Number and encode a journey's touches up to the end of the history; record its truth."""
    last_own, orders = 0, set()
    for count, touch in enumerate(journey.touches):
        if touch.at_ms >= calendar.end_ms:
            continue
        message_id = f"demo-{plan.seed}-{short}-{count}"
        item = {**touch.item, "messageId": message_id, "timestamp": stamp(touch.at_ms)}
        history.events.append(Event(touch.at_ms, touch.source, message_id, msgspec.json.encode(item)))
        if touch.own:
            last_own = max(last_own, touch.at_ms)
        if touch.item.get("event") in {"Order Completed", "pos.purchase"}:
            orders.add(touch.item["properties"]["order_id"])
    person = journey.person
    visitor = name.startswith("v")
    left = stamp(last_own) if person.leaves and not visitor and orders else None
    identifiers = _sent(journey, calendar.end_ms)
    history.truths.append(
        Truth(
            name,
            None if visitor else person.name,
            "visitor" if visitor else person.kind,
            identifiers,
            len(orders),
            left,
        )
    )


def _sent(journey: Journey, end_ms: int) -> list[tuple[str, str]]:
    """The identifiers, without those of touches cut off by the end of the history."""
    if all(touch.at_ms < end_ms for touch in journey.touches):
        return journey.identifiers
    sent = {value for touch in journey.touches if touch.at_ms < end_ms for value in _texts(touch.item)}
    return [(kind, value) for kind, value in journey.identifiers if value in sent]


def _texts(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    elif isinstance(item, dict):
        for value in item.values():
            yield from _texts(value)


def _visitor(plan: Plan, calendar: Calendar, base: Person, number: int) -> Journey:
    """Somebody who visits once and stays anonymous."""
    journey = _journey(plan, base, f"v{number}")
    rng = journey.rng
    ids = {"anonymous_id": f"{rng.getrandbits(64):016x}-visitor-{plan.seed}-{number}"}
    at_ms = calendar.at(rng.randrange(DAYS), _web_hour(rng))
    journey.page(at_ms, ids, "/", "Home")
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at_ms += rng.randrange(8_000, 90_000)
        journey.track(at_ms, WEB, "Product Viewed", ids, line(rng.choice(PRODUCTS)))
    return journey


def _web_hour(rng: Random) -> float:
    return rng.choices(
        (rng.uniform(7, 12), rng.uniform(12, 14), rng.uniform(14, 18.5), rng.gauss(20.6, 1.1)), (2, 2, 3, 6)
    )[0]


class _Life:
    """One customer's 18 months; day numbers count from the first day of the history."""

    def __init__(self, journey: Journey, calendar: Calendar) -> None:
        self._to = journey
        self._calendar = calendar
        self._rng = journey.rng
        self._person = journey.person
        self._sold: list[tuple[str, float]] = []
        self._bounces = self._person.kind == "churner" and self._rng.random() < 0.25
        self._quits_mail = self._rng.random() < (0.3 if self._person.kind in {"churner", "won_back"} else 0.05)

    def live(self) -> None:
        """Everything they do, in no particular order."""
        person, rng = self._person, self._rng
        self._to.join(self._calendar.at(person.join_day, rng.uniform(10, 21)))
        if person.kind == "prospect":
            self._browse(person.join_day + 1, DAYS, every=45)
        elif person.kind == "one_timer":
            day = person.join_day + rng.uniform(0, 9)
            self._order(day, 1.0)
            if rng.random() < 0.25:
                self._grievance(day + 4, fair=False)
        else:
            for start, end, leaves in self._phases():
                self._active(start, end, leaves=leaves)
        self._mails()
        self._extras()

    def _phases(self) -> list[tuple[float, float, bool]]:
        person = self._person
        if person.leave_day is None:
            return [(person.join_day, DAYS, False)]
        first = (float(person.join_day), float(person.leave_day), True)
        return [first] if person.return_day is None else [first, (person.return_day, DAYS, False)]

    def _active(self, start: float, end: float, *, leaves: bool) -> None:
        """Orders and visits from start to end; customers who leave fade over their last 70 days, most for a reason."""
        person, rng = self._person, self._rng
        fade = end - 70 if leaves else end + 1
        day = start + rng.uniform(0, min(20.0, person.gap_days))
        while day < end:
            fading = day > fade
            self._order(day, person.basket * (0.5 if fading else 1.0))
            gap = rng.gammavariate(3.0, person.gap_days / 3.0) / self._calendar.season(day)
            day += gap * (2.2 if fading else 1.0) + 0.3
        self._browse(start, end - 15 if leaves else end, every=person.gap_days * 2.3)
        if leaves and rng.random() < 0.8:
            self._signs(end)
        elif not leaves and rng.random() < (end - start) / 365 * 0.12:
            self._grievance(rng.uniform(start, end), fair=True)

    def _signs(self, end: float) -> None:
        """Why they leave, as events that hint at it."""
        rng, to, at = self._rng, self._to, self._calendar.at
        if rng.random() < 0.7:
            self._grievance(end - rng.uniform(6, 40), fair=rng.random() < 0.3)
        for _ in range(rng.choice((0, 1, 2, 3))):
            to.call(at(end - rng.uniform(2, 28), rng.uniform(9, 18)), "return", missed=rng.random() < 0.4)
        if rng.random() < 0.5:
            to.survey(at(end - rng.uniform(1, 35), _web_hour(rng)), rng.randrange(0, 7))
        if self._sold and rng.random() < 0.4:
            to.give_back(at(end - rng.uniform(1, 20), rng.uniform(10, 18)), *self._sold[-1])

    def _grievance(self, day: float, *, fair: bool) -> None:
        """A complaint; `fair`: it is dealt with."""
        rng = self._rng
        resolved = rng.uniform(0.5, 6) if fair or rng.random() < 0.15 else None
        at_ms = self._calendar.at(max(day, self._person.join_day + 1), rng.uniform(9, 17.5))
        self._to.complain(at_ms, escalated=not fair and rng.random() < 0.45, resolved_after_days=resolved)

    def _order(self, day: float, size: float) -> None:
        person, rng, to = self._person, self._rng, self._to
        if person.user_id is not None and rng.random() < person.web_share:
            order_id = to.web_order(
                self._calendar.at(day, _web_hour(rng)), rng.choice(person.devices), size, collected=rng.random() < 0.15
            )
        else:
            order_id = to.till_order(self._shop_time(day), size)
        amount = next(
            touch.item["properties"]["revenue"]
            for touch in reversed(to.touches)
            if touch.item.get("properties", {}).get("order_id") == order_id
        )
        self._sold.append((order_id, amount))
        if rng.random() < (0.7 if person.number % 40 == 7 else 0.05):
            to.give_back(self._shop_time(day + rng.uniform(2, 12)), order_id, amount)
        if rng.random() < 0.05:
            to.survey(
                self._calendar.at(day + 3, _web_hour(rng)),
                rng.choices(range(11), (1, 0, 1, 1, 1, 3, 4, 9, 20, 25, 30))[0],
            )

    def _shop_time(self, day: float) -> int:
        """A time during opening hours, more often on Saturdays, never on Sundays."""
        rng, whole = self._rng, int(day)
        weekday = self._calendar.weekday(whole)
        if weekday == 6 or (weekday in {1, 2} and rng.random() < 0.3):
            whole += 5 - weekday if weekday != 6 else 1
        return self._calendar.at(whole, min(18.9, max(9.1, rng.gauss(14.5, 2.6))))

    def _browse(self, start: float, end: float, every: float) -> None:
        person, rng = self._person, self._rng
        if person.user_id is None:
            return
        day = start + rng.expovariate(1 / every)
        while day < end:
            device = rng.choice(person.devices)
            self._to.visit(
                self._calendar.at(day, _web_hour(rng)), device, rng.choice((0, 1, 1, 2)), cart=rng.random() < 0.2
            )
            day += rng.expovariate(1 / every) + 0.2

    def _mails(self) -> None:
        person, rng, to = self._person, self._rng, self._to
        quits = rng.randrange(person.join_day, DAYS) if person.leave_day is None else person.leave_day - 20
        bounced = 0
        for number, day in enumerate(range(10, DAYS, _CAMPAIGN_EVERY)):
            if day <= person.join_day or not to.mailable or bounced == 2 or (number % 3 and not person.keen):
                continue
            result = self._reaction(day)
            if self._quits_mail and day >= quits:
                result = "unsubscribed"
            elif self._bounces and person.leave_day is not None and day >= person.leave_day - 45:
                result, bounced = "bounced", bounced + 1
            elif rng.random() < 0.004:
                result = "bounced"
            at_ms = self._calendar.at(day, 8.0) + rng.randrange(1_500_000)
            to.mail(at_ms, f"cmp-{number + 1:02d}", CAMPAIGNS[number % len(CAMPAIGNS)], result=result)
        if person.kind == "won_back" and person.return_day is not None:
            at_ms = self._calendar.at(person.return_day - 1, 8.2)
            to.mail(at_ms, "cmp-back", "We miss you", result="clicked")

    def _reaction(self, day: int) -> str:
        """What they do with an e-mail; those who have left read none."""
        person, rng = self._person, self._rng
        gone = person.leave_day is not None and day > person.leave_day - 10
        gone = gone and (person.return_day is None or day < person.return_day)
        if gone or (person.kind == "one_timer" and day > person.join_day + 20):
            return "delivered"
        opens = 0.95 if person.keen else 0.5 if person.kind == "loyal" else 0.3
        if rng.random() > opens:
            return "delivered"
        return "clicked" if rng.random() < 0.22 else "opened"

    def _extras(self) -> None:
        """Calls, the kiosk, the household's tablet, a new address."""
        person, rng, to, at = self._person, self._rng, self._to, self._calendar.at
        start = person.join_day + 1
        end = person.leave_day or (start + 10 if person.kind == "one_timer" else DAYS)
        span = max(1, end - start)
        for _ in range(int(rng.expovariate(1.0) * span / 700)):
            to.call(
                at(start + rng.random() * span, rng.uniform(9, 17.5)),
                rng.choice(CALL_TOPICS),
                missed=rng.random() < 0.12,
            )
        if person.uses_kiosk:
            for _ in range(rng.choice((1, 1, 2, 3))):
                to.kiosk(self._shop_time(start + rng.random() * min(span, 60)))
        if person.shared_device is not None:
            for _ in range(rng.choice((1, 2, 3))):
                to.tablet(at(start + rng.random() * span, _web_hour(rng)))
        if len(person.emails) > 1 and span > 40:
            to.new_email(at(end - 5, _web_hour(rng)))
