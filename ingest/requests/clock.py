"""Works out when an event happened, from the sender's clock and ours (design C4). Pure: `received_at` is passed in.

The formula is Segment's: timestamp = receivedAt − (sentAt − originalTimestamp). It is applied only if the clocks
differ by more than a minute, because it adds the transit time to the time of the event.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

TOLERANCE: Final = timedelta(seconds=60)
_BACK: Final = -TOLERANCE
EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
CLAMPED: Final = "_clamped"
RULES: Final = ("received", "original", "no_sent_at", "corrected", "trusted", "historical")
"""Names of rules; all but `received` may end in `_clamped`."""


class BadTime(ValueError):
    """A time that cannot be read or is out of range."""


class Times(NamedTuple):
    """The times of a record. `rule`: how `occurred_at` was determined; it is part of the event."""

    occurred_at: datetime
    known_at: datetime
    original_at: datetime | None
    sent_at: datetime | None
    rule: str


def parse_time(text: object) -> datetime:
    """An ISO-8601 string as an aware UTC time; without a zone it is UTC. Raises BadTime.

    Fractions beyond microseconds are cut off. Years before 1900 are typing errors or sentinels, not events.
    """
    if type(text) is not str:
        raise BadTime("is not a string")
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is not UTC:
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise BadTime("is not an ISO-8601 time") from err
    if at.year < EARLIEST.year:
        raise BadTime("is before 1900")
    return at


def settle(
    original_at: datetime | None,
    sent_at: datetime | None,
    received_at: datetime,
    *,
    trusted: bool = False,
    historical: bool = False,
    clock_received_at: datetime | None = None,
) -> Times:
    """The times of one event; all arguments aware UTC. Never later than `received_at`.

    `trusted`: a server's clock, never corrected. `historical`: an import of past events, known when they occurred.
    `clock_received_at`: when the sender's request arrived, if that is not `received_at` (a retried dead letter).
    """
    if original_at is None:
        at = clock_received_at or received_at
        return Times(at, at if historical else received_at, None, sent_at, "received")
    occurred_at = original_at
    limit = clock_received_at or received_at
    if historical:
        rule = "historical"
    elif trusted:
        rule = "trusted"
    elif sent_at is None:
        rule = "no_sent_at"
    else:
        rule, occurred_at = _correct(original_at, sent_at, limit)
    if occurred_at > limit:
        occurred_at = limit
        rule += CLAMPED
    return Times(occurred_at, occurred_at if historical else received_at, original_at, sent_at, rule)


def _correct(original_at: datetime, sent_at: datetime, received_at: datetime) -> tuple[str, datetime]:
    if _BACK <= received_at - sent_at <= TOLERANCE:
        return "original", original_at
    try:
        return "corrected", max(received_at - (sent_at - original_at), EARLIEST)
    except OverflowError:
        return "corrected", EARLIEST if sent_at > original_at else received_at
