"""The forms in which senders and files write a time, each with the instant that is meant."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import BadTime, read_time, why_impossible

TEN = datetime(2024, 3, 5, 10, tzinfo=UTC)  # 1709632800
HALF = timedelta(microseconds=500_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-10T14:05:06.789-03:00", datetime(2024, 3, 10, 17, 5, 6, 789_000, tzinfo=UTC)),
        ("2024-03-10T14:05:06.789Z", datetime(2024, 3, 10, 14, 5, 6, 789_000, tzinfo=UTC)),
        ("2024-03-10T14:05:06.123456789Z", datetime(2024, 3, 10, 14, 5, 6, 123_456, tzinfo=UTC)),
        ("2024-03-10T14:05:06", datetime(2024, 3, 10, 14, 5, 6, tzinfo=UTC)),
        (" 2024-03-10 14:05 ", datetime(2024, 3, 10, 14, 5, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-03-05t10:00:00z", TEN),
        ("2024-03-05T10:00:00,5Z", TEN + HALF),
        ("2024-03-05T10:00:00+0000", TEN),
        ("2024-03-05 10:00:00 +0000", TEN),
        ("2024-03-05 10:00:00 UTC", TEN),
        ("2024-03-05 10:00:00 GMT", TEN),
        ("2024-03-05 10:00:00.5 +0000 UTC m=+0.000012", TEN + HALF),
        ("2024-03-05 11:00:00 CET", TEN),
        ("2024-03-05 05:00:00 EST", TEN),
        ("2024-03-05T11:00:00+01:00[Europe/Berlin]", TEN),
        ("2024-03-05T11:00:00[Europe/Berlin]", TEN),
        ("2024-03-05T11:00:00+01:00Z", TEN),
        ('"2024-03-05T10:00:00.000Z"', TEN),
        ("2024-03-05 11:00:00 Europe/Berlin", TEN),
        ("2024-03-05T05:00:00\u221205:00", TEN),
        ("2024-3-5 9:5:7", datetime(2024, 3, 5, 9, 5, 7, tzinfo=UTC)),
        ("2024/03/05 10:00", TEN),
        ("05.03.2024 10:00", TEN),
        ("2024-03-05 10:00:00 AM", TEN),
        ("2024-03-05 12:30 PM", datetime(2024, 3, 5, 12, 30, tzinfo=UTC)),
        ("2024-03-05 12:30 am", datetime(2024, 3, 5, 0, 30, tzinfo=UTC)),
        ("20240305T100000Z", TEN),
        ("20240305100000", TEN),
        ("202403051000", TEN),
        ("20240305", datetime(2024, 3, 5, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2024-03-04T24:00:00Z", datetime(2024, 3, 5, tzinfo=UTC)),
        ("Tue, 05 Mar 2024 10:00:00 GMT", TEN),
        ("Tue, 5 Mar 2024 11:00:00 +0100", TEN),
        ("5 Mar 2024 10:00 GMT", TEN),
        ("Tuesday, 05-Mar-24 10:00:00 GMT", TEN),
        ("Tue Mar  5 10:00:00 2024", TEN),
        ("Tue Mar 05 10:00:00 +0000 2024", TEN),
        ("Tue Mar 05 11:00:00 CET 2024", TEN),
        ("Tue Mar 05 2024 11:00:00 GMT+0100 (Central European Standard Time)", TEN),
        ("March 5, 2024 10:00 AM", TEN),
        ("1709632800", TEN),
        ("1709632800.5", TEN + HALF),
        ("1709632800000", TEN),
        ("1709632800000000", TEN),
        ("1709632800000000000", TEN),
        ("1.7096328e12", TEN),
        ("/Date(1709632800000)/", TEN),
    ],
)
def test_texts(text: str, expected: datetime) -> None:
    assert read_time(text) == expected
    assert read_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_709_632_800, TEN),
        (1_709_632_800.5, TEN + HALF),
        (1_709_632_800_000, TEN),
        (1_709_632_800_000.0, TEN),
        (1_709_632_800_000_000, TEN),
        (Decimal("1709632800.5"), TEN + HALF),
        (20_240_305, datetime(2024, 3, 5, tzinfo=UTC)),
        (20_240_305_100_000, TEN),
        ({"$date": "2024-03-05T10:00:00Z"}, TEN),
        ({"$date": {"$numberLong": "1709632800000"}}, TEN),
        ({"_seconds": 1_709_632_800, "_nanoseconds": 0}, TEN),
        ({"date": "2024-03-05 11:00:00.000000", "timezone_type": 3, "timezone": "Europe/Berlin"}, TEN),
        (datetime(2024, 3, 5, 10, tzinfo=UTC), TEN),
    ],
)
def test_numbers_and_objects(value: object, expected: datetime) -> None:
    assert read_time(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2023-02-29", "2024-13-01T00:00:00Z", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00+99:00",
     "0001-01-01", "1899-12-31", "9999-12-31T23:59:59-12:00", "2024-03", "10:00", "1970", "0", "12345", "1e400",
     "9" * 40, "03/04/2024", "25/03/2024", "2024-03-05 10:00:00 IST", "2024-03-05 13:00 PM",
     "Tue Mar 05 10:00:00 2024 WAT",
     "Market 5 2024", "Mar 5", "{{timestamp}}", "Invalid Date", "null", "NaN", "[object Object]",
     None, True, 0, -1, 12_345, float("nan"), float("inf"), 10**30, {}, [], {"$date": None},
     {"date": "x", "timezone": 3}],
)  # fmt: skip
def test_what_can_mean_nothing_or_several_times_is_not_read(value: object) -> None:
    with pytest.raises(BadTime):
        read_time(value)


def test_without_a_zone_a_time_is_in_the_one_given() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for text in ("2024-07-01 12:00", "2024/7/1 12:00", "1 July 2024 12:00", "202407011200"):
        assert read_time(text, berlin) == datetime(2024, 7, 1, 10, tzinfo=UTC)
    assert read_time("2024-07-01T12:00Z", berlin) == read_time("1719835200", berlin)
    assert read_time("2024-10-27 02:30", berlin) == datetime(2024, 10, 27, 0, 30, tzinfo=UTC), "the first of the two"


@given(st.one_of(st.text(), st.from_regex(r"[0-9TZ:.,+/ -]{1,30}"), st.floats(), st.integers(), st.binary()))
def test_whatever_comes_is_a_time_or_told_not_to_be(value: object) -> None:
    try:
        at = read_time(value)
    except BadTime:
        return
    assert at.tzinfo is UTC
    assert at.year >= 1900


@given(st.datetimes(datetime(1973, 4, 1), datetime(2200, 1, 1)))  # noqa: DTZ001  # in UTC
def test_an_instant_is_the_same_in_each_form(at: datetime) -> None:
    at = at.replace(tzinfo=UTC, microsecond=0)
    seconds = int(at.timestamp())
    forms: list[object] = [seconds, seconds * 1_000, seconds * 1_000_000, str(seconds), f"{seconds}.000"]
    forms += [
        at.isoformat(),
        f"{at:%a, %d %b %Y %H:%M:%S} GMT",
        f"{at:%Y-%m-%d %H:%M:%S} UTC",
        f"{at:%Y/%m/%d %I:%M:%S %p}",
    ]
    assert {read_time(form) for form in forms} == {at}


def test_times_that_cannot_be() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    for at in (
        datetime(1970, 1, 20, tzinfo=UTC),
        datetime(1969, 12, 31, 12, tzinfo=UTC),
        datetime(1900, 1, 1, tzinfo=UTC),
    ):
        assert why_impossible(at, now) is not None
    assert why_impossible(now + timedelta(days=2), now) == "is in the future"
    for at in (now + timedelta(hours=20), now, datetime(1997, 1, 1, tzinfo=UTC), datetime(1970, 3, 1, tzinfo=UTC)):
        assert why_impossible(at, now) is None
