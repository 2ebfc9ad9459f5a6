"""Works out when an event happened, from the sender's clock and ours (design C4). Pure: `received_at` is passed in.

The formula is Segment's: timestamp = receivedAt − (sentAt − originalTimestamp). It is applied only if the clocks
differ by more than a minute, because it adds the transit time to the time of the event; and only to a time that the
sender's clock gave: neither to one that the caller gave beside it, nor to what is sent from an archive (decision 0032).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from schemas.times import EARLIEST, BadTime, read_time, why_impossible

TOLERANCE: Final = timedelta(seconds=60)
_BACK: Final = -TOLERANCE
SAME: Final = timedelta(seconds=1)  # SDKs read the clock twice for the two stamps of a call
ARCHIVE_FROM: Final = timedelta(days=1)  # sent so long ago: a file of requests that is sent again
ARCHIVE_TO: Final = timedelta(days=730)  # longer ago: a clock that was never set
CLAMPED: Final = "_clamped"
RULES: Final = (
    "received",
    "given",
    "original",
    "no_sent_at",
    "corrected",
    "archived",
    "trusted",
    "historical",
    "impossible",
)
"""Names of rules; all but `received` and `impossible` may end in `_clamped`."""
UNREADABLE: Final = "time_unreadable"
ARCHIVED: Final = "time_archived"
_LONGEST: Final = 200  # characters kept of what could not be read
_NOTHING: Final[Mapping[str, str]] = {}


class Stamps(NamedTuple):
    """The sender's times of an item. `given`: the caller's own time beside the SDK's, so no clock is to be corrected.

    `unread`: by field, the texts of times that cannot be read.
    """

    original_at: datetime | None = None
    sent_at: datetime | None = None
    given: bool = False
    unread: Mapping[str, str] = _NOTHING


class Times(NamedTuple):
    """The times of a record. `rule`: how `occurred_at` was determined; it is part of the event."""

    occurred_at: datetime
    known_at: datetime
    original_at: datetime | None
    sent_at: datetime | None
    rule: str
    flag: str | None = None  # a word of `schemas.record.FLAGS`


def stamps_of(item: Mapping[str, Any]) -> Stamps:
    """The times of an item. `timestamp` and `originalTimestamp` that differ: the caller gave `timestamp`."""
    get = item.get
    called, given, sent = get("originalTimestamp"), get("timestamp"), get("sentAt")
    if called is None and given and (sent is None or sent):
        try:  # nearly every item
            return Stamps(read_time(given), None if sent is None else read_time(sent))
        except BadTime:
            pass  # the slow way notes which
    return _noted(called, given, sent)


def _noted(called: object, given: object, sent: object) -> Stamps:
    unread: dict[str, str] = {}
    if called is None or called == "":
        return Stamps(_read("timestamp", given, unread), _read("sentAt", sent, unread), False, unread)
    original_at = _read("originalTimestamp", called, unread)
    meant = False
    if given is not None and given != called:
        given_at = _read("timestamp", given, unread)
        if given_at is not None and (original_at is None or abs(given_at - original_at) > SAME):
            meant = original_at is not None
            original_at = given_at
    return Stamps(original_at, _read("sentAt", sent, unread), meant, unread)


def _read(name: str, value: object, unread: dict[str, str]) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        return read_time(value)
    except BadTime:
        unread[name] = (value if isinstance(value, str) else repr(value))[:_LONGEST]
        return None


def settle(
    original_at: datetime | None,
    sent_at: datetime | None,
    received_at: datetime,
    *,
    trusted: bool = False,
    historical: bool = False,
    clock_received_at: datetime | None = None,
    given: bool = False,
) -> Times:
    """The times of one event; all arguments aware UTC. Never later than `received_at`.

    `trusted`: a server's clock, never corrected. `historical`: an import of past events, known when they occurred.
    `clock_received_at`: when the sender's request arrived, if that is not `received_at` (a retried dead letter).
    `given`: the caller gave this time, see `Stamps`.
    """
    limit = clock_received_at or received_at
    if original_at is None:
        return Times(limit, limit if historical else received_at, None, sent_at, "received")
    occurred_at = original_at
    flag = None
    if historical:
        rule = "historical"
    elif trusted:
        rule = "trusted"
    elif given:
        rule = "given"
    elif sent_at is None:
        rule = "no_sent_at"
    else:
        rule, occurred_at = _correct(original_at, sent_at, limit)
        flag = ARCHIVED if rule == "archived" else None
    if occurred_at > limit or occurred_at.year <= 1970:
        if why_impossible(occurred_at, limit) is not None:
            return Times(limit, limit if historical else received_at, original_at, sent_at, "impossible", UNREADABLE)
        if occurred_at > limit:
            occurred_at = limit
            rule += CLAMPED
    return Times(occurred_at, occurred_at if historical else received_at, original_at, sent_at, rule, flag)


def _correct(original_at: datetime, sent_at: datetime, received_at: datetime) -> tuple[str, datetime]:
    ago = received_at - sent_at
    if _BACK <= ago <= TOLERANCE:
        return "original", original_at
    if ARCHIVE_FROM <= ago <= ARCHIVE_TO:
        return "archived", original_at
    try:
        return "corrected", max(received_at - (sent_at - original_at), EARLIEST)
    except OverflowError:
        return "corrected", EARLIEST if sent_at > original_at else received_at


def flags_of(times: Times, stamps: Stamps) -> list[str]:
    """The flags of an event's times, each once."""
    flags = [] if times.flag is None else [times.flag]
    return [*flags, UNREADABLE] if stamps.unread and UNREADABLE not in flags else flags
