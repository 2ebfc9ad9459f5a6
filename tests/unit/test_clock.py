"""When an event happened: the formula, its tolerance, and what cannot be a time."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.requests.clock import EARLIEST, RULES, BadTime, parse_time, settle

CASES = json.loads((Path(__file__).parents[1] / "data/identity/identity_and_time_cases.json").read_text())
EXAMPLES = next(case["examples"] for case in CASES if case["case"] == "timestamp_correction")
RECEIVED = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_published_examples_of_the_formula_hold(example: dict[str, str]) -> None:
    times = settle(
        parse_time(example["originalTimestamp"]), parse_time(example["sentAt"]), parse_time(example["receivedAt"])
    )
    assert times.occurred_at == parse_time(example["timestamp"])
    assert times.rule == "corrected"
    assert times.original_at == parse_time(example["originalTimestamp"])


@pytest.mark.parametrize("seconds", [-60, -59.9, 0, 60])
def test_clocks_that_agree_within_a_minute_leave_the_time_as_it_is(seconds: float) -> None:
    original, sent = RECEIVED - HOUR, RECEIVED - timedelta(seconds=seconds)
    times = settle(original, sent, RECEIVED)
    assert (times.occurred_at, times.rule) == (original, "original")
    assert times.known_at == RECEIVED


@pytest.mark.parametrize("seconds", [-60.001, 60.001, -86_400 * 400, 86_400 * 400])
def test_clocks_further_apart_are_corrected_by_their_difference(seconds: float) -> None:
    sent = RECEIVED - timedelta(seconds=seconds)
    times = settle(sent - HOUR, sent, RECEIVED)
    assert (times.occurred_at, times.rule) == (RECEIVED - HOUR, "corrected")


def test_order_inside_a_request_never_changes() -> None:
    sent = RECEIVED + 5 * HOUR
    originals = [sent - timedelta(seconds=each) for each in (3_600, 60, 1, 0)]
    occurred = [settle(each, sent, RECEIVED).occurred_at for each in originals]
    assert occurred == sorted(occurred)


def test_no_event_is_later_than_its_receipt() -> None:
    sent = RECEIVED + 2 * HOUR
    assert settle(sent + HOUR, sent, RECEIVED) == (RECEIVED, RECEIVED, sent + HOUR, sent, "corrected_clamped")
    late = RECEIVED + HOUR
    for times, rule in (
        (settle(late, None, RECEIVED, trusted=True), "trusted"),
        (settle(late, None, RECEIVED, historical=True), "historical"),
        (settle(late, None, RECEIVED), "no_sent_at"),
    ):
        assert (times.occurred_at, times.rule) == (RECEIVED, f"{rule}_clamped")


def test_without_a_time_of_its_own_an_event_happened_when_it_was_received() -> None:
    assert settle(None, RECEIVED - HOUR, RECEIVED) == (RECEIVED, RECEIVED, None, RECEIVED - HOUR, "received")


def test_trusted_clocks_are_not_corrected() -> None:
    times = settle(RECEIVED - HOUR, RECEIVED + 9 * HOUR, RECEIVED, trusted=True)
    assert (times.occurred_at, times.rule, times.known_at) == (RECEIVED - HOUR, "trusted", RECEIVED)


def test_an_import_of_the_past_was_known_when_it_occurred() -> None:
    at = datetime(1997, 1, 1, tzinfo=UTC)
    assert settle(at, None, RECEIVED, historical=True)[:2] == (at, at)
    assert settle(None, None, RECEIVED, historical=True)[:2] == (RECEIVED, RECEIVED)


def test_an_event_sent_again_keeps_the_clock_of_its_first_request() -> None:
    first = RECEIVED - 100 * HOUR
    sent = first + 5 * HOUR
    times = settle(sent - HOUR, sent, RECEIVED, clock_received_at=first)
    assert (times.occurred_at, times.known_at) == (first - HOUR, RECEIVED)
    assert settle(None, None, RECEIVED, clock_received_at=first).occurred_at == first


def test_a_correction_out_of_range_is_bounded() -> None:
    late, early = parse_time("9999-12-31T00:00:00Z"), parse_time("1900-01-01T00:00:00Z")
    assert settle(early, late, RECEIVED).occurred_at == EARLIEST
    assert settle(late, early, RECEIVED).occurred_at == RECEIVED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-10T14:05:06.789-03:00", datetime(2024, 3, 10, 17, 5, 6, 789_000, tzinfo=UTC)),
        ("2024-03-10T14:05:06.789Z", datetime(2024, 3, 10, 14, 5, 6, 789_000, tzinfo=UTC)),
        ("2024-03-10T14:05:06.789123+00:00", datetime(2024, 3, 10, 14, 5, 6, 789_123, tzinfo=UTC)),
        ("2024-03-10T14:05:06.123456789Z", datetime(2024, 3, 10, 14, 5, 6, 123_456, tzinfo=UTC)),
        ("2024-03-10T14:05:06", datetime(2024, 3, 10, 14, 5, 6, tzinfo=UTC)),
        (" 2024-03-10 14:05 ", datetime(2024, 3, 10, 14, 5, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_sdks_write_them_and_naive_ones_are_utc(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2023-02-29", "2024-13-01T00:00:00Z", "1700000000", 1_700_000_000, None, {}, "0001-01-01",
     "9999-12-31T23:59:59-12:00", "2024-01-01T00:00:00+99:00", "1899-12-31", "2024-01-01T25:00:00Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(BadTime):
        parse_time(value)


def test_the_names_of_the_rules_are_known() -> None:
    assert set(RULES) == {"received", "original", "no_sent_at", "corrected", "trusted", "historical"}
