"""Partitions that wait: at which record, since when, why, and what to do; and the one place that sorts records.

A record that no build will ever read is set aside. At a record that this build cannot read *yet*, its partition waits
while the others go on. Worker, archive, SQL, rebuild, check and refold all use `isolate`, so their answers agree.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Final, Generic, NamedTuple, TypeVar

from schemas.errors import Disposition, TouchfoldError
from schemas.record import Stored

T = TypeVar("T")
WORKER: Final = "worker"  # a reader: which process waits
ARCHIVE: Final = "archive"
REFOLD: Final = "refold"
OPEN_TRANSACTION: Final = "open_transaction"  # the code of a wait for another producer's transaction
UNREADABLE: Final = "record_unreadable"  # dead-letter rules
SET_ASIDE: Final = "record_set_aside"
_ODD: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Wait(NamedTuple):
    """The record a partition waits at, with the code and the message of the error."""

    partition: int
    offset: int
    code: str
    reason: str

    @property
    def place(self) -> str:
        return f"partition {self.partition} offset {self.offset}"


class Waiting(NamedTuple):
    """A stored wait: which reader waits, and since when (None if unknown)."""

    reader: str
    wait: Wait
    since: datetime | None

    @property
    def remedy(self) -> str:
        if self.wait.code == OPEN_TRANSACTION:
            return (
                "end the producer that left it open, or wait until the brokers abort it (its transaction.timeout.ms, "
                "by default at most 15 minutes); kafka-transactions.sh find-hanging names it"
            )
        mend = "upgrade this build" if self.wait.code == "reader_too_old" else "restore what the reason names"
        if self.reader != WORKER:
            return f"{mend}: the workers have already applied this record"
        return f"{mend}, or: touchfold record set-aside {self.wait.partition} {self.wait.offset}"

    def line(self) -> str:
        """For people."""
        wait = self.wait
        return f"partition {wait.partition} waits at offset {wait.offset} ({self.reader}): {wait.reason}"

    def answer(self) -> dict[str, object]:
        """The JSON form that docs/contracts.md describes."""
        since = None if self.since is None else self.since.isoformat().replace("+00:00", "Z")
        return {**self.wait._asdict(), "reader": self.reader, "since": since, "remedy": self.remedy}


def open_transaction(partition: int, first: int, end: int) -> Waiting:
    """Records from `first` up to `end` that cannot be read while another producer's transaction is open."""
    reason = f"another producer's transaction is open: the {end - first:,} offsets from there on cannot be read yet"
    return Waiting(WORKER, Wait(partition, first, OPEN_TRANSACTION, reason), None)


def applicable(ends: Sequence[int], applied: Sequence[int], waits: Iterable[Waiting]) -> int:
    """How many accepted records the worker could apply now; in a waiting partition, only those before the record.

    `ends`, `applied`: offsets by partition; a partition missing from `applied` was just added.
    """
    stops = {each.wait.partition: each.wait.offset for each in waits if each.reader == WORKER}
    places = enumerate(zip_longest(ends, applied, fillvalue=0))
    return sum(max(0, min(end, stops.get(partition, end)) - at) for partition, (end, at) in places)


class Bad(NamedTuple):
    """A record to set aside, with the dead-letter rule and the reason."""

    record: Stored
    rule: str
    reason: str


@dataclass
class Isolated(Generic[T]):
    """Records sorted by whether they can be read. `wait`: the first that cannot be read yet; reading stops there."""

    read: list[T] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    wait: Wait | None = None


def isolate(
    records: Sequence[Stored],
    read: Callable[[Stored], T],
    set_aside: Callable[[Wait], bool] = lambda _wait: False,
) -> Isolated[T]:
    """Read each record by itself. `set_aside`: whether somebody has set aside the record we would wait at.

    `read` may raise a TouchfoldError (DEAD_LETTER: unreadable; WAIT: not yet; others pass through). Any other
    exception, caused by some other producer's bytes, also counts as unreadable.
    """
    found: Isolated[T] = Isolated()
    for record in records:
        try:
            found.read.append(read(record))
        except TouchfoldError as err:
            if err.disposition is Disposition.DEAD_LETTER:
                found.bad.append(Bad(record, UNREADABLE, err.message))
            elif err.disposition is not Disposition.WAIT:
                raise
            elif set_aside(wait := Wait(record.partition, record.offset, err.code, err.message)):
                found.bad.append(Bad(record, SET_ASIDE, err.message))
            else:
                found.wait = wait
                break
        except _ODD as err:
            found.bad.append(Bad(record, UNREADABLE, f"not a touchpoint record: {type(err).__name__}"))
    return found
