"""Figures that are kept up to date: cells, and the ports that write and read them (decision 0018).

A cell is a sum by kind, place in time and label. Cells change only by adding deltas, which may be negative, each
written in the transaction that changes what it counts; so at any instant they equal a sum over everything.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

BUCKET_US: Final = 900_000_000  # a quarter of an hour: in every time zone days begin on such a boundary
PERIODS: Final = (7, 30, 90, 365)  # lengths in days of the periods the overview offers
LONGEST_DAYS: Final = PERIODS[-1]  # longer gaps between orders are not told apart
EVENTS: Final = 0  # used in place of a revision for cells that count events: they are the same in all revisions


class Kind:
    """What a cell counts; (place, other, label): n, amount. Plain numbers: hashing an enum member takes a microsecond.

    A bucket is occurred_us // BUCKET_US; a day is local.
    """

    ORDERS: Final = 1  # (bucket, 0, ""): orders; their amounts less refunds, in base currency
    UNRATED: Final = 2  # (bucket, 0 order or 1 refund, currency): amounts without a rate; their sum in that currency
    BUYERS: Final = 3  # (day, gap): customers who ordered on a day, by the days since their previous day with orders
    FIRSTS: Final = 4  # (day, gap): customers with one order on their first day of orders, by days until the next one
    CUSTOMERS: Final = 5  # (bucket, 0, ""): customers by their first event
    RISK: Final = (
        6  # (0, 0, level): customers; all their amounts less refunds. (0, 1, level): their amounts without a rate
    )
    EVENT: Final = 7  # (bucket, 0, ""): applied events
    FAMILY: Final = 8  # (day, 0, first word of the type): applied events
    STAGE: Final = 10  # (0, 0, "stage/level"): customers
    UNREADABLE: Final = 11  # (0, 0, ""): orders and refunds of customers whose amount could not be read
    UNKNOWN: Final = 9  # (0, 0, ""): customers whose orders are not available
    # Rolled up from those above (`projections.decide.figures.roll_up`) when deltas are added up into cells.
    DAY: Final = 20  # + ORDERS, UNRATED, CUSTOMERS or EVENT: (day, other, label): the same by local days
    PERIOD_BUYERS: Final = 31  # (day, days of a period): how the sum of BUYERS differs from that of the period ending
    PERIOD_FIRSTS: Final = 32  # the day before, and the same for FIRSTS; so the sum up to a day is that of its period


BY_BUCKET: Final = (Kind.ORDERS, Kind.UNRATED, Kind.CUSTOMERS, Kind.EVENT)


Key = tuple[int, int, int, str]  # kind, place, other, label
Cells = dict[Key, list[int]]  # n, scaled amount


def add(cells: Cells, key: Key, n: int, amount: int = 0) -> None:
    cell = cells.get(key)
    if cell is None:
        cells[key] = [n, amount]
    else:
        cell[0] += n
        cell[1] += amount


class Counted(NamedTuple):
    """What the figures count in a profile row."""

    profile_id: bytes
    state: bytes
    first_us: int | None
    risk: str
    lifecycle: str
    leaves: Sequence[bytes] = ()  # packed leaves of the tree with its orders, if the state has only their summary


class FigureTx(Protocol):
    """What a transaction does for the figures. Zero deltas are left out."""

    def add_figures(self, revision: int, cells: Mapping[Key, Sequence[int]]) -> None: ...

    def counted_up_to(self, revision: int) -> bytes | None:
        """Profiles up to this id are counted; None: all are. Valid until commit: call it after locking profiles."""

    def add_nobody(self, identifier_sets: Collection[bytes]) -> None:
        """These belong to nobody: in every revision their orders will be counted without a customer."""

    def events_counted_before(self, partition: int, offset: int) -> bool:
        """Whether an event at this position is in the figures; valid until commit."""


class KeeperTx(FigureTx, Protocol):
    """What keeping the figures up to date needs in addition to `FigureTx`."""

    def take_nobody(self, revision: int, limit: int) -> dict[bytes, bytes | None]:
        """Takes identifier sets of nobody off the queue, to count again; with their orders as counted before."""

    def save_nobody(self, revision: int, orders: Mapping[bytes, bytes]) -> None: ...

    def positions_of_nobody(self, identifier_sets: Iterable[bytes]) -> list[tuple[int, int]]:
        """(partition, offset) of their events, including those that came after an erasure."""

    def owned_order_sets(self, senders: Iterable[bytes]) -> set[bytes]:
        """The order sets of what these identifier sets sent that a profile owns."""

    def next_uncounted(self, revision: int, limit: int) -> list[Counted] | None:
        """The next profiles to count, by id; they are counted once this commits. None: all are counted."""

    def next_events(self) -> tuple[int, int, int] | None:
        """(partition, from, until) of events applied before there were figures. None: all are counted."""

    def skipped(self, partition: int, start: int, end: int) -> set[int]: ...

    def events_counted(self, partition: int, upto: int) -> None:
        """Events before `upto` are now counted."""

    def compact_figures(self, limit: int, roll_up: Callable[[Cells], Cells]) -> int:
        """Sum the deltas of up to `limit` transactions into cells; returns how many. 0 also if another process does."""


class Window(NamedTuple):
    """A period in buckets and days: [start, end) for what is counted by bucket, first to last for what is by day."""

    start: int
    end: int
    first: int
    last: int
    last_start: int  # the bucket where the last day begins


class Amounts(NamedTuple):
    n: int
    amount: int


class Figures(NamedTuple):
    """What the cells of two windows add up to. `done` below 1: counting has not finished, so nothing here is valid."""

    done: float
    watermark_us: int
    orders: tuple[Amounts, Amounts]  # now, before
    unrated: tuple[Mapping[tuple[str, int], Amounts], Mapping[tuple[str, int], Amounts]]  # (currency, order or refund)
    buyers: tuple[int, int]
    once: tuple[int, int]  # buyers with one order and none before it
    customers: tuple[int, int]  # new ones
    events: tuple[int, int]
    risk: Mapping[tuple[str, int], Amounts]  # (level, 0 or 1 as in Kind.RISK)
    stages: Mapping[tuple[str, str], int]  # (stage, risk level): customers
    by_day: Mapping[int, Amounts]  # index of the day in the window: orders
    by_family: Mapping[str, int]
    unknown: int
    unreadable: int = 0  # orders and refunds with an amount that could not be read
