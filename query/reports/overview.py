"""The overview's figures: orders, revenue, customers and channels of a period, compared with the period before it.

Read from cells that FOLD and DECIDE maintain (decision 0018): one statement, no evaluation, whatever the size.
Money is in the base currency; amounts without a rate into it are left out of the totals and listed beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from query.views import View, Views
from schemas.errors import FiguresPreparing
from schemas.figures import BUCKET_US, Amounts, Figures, Window
from schemas.money import to_decimal
from schemas.ports import Clock
from schemas.record import from_us, to_us

ZERO: Final = Decimal(0)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


class Period(NamedTuple):
    """Local days [first, last], and the instants where they begin and end.

    `before` begins the same number of days earlier, and ends `days` days before now by the wall clock: today is not
    over yet, and would always look worse than a whole day.
    """

    first: date
    last: date
    before: datetime
    before_last_start: datetime
    before_end: datetime
    start: datetime
    end: datetime
    midnights: tuple[datetime, ...]  # where each day of the period begins, and where the last ends


def period_of(days: int, now: datetime, zone: ZoneInfo) -> Period:
    """The last `days` local days, including today."""
    local = now.astimezone(zone).replace(microsecond=0)
    last = local.date()
    first = last - timedelta(days=days - 1)
    starts = [_midnight(first + timedelta(days=i), zone) for i in range(days + 1)]
    before = _midnight(first - timedelta(days=days), zone)
    before_end = local - timedelta(days=days)  # same zone: wall-clock arithmetic
    before_last_start = _midnight(first - timedelta(days=1), zone)
    return Period(first, last, before, before_last_start, before_end, starts[0], starts[-1], tuple(starts))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, datetime.min.time(), zone)


def windows_of(period: Period) -> tuple[Window, Window, list[int]]:
    """The period and the one before as buckets and days, and the buckets where its days begin and the last ends.

    The one before ends with the last quarter of an hour that is over by its clock.
    """
    marks = [to_us(at) // BUCKET_US for at in period.midnights]
    first, last = (day.toordinal() - _EPOCH_DAY for day in (period.first, period.last))
    length = last - first + 1
    now = Window(marks[0], marks[-1], first, last, marks[-2])
    start, end, last_start = (
        to_us(at) // BUCKET_US for at in (period.before, period.before_end, period.before_last_start)
    )
    before = Window(start, end, first - length, first - 1, last_start)
    return now, before, marks


def change(now: Decimal | float, before: Decimal | float) -> float | None:
    """The relative change, 0.1 for ten per cent more; None if there was nothing before."""
    return None if not before else float(now) / float(before) - 1


class Figure(NamedTuple):
    """A number, and the same for the period before."""

    now: Decimal
    before: Decimal

    @property
    def change(self) -> float | None:
        return change(self.now, self.before)


class MissingRate(NamedTuple):
    """Amounts of both periods that are in no total because they have no rate."""

    currency: str
    orders: int
    refunds: int
    amount: Decimal  # orders less refunds, in that currency


class Overview(NamedTuple):
    """What the page shows. Money is in the base currency, net of refunds; refunds count on the day of their order."""

    days: int
    period: Period
    made_at: datetime
    as_of: datetime  # the figures include everything received before this
    currency: str  # the base currency
    customers: int  # in total
    new_customers: Figure
    orders: Figure
    revenue: Figure
    average_order: Figure  # of orders with an amount that has a rate
    repeat_rate: Figure  # share of ordering customers who had ordered before or ordered twice; by whole days
    events: Figure
    at_risk_value: Decimal  # total spent so far by customers at medium or high risk
    at_risk_missing: int  # their amounts without a rate, which are not included
    missing_rates: Sequence[MissingRate]  # by currency; empty: every amount is included
    stages: Sequence[tuple[str, str, int]]  # (stage, risk level, customers)
    unreadable_amounts: int  # orders and refunds of all time whose amount could not be read, which no total includes
    unknown_customers: int  # with orders that are not available and so not in any figure
    by_day: Sequence[tuple[date, int, Decimal]]  # day, orders, revenue
    by_family: Sequence[tuple[str, int]]  # events by the first word of their type, most frequent first


@dataclass(frozen=True)
class Reports:
    """Any thread may call."""

    views: Views
    clock: Clock

    def overview(self, days: int) -> Overview:
        """The figures of the last `days` local days, as of now.

        Raises FiguresPreparing while existing data is still being counted, and StoreUnavailable.
        """
        return self.views.read(lambda view: self._make(view, days))

    def _make(self, view: View, days: int) -> Overview:
        now = self.clock.now()
        period = period_of(days, now, ZoneInfo(self.views.deployment.time_zone))
        found = self.views.reads.figures(view.revision, *windows_of(period))
        if found.done < 1:
            raise FiguresPreparing(
                f"the figures are being prepared from existing data: {found.done:.0%} done; try again soon",
                retry_after_s=5,
            )
        return _overview(days, period, now, found, self.views.deployment.currency)


def _overview(days: int, period: Period, now: datetime, found: Figures, currency: str) -> Overview:
    orders = Figure(*(Decimal(each.n) for each in found.orders))
    revenue = Figure(*(to_decimal(each.amount) for each in found.orders))
    rated = [each.n - _unrated_orders(unrated) for each, unrated in zip(found.orders, found.unrated, strict=True)]
    return Overview(
        days=days,
        period=period,
        made_at=now,
        as_of=min(now, from_us(found.watermark_us)) if found.watermark_us else now,
        currency=currency,
        customers=sum(each.n for (_, what), each in found.risk.items() if not what),
        new_customers=_counts(found.customers),
        orders=orders,
        revenue=revenue,
        average_order=Figure(*(_ratio(revenue[side], Decimal(rated[side])) for side in (0, 1))),
        repeat_rate=Figure(
            *(_ratio(Decimal(found.buyers[i] - found.once[i]), Decimal(found.buyers[i])) for i in (0, 1))
        ),
        events=_counts(found.events),
        at_risk_value=to_decimal(
            sum(each.amount for (level, what), each in found.risk.items() if level != "low" and not what)
        ),
        at_risk_missing=sum(each.n for (level, what), each in found.risk.items() if level != "low" and what),
        missing_rates=_missing_rates(found.unrated),
        stages=[(*key, found.stages[key]) for key in sorted(found.stages)],
        unreadable_amounts=found.unreadable,
        unknown_customers=found.unknown,
        by_day=[_day(period.first + timedelta(days=i), found.by_day.get(i, Amounts(0, 0))) for i in range(days)],
        by_family=sorted(found.by_family.items(), key=lambda each: (-each[1], each[0])),
    )


def _counts(pair: tuple[int, int]) -> Figure:
    return Figure(Decimal(pair[0]), Decimal(pair[1]))


def _day(day: date, found: Amounts) -> tuple[date, int, Decimal]:
    return day, found.n, to_decimal(found.amount)


def _unrated_orders(unrated: Mapping[tuple[str, int], Amounts]) -> int:
    return sum(each.n for (_, refund), each in unrated.items() if not refund)


def _missing_rates(windows: Sequence[Mapping[tuple[str, int], Amounts]]) -> list[MissingRate]:
    """Both periods together: a comparison needs the missing amounts of both."""
    found: dict[str, list[int]] = {}
    for unrated in windows:
        for (currency, refund), each in unrated.items():
            sums = found.setdefault(currency, [0, 0, 0])
            sums[refund] += each.n
            sums[2] += -each.amount if refund else each.amount
    return [MissingRate(name, found[name][0], found[name][1], to_decimal(found[name][2])) for name in sorted(found)]


def _ratio(part: Decimal, whole: Decimal) -> Decimal:
    return part / whole if whole else ZERO
