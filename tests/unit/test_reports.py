"""Periods of the overview in local days, changes between them, and the guard of exported values."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from query.reports.overview import Figure, change, period_of
from query.segments.exports import guarded
from schemas.figures import PERIODS

VIENNA = ZoneInfo("Europe/Vienna")


def test_a_period_is_whole_local_days_with_today_as_the_last() -> None:
    period = period_of(7, datetime(2026, 5, 20, 22, 30, tzinfo=UTC), VIENNA)  # 21 May there
    assert (period.first, period.last) == (date(2026, 5, 15), date(2026, 5, 21))
    assert period.start == datetime(2026, 5, 14, 22, tzinfo=UTC)
    assert period.end == datetime(2026, 5, 21, 22, tzinfo=UTC)
    assert period.before == datetime(2026, 5, 7, 22, tzinfo=UTC)


def test_what_it_is_compared_with_ends_at_the_same_time_of_day() -> None:
    period = period_of(7, datetime(2026, 5, 20, 10, 30, 5, 999, tzinfo=UTC), VIENNA)
    assert period.before_end == datetime(2026, 5, 13, 10, 30, 5, tzinfo=UTC)
    assert period.before < period.before_end < period.start


def test_a_day_has_23_hours_when_the_clock_goes_forward_and_25_when_it_goes_back() -> None:
    for at, hours in ((datetime(2026, 3, 30, 12, tzinfo=UTC), 23), (datetime(2026, 10, 26, 12, tzinfo=UTC), 25)):
        period = period_of(2, at, VIENNA)
        stamps = [each.timestamp() for each in period.midnights]
        assert [(b - a) / 3_600 for a, b in pairwise(stamps)] == [hours, 24]
        assert period.before_end.hour == at.astimezone(VIENNA).hour  # by the clock on the wall


@pytest.mark.parametrize("days", PERIODS)
def test_days_join_without_a_gap(days: int) -> None:
    period = period_of(days, datetime(2026, 11, 24, 11, tzinfo=UTC), VIENNA)
    assert len(period.midnights) == days + 1
    assert [each.astimezone(VIENNA).date() for each in period.midnights] == [
        period.first + timedelta(days=place) for place in range(days + 1)
    ]
    assert (period.first - period.before.astimezone(VIENNA).date()).days == days


def test_a_change_is_relative_and_none_when_nothing_was_there() -> None:
    assert change(Decimal(150), Decimal(100)) == pytest.approx(0.5)
    assert change(0, 4) == -1
    assert change(5, 0) is None
    assert Figure(Decimal(3), Decimal(2)).change == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["=1+1", "+43 1 234", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_value_that_begins_a_formula_is_quoted(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize(("value", "text"), [(None, ""), ("Ada", "Ada"), ("a=b", "a=b"), (7, "7"), ("", "")])
def test_other_values_stay_as_they_are(value: object, text: str) -> None:
    assert guarded(value) == text
