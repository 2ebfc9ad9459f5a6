"""Columns of times as text: as Python writes what it can hold, as DuckDB writes the rest."""

from datetime import date, time, timedelta
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from query.sql.values import values
from schemas.record import EPOCH


def test_what_python_can_hold_is_written_as_python_does() -> None:
    rnd = Random(7)
    days = [date.fromordinal(rnd.randrange(1, 3_652_059)) for _ in range(500)] + [date.min, date.max]
    assert values(pa.array(days)) == [day.isoformat() for day in days]
    aware = [EPOCH + timedelta(microseconds=rnd.randrange(-(10**16), 10**17)) for _ in range(500)]
    moments = [moment.replace(tzinfo=None) for moment in aware]
    assert values(pa.array(moments, pa.timestamp("us"))) == [each.isoformat() for each in moments]
    expected = [f"{moment.isoformat()}Z" for moment in moments]
    assert values(pa.array(aware, pa.timestamp("us", "UTC"))) == expected
    clocks = [time(rnd.randrange(24), rnd.randrange(60), rnd.randrange(60), rnd.randrange(10**6)) for _ in range(200)]
    assert values(pa.array([*clocks, None])) == [*[clock.isoformat() for clock in clocks], None]


def test_days_beyond_the_calendar_of_python_are_those_of_duckdb() -> None:
    rnd = Random(8)
    days = [rnd.randrange(-2_146_000_000, 2_146_000_000) for _ in range(300)]
    days += [-719_163, 2_932_897, -719_528, -719_529]
    with duckdb.connect() as connection:
        told = [
            connection.execute("select (date '1970-01-01' + $1::integer)::varchar", [day]).fetchall()[0][0]
            for day in days
        ]
    assert values(pa.array(days, pa.int32()).cast(pa.date32())) == told


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([2**31 - 1, -(2**31) + 1], pa.int32()).cast(pa.date32()), ["infinity", "-infinity"]),
        (pa.array([2**63 - 1, -(2**63) + 1], pa.int64()).cast(pa.timestamp("us", "UTC")), ["infinity", "-infinity"]),
        (pa.array([86_400_000_000], pa.int64()).cast(pa.time64("us")), ["24:00:00"]),
        (pa.array([1_123_456_789], pa.int64()).cast(pa.timestamp("ns")), ["1970-01-01T00:00:01.123456789"]),
        (pa.array([[date(2026, 1, 2), None], None, []]), [["2026-01-02", None], None, []]),
        (pa.array([{"d": date(2026, 1, 2), "n": 1}, None]), [{"d": "2026-01-02", "n": 1}, None]),
        (pa.array([[("a", date(2026, 1, 2))]], pa.map_(pa.string(), pa.date32())), [{"a": "2026-01-02"}]),
        (pa.array([(14, 3, 5_000_000_000)], pa.month_day_nano_interval()), ["14 months 3 days 00:00:05"]),
        (pa.array([1, None]), [1, None]),
    ],
)
def test_odd_values_come_back_as_what_they_are(array: "pa.Array[Any]", expected: list[Any]) -> None:
    assert values(array) == expected
