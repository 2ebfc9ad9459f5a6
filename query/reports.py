"""The overview's figures: orders, revenue, customers and channels of a period beside the one before it.

One SQL statement over the log answers all of a period; an answer is kept for a minute, and shown longer while the
next one is made. What PostgreSQL knows by itself (stages, sizes) is asked there.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from query.views import View, Views
from schemas.ports import Clock

PERIODS: Final = (7, 30, 90, 365)
FRESH_S: Final = 60.0
RunSql = Callable[[str, int], Mapping[str, Any]]
ZERO: Final = Decimal(0)


class Period(NamedTuple):
    """Local days [first, last], and the instants where they begin and end.

    `before` begins as many days earlier, and ends `days` days before now by the clock on the wall: today is not over
    yet, so that it would always look worse than a whole day.
    """

    first: date
    last: date
    before: datetime
    before_end: datetime
    start: datetime
    end: datetime
    midnights: tuple[datetime, ...]  # where each day of the period begins, and the end of the last


def period_of(days: int, now: datetime, zone: ZoneInfo) -> Period:
    """The last `days` local days, today included."""
    local = now.astimezone(zone).replace(microsecond=0)
    last = local.date()
    first = last - timedelta(days=days - 1)
    starts = [_midnight(first + timedelta(days=i), zone) for i in range(days + 1)]
    before = _midnight(first - timedelta(days=days), zone)
    before_end = local - timedelta(days=days)  # same zone: the arithmetic is the wall's
    return Period(first, last, before, before_end, starts[0], starts[-1], tuple(starts))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, datetime.min.time(), zone)


def change(now: Decimal | float, before: Decimal | float) -> float | None:
    """The relative change, 0.1 for ten per cent more; None where there was nothing before."""
    return None if not before else float(now) / float(before) - 1


class Figure(NamedTuple):
    """A number and the same of the period before."""

    now: Decimal
    before: Decimal

    @property
    def change(self) -> float | None:
        return change(self.now, self.before)


class Overview(NamedTuple):
    """What the page shows. Money is in the base currency, net of refunds."""

    days: int
    period: Period
    made_at: datetime
    customers: int  # all there are
    new_customers: Figure
    orders: Figure
    revenue: Figure
    average_order: Figure
    repeat_rate: Figure  # of the customers who ordered, those who had ordered before or ordered twice
    events: Figure
    at_risk_value: Decimal | None  # lifetime revenue of customers at medium or high risk; None: not defined
    by_day: Sequence[tuple[date, int, Decimal]]  # day, orders, revenue
    by_family: Sequence[tuple[str, int]]  # events by the first word of their type, most first


@dataclass
class Reports:
    """Any thread may call; one makes a period's answer, others get the last one."""

    views: Views
    run_sql: RunSql
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    _kept: dict[int, tuple[float, Overview]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def last(self, days: int) -> Overview | None:
        """The answer made last, however old."""
        kept = self._kept.get(days)
        return kept[1] if kept else None

    def overview(self, days: int) -> Overview:
        """The figures of the last `days` local days, at most a minute old. Raises SqlLimit, StoreUnavailable."""
        with self._lock:
            kept = self._kept.get(days)
            if kept is None or self.monotonic() - kept[0] > FRESH_S:
                kept = self.monotonic(), self.views.read(lambda view: self._make(view, days))
                self._kept[days] = kept
            return kept[1]

    def _make(self, view: View, days: int) -> Overview:
        now = self.clock.now()
        period = period_of(days, now, ZoneInfo(self.views.deployment.time_zone))
        valued = "lifetime_revenue" in view.definitions.computed_traits
        rows = self.run_sql(statement(period, valued), 10_000)["rows"]
        found: dict[str, dict[Any, tuple[Decimal, Decimal]]] = {}
        for what, key, count, amount in rows:
            found.setdefault(what, {})[key] = (Decimal(count or 0), Decimal(amount or 0))
        return _overview(days, period, now, found, valued)


def _overview(
    days: int, period: Period, now: datetime, found: Mapping[str, Mapping[Any, tuple[Decimal, Decimal]]], valued: bool
) -> Overview:
    def pair(what: str, key: str) -> tuple[Decimal, Decimal]:
        return found.get(what, {}).get(key, (ZERO, ZERO))

    def figure(what: str, place: int = 0) -> Figure:
        return Figure(pair(what, "now")[place], pair(what, "before")[place])

    orders, revenue = figure("orders"), figure("orders", 1)
    by_day = {int(key): value for key, value in found.get("day", {}).items()}
    repeat = [pair("buyers", key) for key in ("now", "before")]
    return Overview(
        days=days,
        period=period,
        made_at=now,
        customers=int(pair("customers", "all")[0]),
        new_customers=figure("customers"),
        orders=orders,
        revenue=revenue,
        average_order=Figure(*(_ratio(revenue[i], orders[i]) for i in (0, 1))),
        repeat_rate=Figure(*(_ratio(repeaters, buyers) for buyers, repeaters in repeat)),
        events=figure("events"),
        at_risk_value=pair("risk", "all")[1] if valued else None,
        by_day=[
            (period.first + timedelta(days=i), int(by_day.get(i, (ZERO, ZERO))[0]), by_day.get(i, (ZERO, ZERO))[1])
            for i in range(days)
        ],
        by_family=sorted(
            ((key, int(count)) for key, (count, _) in found.get("family", {}).items()),
            key=lambda each: (-each[1], each[0]),
        ),
    )


def _ratio(part: Decimal, whole: Decimal) -> Decimal:
    return part / whole if whole else ZERO


def statement(period: Period, valued: bool) -> str:
    """One SELECT of (what, key, count, amount) over the tables of the contract. Holds no text of anybody."""

    def at(moment: datetime) -> str:
        return f"to_timestamp({moment.timestamp():.0f})"

    days = ", ".join(
        f"({i}, {at(start)}, {at(end)})"
        for i, (start, end) in enumerate(zip(period.midnights[:-1], period.midnights[1:], strict=True))
    )
    which = f"case when occurred_at >= {at(period.start)} then 'now' else 'before' end"
    seen = f"case when first_seen_at >= {at(period.start)} then 'now' else 'before' end"

    def inside(column: str) -> str:
        until = f"{column} < {at(period.before_end)} or {column} >= {at(period.start)}"
        return f"{column} >= {at(period.before)} and {column} < {at(period.end)} and ({until})"

    risk = (
        "union all select 'risk', 'all', count(*), sum(lifetime_revenue) from profiles where risk <> 'low'"
        if valued
        else ""
    )
    return f"""
with o as materialized (
    select occurred_at, profile_id, revenue - coalesce(refunded, 0) as amount from orders
    where occurred_at < {at(period.end)}),
p as (select *, {which} as key from o where {inside("occurred_at")}),
firsts as (select profile_id, min(occurred_at) as first, count(*) as n from o where profile_id is not null group by 1),
within as (select key, profile_id, count(*) as n, min(occurred_at) as since from p where profile_id is not null
    group by 1, 2),
days(i, s, e) as (values {days})
select 'orders' as what, key, count(*) as n, sum(amount) as amount from p group by key
union all select 'day', cast(i as varchar), count(*), sum(amount) from p join days on occurred_at >= s
    and occurred_at < e where key = 'now' group by i
union all select 'buyers', w.key, count(*), sum(case when w.n > 1 or f.first < w.since then 1 else 0 end)
    from within w join firsts f using (profile_id) group by w.key
union all select 'customers', {seen}, count(*), 0 from profiles where {inside("first_seen_at")} group by 2
union all select 'customers', 'all', count(*), 0 from profiles
union all select 'events', {which}, count(*), 0 from events where {inside("occurred_at")} group by 2
union all select 'family', split_part(type, '.', 1), count(*), 0 from events
    where occurred_at >= {at(period.start)} and occurred_at < {at(period.end)} group by 2
{risk}"""
