"""Reads all records of a range of offsets known to be in the log, however few the log returns at a time."""

from collections.abc import Iterator

from schemas.errors import StoreUnavailable
from schemas.ports import EventLog
from schemas.record import Stored


def records_between(log: EventLog, partition: int, start: int, end: int, chunk: int) -> Iterator[list[Stored]]:
    """Every record with start <= offset < end, in slices of at most `chunk`. `end`: at most an end the log once gave.

    A log may return fewer records than requested, and offsets have gaps, so an empty read proves nothing by itself. A
    broker that has just become the leader briefly shows fewer records than it has: that raises StoreUnavailable,
    because the caller would take the missing records as read and never read them again.
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
            raise StoreUnavailable("the log shows fewer records than it did before", retry_after_s=1)
        behind = log.read(partition, at, 1)
        if not behind or behind[0].offset >= end:
            return
