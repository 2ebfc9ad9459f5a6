"""When an event happened: the formula, its tolerance, and which clocks are not corrected."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.requests.clock import RULES, settle, stamps_of
from schemas.times import read_time

CASES = json.loads((Path(__file__).parents[1] / "data/identity/identity_and_time_cases.json").read_text())
EXAMPLES = next(case["examples"] for case in CASES if case["case"] == "timestamp_correction")
RECEIVED = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_published_examples_of_the_formula_hold(example: dict[str, str]) -> None:
    times = settle(
        read_time(example["originalTimestamp"]), read_time(example["sentAt"]), read_time(example["receivedAt"])
    )
    assert times.occurred_at == read_time(example["timestamp"])
    assert times.rule == "corrected"
    assert times.original_at == read_time(example["originalTimestamp"])


@pytest.mark.parametrize("seconds", [-60, -59.9, 0, 60])
def test_clocks_that_agree_within_a_minute_leave_the_time_as_it_is(seconds: float) -> None:
    original, sent = RECEIVED - HOUR, RECEIVED - timedelta(seconds=seconds)
    times = settle(original, sent, RECEIVED)
    assert (times.occurred_at, times.rule) == (original, "original")
    assert times.known_at == RECEIVED


@pytest.mark.parametrize("seconds", [-60.001, 60.001, -86_400 * 400, 86_399])
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
    assert settle(sent + HOUR, sent, RECEIVED) == (RECEIVED, RECEIVED, sent + HOUR, sent, "corrected_clamped", None)
    late = RECEIVED + HOUR
    for times, rule in (
        (settle(late, None, RECEIVED, trusted=True), "trusted"),
        (settle(late, None, RECEIVED, historical=True), "historical"),
        (settle(late, None, RECEIVED), "no_sent_at"),
    ):
        assert (times.occurred_at, times.rule) == (RECEIVED, f"{rule}_clamped")


def test_without_a_time_of_its_own_an_event_happened_when_it_was_received() -> None:
    assert settle(None, RECEIVED - HOUR, RECEIVED) == (RECEIVED, RECEIVED, None, RECEIVED - HOUR, "received", None)


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
    late, early = read_time("9999-12-31T00:00:00Z"), read_time("1900-01-01T00:00:00Z")
    times = settle(early, late, RECEIVED)
    assert (times.occurred_at, times.rule, times.flag) == (RECEIVED, "impossible", "time_unreadable")
    assert settle(late, early, RECEIVED).occurred_at == RECEIVED


def test_a_time_the_caller_gave_beside_the_sdks_is_meant_and_not_corrected() -> None:
    """@rudderstack/rudder-sdk-node sends both: `originalTimestamp` is when the call was made, a backfill's is older."""
    item = {"originalTimestamp": "2026-11-24T11:00:00.000Z", "timestamp": "2019-05-06T07:08:09.000Z"}
    stamps = stamps_of(item)
    given = datetime(2019, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert (stamps.original_at, stamps.given) == (given, True)
    times = settle(given, RECEIVED - 5 * HOUR, RECEIVED, given=True)
    assert (times.occurred_at, times.rule, times.flag) == (given, "given", None)


@pytest.mark.parametrize("timestamp", ["2026-11-24T11:00:00.000Z", "2026-11-24T11:00:00.900Z", "2026-11-24T10:59:59Z"])
def test_two_stamps_within_a_second_are_one(timestamp: str) -> None:
    stamps = stamps_of({"originalTimestamp": "2026-11-24T11:00:00.000Z", "timestamp": timestamp})
    assert (stamps.original_at, stamps.given) == (RECEIVED - HOUR, False)


def test_of_two_stamps_one_that_cannot_be_read_leaves_the_other() -> None:
    stamps = stamps_of({"originalTimestamp": "soon", "timestamp": "2026-11-24T11:00:00Z", "sentAt": "later"})
    assert stamps == (RECEIVED - HOUR, None, False, {"originalTimestamp": "soon", "sentAt": "later"})
    stamps = stamps_of({"originalTimestamp": "2026-11-24T11:00:00Z", "timestamp": "x" * 900})
    assert stamps == (RECEIVED - HOUR, None, False, {"timestamp": "x" * 200})


@pytest.mark.parametrize("days", [1, 30, 729.9])
def test_what_was_sent_a_day_to_two_years_ago_is_an_archive_and_keeps_its_time(days: float) -> None:
    sent = RECEIVED - timedelta(days=days)
    times = settle(sent - HOUR, sent, RECEIVED)
    assert (times.occurred_at, times.rule, times.flag) == (sent - HOUR, "archived", "time_archived")


@pytest.mark.parametrize("days", [0.99, 731, 365 * 20, -30])
def test_a_clock_that_is_wrong_by_less_or_by_more_is_corrected(days: float) -> None:
    sent = RECEIVED - timedelta(days=days)
    times = settle(sent - HOUR, sent, RECEIVED)
    assert (times.occurred_at, times.rule, times.flag) == (RECEIVED - HOUR, "corrected", None)


@pytest.mark.parametrize(
    "impossible",
    [datetime(1970, 1, 20, 18, 53, 52, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(2204, 5, 1, tzinfo=UTC)],
)
def test_where_a_time_cannot_be_the_time_of_receipt_stands_in_and_it_is_told(impossible: datetime) -> None:
    for times in (settle(impossible, None, RECEIVED), settle(impossible, None, RECEIVED, trusted=True)):
        assert (times.occurred_at, times.rule, times.flag) == (RECEIVED, "impossible", "time_unreadable")
        assert times.original_at == impossible


def test_a_device_whose_clock_was_never_set_is_corrected_all_the_same() -> None:
    sent = datetime(1970, 1, 1, 0, 10, tzinfo=UTC)
    times = settle(sent - timedelta(minutes=5), sent, RECEIVED)
    assert (times.occurred_at, times.rule) == (RECEIVED - timedelta(minutes=5), "corrected")


def test_the_names_of_the_rules_are_known() -> None:
    assert set(RULES) == {
        *("received", "given", "original", "no_sent_at", "corrected", "archived", "trusted", "historical"),
        "impossible",
    }
