"""Partitions that wait: at which record, since when, why, and what to do. And the one way records are taken apart.

A record that nobody will ever read is set aside; at one that this build cannot read *yet* its partition waits, alone.
Worker, archive, SQL, rebuild, check and refold all ask `isolate`, so that all come to the same.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Final, Generic, NamedTuple, TypeVar

from schemas.errors import Disposition, TouchfoldError
from schemas.record import Stored

T = TypeVar("T")
WORKER: Final = "worker"  # readers: whose partition waits
ARCHIVE: Final = "archive"
REFOLD: Final = "refold"
OPEN_TRANSACTION: Final = "open_transaction"  # the code of a wait for another producer
UNREADABLE: Final = "record_unreadable"  # rules of the dead letters
SET_ASIDE: Final = "record_set_aside"
_ODD: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Wait(NamedTuple):
    """A record at which a partition waits, with the code and the message of the error."""

    partition: int
    offset: int
    code: str
    reason: str

    @property
    def place(self) -> str:
        return f"partition {self.partition} offset {self.offset}"


class Waiting(NamedTuple):
    """A wait as it is kept: whose, and since when; None where nobody knows."""

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
            return f"{mend}: the workers have applied this record"
        return f"{mend}, or: touchfold record set-aside {self.wait.partition} {self.wait.offset}"

    def line(self) -> str:
        """For people."""
        wait = self.wait
        return f"partition {wait.partition} waits at offset {wait.offset} ({self.reader}): {wait.reason}"

    def answer(self) -> dict[str, object]:
        """The JSON of contracts."""
        since = None if self.since is None else self.since.isoformat().replace("+00:00", "Z")
        return {**self.wait._asdict(), "reader": self.reader, "since": since, "remedy": self.remedy}


def open_transaction(partition: int, first: int, end: int) -> Waiting:
    """Records that another producer's open transaction keeps from being read: from `first`, up to `end`."""
    reason = f"another producer's transaction is open: {end - first:,} offsets behind it cannot be read yet"
    return Waiting(WORKER, Wait(partition, first, OPEN_TRANSACTION, reason), None)


def applicable(ends: Sequence[int], applied: Sequence[int], waits: Iterable[Waiting]) -> int:
    """How many accepted records the worker could apply now: of a partition that waits, those before its record.

    `ends`, `applied`: offsets by partition; a partition that `applied` lacks was added just now.
    """
    stops = {each.wait.partition: each.wait.offset for each in waits if each.reader == WORKER}
    places = enumerate(zip_longest(ends, applied, fillvalue=0))
    return sum(max(0, min(end, stops.get(partition, end)) - at) for partition, (end, at) in places)


class Bad(NamedTuple):
    """A record to be set aside: under which rule of dead letters, and why."""

    record: Stored
    rule: str
    reason: str


@dataclass
class Isolated(Generic[T]):
    """Records taken apart. `wait`: the first that cannot be read yet; nothing from it on was looked at."""

    read: list[T] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    wait: Wait | None = None


def isolate(
    records: Sequence[Stored],
    read: Callable[[Stored], T],
    set_aside: Callable[[Wait], bool] = lambda _wait: False,
) -> Isolated[T]:
    """Read each record by itself. `set_aside`: whether somebody has set aside the record that we would wait for.

    `read` may raise a TouchfoldError (DEAD_LETTER: unreadable; WAIT: not yet; others pass through), or whatever bytes
    of another producer make it raise, which is unreadable too.
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
