"""All records of a range of offsets that is known to be in the log, whatever the log gives at a time."""

from collections.abc import Iterator

from schemas.errors import StoreUnavailable
from schemas.ports import EventLog
from schemas.record import Stored


def records_between(log: EventLog, partition: int, start: int, end: int, chunk: int) -> Iterator[list[Stored]]:
    """Every record with start <= offset < end, in slices of at most `chunk`. `end`: was the log's end, or before it.

    A log may give fewer records than asked, and offsets have gaps: an empty read proves nothing by itself. A broker
    that has just become the leader shows less than it has for a moment: that raises StoreUnavailable, for what a
    caller took as read would never be read again.
    """
    at = start
    while at < end:
        read = log.read(partition, at, min(chunk, end - at))
        records = [record for record in read if record.offset < end]
        if records:
            yield records
        if read:
            at = read[-1].offset + 1
            continue
        if log.ends()[partition] < end:
            raise StoreUnavailable("the log does not show all that it had", retry_after_s=1)
        behind = log.read(partition, at, 1)
        if not behind or behind[0].offset >= end:
            return
